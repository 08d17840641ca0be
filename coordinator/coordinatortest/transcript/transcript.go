// Package transcript runs tests that are written down as what was said and what came
// of it: files testdata/*.txt, which a person reads and the flag -update writes anew.
// It knows the form; which verbs there are is the test's own.
//
//	# A line that begins with # stands for itself, and so does an empty one.
//	> verb word key=value key='a value with blanks' ; another verb
//	  what came of it, as many lines as it takes
//
// A line that begins with "> " is played: one command or several, apart by " ; ". A
// command is a verb, words known by their place, and values known by their key, in
// any order. A part between ' and ' is not cut at blanks; a word that begins with {
// is never a key. What stands below such a line, up to the next empty one, # or >, has
// to be what comes of it.
package transcript

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the answers of transcripts")

// Run plays each file of a pattern as a subtest. begin makes what is played on, and
// returns what carries one line out and answers it, in whole lines.
func Run(t *testing.T, pattern string, begin func(t *testing.T) (play func([]Command) string)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no transcripts: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, file, string(script), begin(t))
			switch {
			case *update:
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			case got != string(script):
				t.Errorf("%s:%s", file, Difference(string(script), got))
			}
		})
	}
}

// replay is a script with the answers of today.
func replay(t *testing.T, file, script string, play func([]Command) string) string {
	t.Helper()
	var out strings.Builder
	answering := false
	for i, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		said, is := strings.CutPrefix(line, "> ")
		switch {
		case is:
			var commands []Command
			for _, one := range strings.Split(said, " ; ") {
				c := Parse(t, one)
				c.at = fmt.Sprintf("%s:%d: %s", file, i+1, one)
				commands = append(commands, c)
			}
			out.WriteString(line + "\n" + play(commands))
			answering = true
		case line == "" || strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
			answering = false
		case !answering:
			t.Fatalf("%s:%d: neither a command nor an answer: %q", file, i+1, line)
		}
	}
	return out.String()
}

// Difference is the first line in which two texts differ.
func Difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("%d:\nwant %s\ngot  %s", i+1, a, b)
		}
	}
	return "no difference"
}

// Command is one command of a line.
type Command struct {
	Verb  string
	Words []string          // without a key, in their order
	Args  map[string]string // by key

	t  testing.TB
	at string
}

// Fatalf ends the test over a command that makes no sense.
func (c Command) Fatalf(format string, a ...any) {
	c.t.Helper()
	c.t.Fatalf("%s: %s", c.at, fmt.Sprintf(format, a...))
}

// Parse reads one command that a test makes for itself.
func Parse(t testing.TB, text string) Command {
	c := Command{Args: map[string]string{}, t: t, at: text}
	var words []string
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		end, quoted := 0, false
		for end < len(text) && (quoted || text[end] != ' ') {
			if text[end] == '\'' {
				quoted = !quoted
			}
			end++
		}
		words = append(words, strings.ReplaceAll(text[:end], "'", ""))
		text = text[end:]
	}
	for i, w := range words {
		key, value, ok := strings.Cut(w, "=")
		switch {
		case i == 0:
			c.Verb = w
		case ok && !strings.HasPrefix(w, "{"):
			c.Args[key] = value
		default:
			c.Words = append(c.Words, w)
		}
	}
	return c
}

// Word is word i, "" where there are fewer.
func (c Command) Word(i int) string {
	if i >= len(c.Words) {
		return ""
	}
	return c.Words[i]
}

// Or is the value of a key, or another one where it was not given.
func (c Command) Or(key, otherwise string) string {
	if v, ok := c.Args[key]; ok {
		return v
	}
	return otherwise
}

// Number is the value of a key as a number; see Or.
func (c Command) Number(key string, otherwise int64) int64 {
	c.t.Helper()
	text, ok := c.Args[key]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		c.Fatalf("%s=%s: %v", key, text, err)
	}
	return n
}

// WordNumber is word i as a number, 0 where there are fewer.
func (c Command) WordNumber(i int) int64 {
	c.t.Helper()
	if i >= len(c.Words) {
		return 0
	}
	n, err := strconv.ParseInt(c.Words[i], 10, 64)
	if err != nil {
		c.Fatalf("%v", err)
	}
	return n
}
