package cli_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what the command says now")

// The files under testdata are transcripts: a command after "$", then what it
// must write on standard output, on standard error (lines after "! "), and its
// exit code if that is not 0. After "# screen of 80 columns" standard output is a
// terminal so wide.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			f := start(t)
			f.groups = strings.HasSuffix(file, "groups.txt")
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS("testdata/files")); err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			n, columns := 0, 0
			for line := range strings.Lines(string(want)) {
				if strings.HasPrefix(line, "#") {
					got.WriteString(line)
				}
				fmt.Sscanf(line, "# screen of %d columns", &columns)
				cmd, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ atelier")
				if !ok {
					continue
				}
				n++
				r := onScreen(t, dir, columns, split(cmd)...)
				fmt.Fprintf(&got, "$ atelier%s\n%s", cmd, r.out)
				for l := range strings.Lines(r.err) {
					got.WriteString("! " + l)
				}
				if r.code != 0 {
					fmt.Fprintf(&got, "exit %d\n", r.code)
				}
				got.WriteString("\n")
			}
			if n == 0 {
				t.Fatal("no commands in it")
			}
			text := strings.NewReplacer(f.files, "WORKER", dir, "DIR").Replace(got.String())
			text = regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAllString(text, "")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if text != string(want) {
				t.Errorf("%s differs; run with -update and look at the difference.\n%s", file, firstDifference(string(want), text))
			}
		})
	}
}

// split cuts a command line at spaces; '...' keeps one argument together.
func split(s string) []string {
	var out []string
	for _, w := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(s, -1) {
		out = append(out, strings.Trim(w, "'"))
	}
	return out
}

func firstDifference(want, got string) string {
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
			return fmt.Sprintf("line %d\nwant: %s\ngot:  %s", i+1, a, b)
		}
	}
	return ""
}
