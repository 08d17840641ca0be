package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/tuner/cli"

	ucli "github.com/urfave/cli/v2"
)

// words are the candidates without what is said of them.
func words(t *testing.T, line ...string) []string {
	t.Helper()
	r := run(t, t.TempDir(), append([]string{"completion", "words", "--"}, line...)...)
	if r.code != 0 {
		t.Fatalf("%q: exit %d: %s", line, r.code, r.err)
	}
	var out []string
	for l := range strings.Lines(r.out) {
		w, _, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
		out = append(out, w)
	}
	return out
}

func TestCompletionWords(t *testing.T) {
	start(t)
	for _, tc := range []struct {
		line []string
		want []string // all of them, or with "..." at the end these among others
	}{
		{[]string{"swe"}, []string{"sweep"}},
		{[]string{""}, []string{"sweep", "leaderboard", "train", "completion", "..."}},
		{[]string{"sweep", "e"}, []string{"export-mlflow", "extend", "enqueue"}},
		{[]string{"sweep", "list", "--out"}, []string{"--output"}},
		{[]string{"sweep", "list", "-"}, []string{"--output", "--limit", "--quiet", "--addr", "--timeout", "--help", "..."}},
		{[]string{"sweep", "list", "--output", ""}, []string{"table", "wide", "name", "json", "yaml", "csv"}},
		{[]string{"sweep", "list", "--state", "running,p"}, []string{"running,paused"}},
		{[]string{"trial", "list", "x", "--state=failed,f"}, []string{"--state=failed,finished"}},
		{[]string{"sweep", "show", "--output", ""}, []string{"table", "wide", "json", "yaml", "csv"}},
		{[]string{"sweep", "list", "--output=j"}, []string{"--output=json"}},
		{[]string{"sweep", "list", "--output", "=", "j"}, []string{"json"}}, // as bash takes it apart
		{[]string{"sweep", "list", "-o", "y"}, []string{"yaml"}},
		{[]string{"sweep", "list", "--limit", ""}, nil},
		{[]string{"--timeout", "10m", "sweep", "li"}, []string{"list"}},
		{[]string{"sweep", "show", ""}, []string{"s-bbbbbbbb", "s-aaaaaaaa", "facades"}},
		{[]string{"sweep", "show", "fa"}, []string{"facades"}},
		{[]string{"sweep", "show", "-o", "json", "s-a"}, []string{"s-aaaaaaaa"}},
		{[]string{"trial", "list", "s-b"}, []string{"s-bbbbbbbb"}},
		{[]string{"worker", "drain", ""}, []string{"w1", "w2"}},
		{[]string{"cluster", "remove", "c"}, []string{"c1", "c2", "c3"}},
		{[]string{"--addr", "127.0.0.1", ":", "1", "sweep", "show", ""}, nil}, // nobody is there
		{[]string{"sweep", "submit", ""}, []string{":files"}},
		{[]string{"train", "--config", ""}, []string{":files"}},
		{[]string{"train", "--weights", "resnet1"}, []string{"resnet18", "resnet101", "resnet101-v1", "resnet152", "resnet152-v1"}},
		{[]string{"tune", "--weights=n"}, []string{"--weights=none"}},
		{[]string{"train", "--weights", "models/"}, []string{":files"}},
		{[]string{"weights", "convert", "a.pth", ""}, []string{":files"}},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish"}},
		{[]string{"no", "such"}, nil},
		{[]string{"sweep", "--", "x"}, nil},
	} {
		got := words(t, tc.line...)
		if n := len(tc.want); n > 0 && tc.want[n-1] == "..." {
			for _, w := range tc.want[:n-1] {
				if !slices.Contains(got, w) {
					t.Errorf("%q: %q lacks %s", tc.line, got, w)
				}
			}
			continue
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(tc.want))
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", tc.line, got, want)
		}
	}
}

// The scripts themselves, each in its shell, ask this test for words.
func TestCompletionScripts(t *testing.T) {
	if os.Getenv("ATELIER_TEST_COMPLETION") != "" {
		at := slices.Index(os.Args, "completion")
		os.Exit(cli.Process().Run(t.Context(), os.Args[at:]))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	program := "#!/bin/sh\nATELIER_TEST_COMPLETION=1 exec '" + self + "' -test.run '^TestCompletionScripts$' -- \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "atelier"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	for shell, script := range map[string]string{
		"bash": `source "$1"
			COMP_WORDS=(atelier sweep list --output = "j"); COMP_CWORD=5; _atelier; echo "${COMPREPLY[@]}"
			COMP_WORDS=(atelier sweep su); COMP_CWORD=2; _atelier; echo "${COMPREPLY[@]}"
			COMP_WORDS=(atelier completion ""); COMP_CWORD=2; _atelier; echo "${COMPREPLY[@]}"
			COMP_WORDS=(atelier sweep submit ""); COMP_CWORD=3; _atelier; echo "(${COMPREPLY[@]})"`,
		"zsh": `compdef() { :; }; _describe() { shift 2; print -r -- ${(P)1%%:*}; }; _files() { print "()"; }
			source "$1"
			words=(atelier sweep list --output j); CURRENT=5; _atelier
			words=(atelier sweep su); CURRENT=3; _atelier
			words=(atelier completion ""); CURRENT=3; _atelier
			words=(atelier sweep submit ""); CURRENT=4; _atelier`,
		"fish": `source $argv[1]; cd (mktemp -d); touch x.yaml
			complete -C 'atelier sweep list --output j' | cut -f1 | string join ' '
			complete -C 'atelier sweep su' | cut -f1 | string join ' '
			complete -C 'atelier completion ' | cut -f1 | string join ' '
			echo '('(complete -C 'atelier sweep submit ' | cut -f1)')'`,
	} {
		t.Run(shell, func(t *testing.T) {
			program, err := exec.LookPath(shell)
			if err != nil {
				t.Skip("no " + shell)
			}
			text := run(t, bin, "completion", shell)
			file := filepath.Join(bin, "script."+shell)
			if err := os.WriteFile(file, []byte(text.out), 0o644); err != nil || text.code != 0 {
				t.Fatal(err, text)
			}
			args := []string{"-c", script, shell, file}
			if shell == "fish" {
				args = []string{"--no-config", "-c", script, file}
			}
			cmd := exec.Command(program, args...)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+bin)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := "json\nsubmit\nbash zsh fish\n()\n"
			if shell == "fish" { // it completes files itself
				want = strings.Replace(want, "()", "(x.yaml)", 1)
			}
			if got := string(out); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// Every verb's help shows how it is used.
func TestEveryHelpHasExamples(t *testing.T) {
	n := 0
	cli.Verbs(func(path []string, c *ucli.Command) {
		n++
		name := "atelier " + strings.Join(path, " ")
		r := run(t, t.TempDir(), append(path, "--help")...)
		_, examples, ok := strings.Cut(r.out, "EXAMPLES:\n")
		if r.code != 0 || !ok || !strings.HasPrefix(r.out, name+" - ") {
			t.Errorf("%s --help: exit %d\n%s", name, r.code, r.out)
			return
		}
		first, _, _ := strings.Cut(examples, "\n")
		if !strings.Contains(first, name) {
			t.Errorf("%s: the first example is %q", name, first)
		}
	})
	if n < 20 {
		t.Errorf("%d verbs", n)
	}
}
