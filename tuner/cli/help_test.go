package cli_test

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/tuner/cli"

	ucli "github.com/urfave/cli/v2"
)

// Every verb's help has examples that its own flags and arguments allow.
func TestExamplesParse(t *testing.T) {
	verbs := 0
	cli.Verbs(func(path []string, c *ucli.Command) {
		name := strings.Join(path, " ")
		if c.Hidden {
			return
		}
		verbs++
		r := run(t, t.TempDir(), append(append([]string{}, path...), "--help")...)
		_, examples, ok := strings.Cut(r.out, "\nEXAMPLES:\n")
		examples, _, _ = strings.Cut(examples, "\n\n")
		if r.code != 0 || !ok {
			t.Errorf("%s --help has no examples: exit %d\n%s%s", name, r.code, r.out, r.err)
			return
		}
		own := 0
		for line := range strings.Lines(examples) {
			for _, args := range commands(line) {
				if err := cli.Parse(args); err != nil {
					t.Errorf("%s --help: %s: %v", name, strings.TrimSpace(line), err)
				}
				if strings.HasPrefix(strings.Join(args, " ")+" ", name+" ") || strings.Contains(" "+strings.Join(args, " ")+" ", " "+name+" ") {
					own++
				}
			}
		}
		if own == 0 {
			t.Errorf("%s --help has no example of %s", name, name)
		}
	})
	if verbs < 40 {
		t.Errorf("%d verbs: the tree was not walked", verbs)
	}
}

// Groups and the whole show examples too.
func TestGroupsHaveExamples(t *testing.T) {
	seen := map[string]bool{"": true}
	cli.Verbs(func(path []string, c *ucli.Command) {
		for i := 1; i < len(path); i++ {
			seen[strings.Join(path[:i], " ")] = true
		}
	})
	for group := range seen {
		r := run(t, t.TempDir(), append(strings.Fields(group), "--help")...)
		_, examples, ok := strings.Cut(r.out, "EXAMPLES:\n")
		if r.code != 0 || !ok || !strings.Contains(examples, "   atelier "+group) {
			t.Errorf("atelier %s --help: exit %d\n%s", group, r.code, r.out)
		}
	}
}

// A command line that makes no sense must fail here, or the test above says nothing.
func TestParseSeesMistakes(t *testing.T) {
	for _, args := range [][]string{{"data", "pack"}, {"data", "pack", "x", "--sze", "3"}, {"data", "pack", "x", "--size", "many"}, {"nosuch"}, {"sweep"}} {
		if err := cli.Parse(args); err == nil {
			t.Errorf("%q parses", args)
		}
	}
}

// commands are the arguments of each call of atelier in a line of shell.
func commands(line string) (all [][]string) {
	for _, part := range regexp.MustCompile(`\s(?:\||&&|;)\s`).Split(line, -1) {
		part, _, _ = strings.Cut(part, " # ")
		var args []string
		found := false
		for _, w := range regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`).FindAllString(part, -1) {
			switch {
			case !found:
				found = w == "atelier" || strings.HasSuffix(w, "$(atelier")
			case strings.HasPrefix(w, ">") || w == "2>" || w == "<" || w == "&":
				found = false
				all, args = append(all, args), nil
			default:
				args = append(args, strings.Trim(w, `"'`))
			}
		}
		if found {
			all = append(all, args)
		}
	}
	return all
}

// Helps fit the terminal, and 80 columns where there is none: only examples and words without a space are longer.
func TestHelpsFitTheTerminal(t *testing.T) {
	lines := map[int]int{}
	look := func(path []string) {
		for _, columns := range []int{0, 60, 80, 300} {
			var out, errs bytes.Buffer
			e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Dir: t.TempDir(), Now: time.Now, Screen: columns > 0, Width: func() int { return columns }}
			if code := e.Run(t.Context(), append(slices.Clone(path), "--help")); code != 0 {
				t.Fatalf("%q --help: exit %d: %s", path, code, errs.String())
			}
			most := map[int]int{0: 80, 60: 60, 80: 80, 300: 100}[columns]
			before, rest, _ := strings.Cut(out.String(), "\nEXAMPLES:\n")
			_, after, _ := strings.Cut(rest, "\n\n")
			for line := range strings.Lines(before + "\n" + after) {
				lines[columns]++
				line = strings.TrimRight(line, "\n")
				if len([]rune(line)) > most && strings.Contains(strings.TrimSpace(line), " ") {
					t.Errorf("%d columns: %q --help: %d in %q", columns, path, len([]rune(line)), line)
				}
				if at := regexp.MustCompile(`^   --\S.*?  +(\S)`).FindStringSubmatchIndex(line); at != nil && at[2] > 32 {
					t.Errorf("%d columns: %q --help: the descriptions begin at column %d: %q", columns, path, at[2]+1, line)
				}
			}
		}
	}
	seen := map[string]bool{"": true}
	cli.Verbs(func(path []string, c *ucli.Command) {
		look(path)
		for i := 1; i < len(path); i++ {
			seen[strings.Join(path[:i], " ")] = true
		}
	})
	for group := range seen {
		look(strings.Fields(group))
	}
	if lines[80] < 800 || lines[60] <= lines[300] {
		t.Errorf("%v lines looked at", lines)
	}
}
