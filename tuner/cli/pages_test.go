package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"atelier/tuner/cli"
)

var (
	fenced   = regexp.MustCompile("(?ms)^```sh.*?\n(.*?)^```$")
	inline   = regexp.MustCompile("`(atelier [a-z][^`]*)`")
	variable = regexp.MustCompile(`"?\$\w+"?`)
	wrong    = regexp.MustCompile(`unknown|no such|not a command`)
	// vague are what inline examples leave out, such as `atelier sweep pause|stop` or `[--config --mode]`.
	vague = regexp.MustCompile(`[|\[\]]|\.\.\.|_[A-Z]`)
)

// Every atelier command in a block of a page parses, also in blocks that are not
// run. Inline ones name commands and flags that are there: what they leave out may be
// an argument.
func TestPagesParse(t *testing.T) {
	names, err := filepath.Glob("../../deploy/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	lines, quoted := 0, 0
	for _, name := range append(names, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		page := filepath.Base(name)
		for _, m := range fenced.FindAllStringSubmatch(string(text), -1) {
			for line := range strings.Lines(strings.ReplaceAll(m[1], "\\\n", " ")) {
				for _, args := range commands(variable.ReplaceAllString(line, "1")) {
					lines++
					if err := cli.Parse(args); err != nil {
						t.Errorf("%s: %s: %v", page, strings.TrimSpace(line), err)
					}
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(string(text), -1) {
			line := strings.Join(strings.Fields(m[1]), " ")
			if vague.MatchString(line) {
				continue
			}
			for _, args := range commands(line) {
				quoted++
				if err := cli.Parse(args); err != nil && wrong.MatchString(err.Error()) {
					t.Errorf("%s: `%s`: %v", page, line, err)
				}
			}
		}
	}
	for _, args := range [][]string{{"nosuch"}, {"sweep", "nosuch"}, {"train", "--nosuch"}} {
		if err := cli.Parse(args); err == nil || !wrong.MatchString(err.Error()) {
			t.Errorf("%q: %v: it would not be seen", args, err)
		}
	}
	if lines < 40 || quoted < 40 {
		t.Errorf("%d lines and %d quotations were parsed", lines, quoted)
	}
}
