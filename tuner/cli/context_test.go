package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/tuner/cli"
)

// person runs commands with a home folder and an environment of its own.
type person struct {
	t    *testing.T
	home string
	env  []string
}

func (p *person) run(args ...string) result {
	p.t.Helper()
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: func() time.Time { return now }, Dir: p.home, Width: func() int { return 80 },
		Environ: append([]string{"HOME=" + p.home}, p.env...)}
	code := e.Run(p.t.Context(), args)
	return result{code, out.String(), errs.String()}
}

// file is where the person's contexts are.
func (p *person) file() string { return filepath.Join(p.home, ".config", "atelier", "config.yaml") }

func newcomer(t *testing.T) *person {
	os.Unsetenv("ATELIER_ADDR") // start's t.Setenv puts back what was there
	return &person{t: t, home: t.TempDir()}
}

// The first that is given counts: --addr or --context, ATELIER_ADDR, ATELIER_CONTEXT,
// the context in use; each answer and each error tells which it was.
func TestContextOrder(t *testing.T) {
	f := start(t)
	t.Setenv("ATELIER_CONTEXT", "")
	os.Unsetenv("ATELIER_CONTEXT")
	p := newcomer(t)
	for _, args := range [][]string{{"set", "lab", "--addr", f.files}, {"set", "gone", "--addr", "127.0.0.1:1"}} {
		if r := p.run(append([]string{"context"}, args...)...); r.code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	from := func(env map[string]string, args ...string) string {
		t.Helper()
		for k, v := range env {
			t.Setenv(k, v)
		}
		r := p.run(append(args, "context", "show")...)
		for k := range env {
			os.Unsetenv(k)
		}
		if r.code != 0 {
			t.Fatalf("%q %v: %+v", args, env, r)
		}
		for l := range strings.Lines(r.out) {
			if s, ok := strings.CutPrefix(l, "from"); ok {
				return strings.TrimSpace(s)
			}
		}
		return ""
	}
	addr, named := map[string]string{"ATELIER_ADDR": f.files}, map[string]string{"ATELIER_CONTEXT": "gone"}
	both := map[string]string{"ATELIER_ADDR": f.files, "ATELIER_CONTEXT": "gone"}
	if got := from(nil); got != "default" {
		t.Errorf("no context is in use: %s", got)
	}
	if r := p.run("context", "use", "lab"); r.code != 0 || r.err != "context lab is in use: "+f.files+"\n" {
		t.Fatalf("%+v", r)
	}
	for _, tc := range []struct {
		env  map[string]string
		args []string
		want string
	}{
		{nil, nil, "context lab"},
		{named, nil, "context gone"},
		{addr, nil, "ATELIER_ADDR"},
		{both, nil, "ATELIER_ADDR"},
		{both, []string{"--context", "lab"}, "context lab"},
		{both, []string{"--addr", "h:1"}, "--addr"},
		{nil, []string{"--context", "gone"}, "context gone"},
	} {
		if got := from(tc.env, tc.args...); got != tc.want {
			t.Errorf("%v %q: %s, want %s", tc.env, tc.args, got, tc.want)
		}
	}
	if r := p.run("cluster", "status"); !strings.Contains(r.out, "asked    "+f.files+" (context lab)") {
		t.Errorf("%+v", r)
	}
	if r := p.run("sweep", "show", "s-nosuchxx"); r.code != 3 || !strings.Contains(r.err, "sweep s-nosuchxx does not exist (context lab)\n") {
		t.Errorf("%+v", r)
	}
	if r := p.run("--context", "gone", "--retry-for", "100ms", "sweep", "list"); r.code != 5 || !strings.Contains(r.err, "127.0.0.1:1") || !strings.Contains(r.err, "(context gone)") {
		t.Errorf("%+v", r)
	}
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--context", "lba", "sweep", "list"}, 2, `--context: there is no context "lba"; did you mean "lab"?`},
		{[]string{"--context", "lab", "--addr", "h:1", "sweep", "list"}, 2, "--addr and --context exclude one another"},
		{[]string{"context", "use", "lap"}, 3, `there is no context "lap"; did you mean "lab"?`},
		{[]string{"context", "use"}, 2, "name a context, or --none"},
		{[]string{"context", "set", "-x", "--addr", "h:1"}, 2, "unknown flag"},
		{[]string{"context", "set", "a/b", "--addr", "h:1"}, 2, `"a/b" is not a name`},
		{[]string{"context", "set", "x"}, 2, "where is the cluster? --addr HOST:PORT"},
		{[]string{"context", "set", "x", "--addr", "h"}, 2, "want host:port"},
		{[]string{"context", "remove", "nosuch"}, 3, "there is no context"},
	} {
		if r := p.run(tc.args...); r.code != tc.code || !strings.Contains(r.err, tc.says) {
			t.Errorf("%q: %+v", tc.args, r)
		}
	}
	if r := p.run("context", "list"); r.out != "   NAME  ADDR\n   gone  127.0.0.1:1\n*  lab   "+f.files+"\n" {
		t.Errorf("%+v", r)
	}
	if r := p.run("context", "remove", "lab"); r.code != 0 || r.err != "context lab removed; no context is in use now\n" {
		t.Errorf("%+v", r)
	}
	if r := p.run("context", "list", "-o", "json"); !strings.Contains(r.out, `"current": false`) || strings.Contains(r.out, "lab") {
		t.Errorf("%+v", r)
	}
}

// The file is its owner's alone, keeps what other versions put there, and is left
// alone where it is faulty.
func TestContextFile(t *testing.T) {
	start(t)
	p := newcomer(t)
	if err := os.MkdirAll(filepath.Dir(p.file()), 0o755); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(p.home, "dotfiles.yaml")
	write(t, kept, []byte("later: {deep: [1, 2]}\ncontexts:\n  lab: {addr: 'a:7600', token_file: /run/token}\n"))
	if err := os.Symlink(kept, p.file()); err != nil {
		t.Fatal(err)
	}
	if r := p.run("context", "set", "lab", "--addr", "b:7600", "--use"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	text, err := os.ReadFile(kept)
	info, _ := os.Stat(kept)
	link, _ := os.Lstat(p.file())
	if err != nil || info.Mode().Perm() != 0o600 || link.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v, %v", err, info.Mode(), link.Mode())
	}
	for _, want := range []string{"token_file: /run/token", "addr: 'b:7600'", "current: lab", "deep:"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for text, says := range map[string]string{
		"contexts: [1]":                                "config.yaml:1: cannot unmarshal",
		"current: x\ncontexts:\n\t- y":                 "config.yaml:3: ",
		"current: lap\ncontexts: {lab: {addr: 'a:1'}}": `current: there is no context "lap"; did you mean "lab"?`,
		"contexts: {lab: {}}":                          "contexts.lab.addr: ",
		"contexts: {'a b': {addr: 'a:1'}}":             `"a b" is not a name`,
		strings.Repeat("#", 2<<20):                     "at most 1 MiB",
	} {
		write(t, kept, []byte(text))
		for _, args := range [][]string{{"sweep", "list"}, {"train"}, {"context", "list"}, {"context", "show"}, {"context", "set", "x", "--addr", "h:1"}} {
			if r := p.run(args...); r.code == 0 || !strings.Contains(r.err, says) {
				t.Errorf("%.40q, %q: %+v, want %s", text, args, r, says)
			}
		}
		// Who needs no context is not stopped.
		if r := p.run("metadata", "query", "nosuch"); r.code != 3 || strings.Contains(r.err, "config.yaml") {
			t.Errorf("%+v", r)
		}
		if after, _ := os.ReadFile(kept); string(after) != text {
			t.Errorf("a faulty file was changed: %.100q", after)
		}
	}
}

// A change keeps comments, order and anchors, and refuses what it would lose.
func TestContextEdit(t *testing.T) {
	start(t)
	p := newcomer(t)
	if err := os.MkdirAll(filepath.Dir(p.file()), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, p.file(), []byte(`# my clusters
contexts:
  # the big one
  lab:
    addr: a:7600 # behind the VPN
    token_file: &t /run/token
  home:
    token_file: *t
    addr: h:7600
  old:
    addr: o:7600
later: 1 # kept
`))
	for _, args := range [][]string{{"set", "lab", "--addr", "b:7600"}, {"set", "123", "--addr", "n:1", "--use"}, {"remove", "old"}, {"use", "lab"}} {
		if r := p.run(append([]string{"context"}, args...)...); r.code != 0 {
			t.Fatalf("%q: %+v", args, r)
		}
	}
	want := `# my clusters
contexts:
  # the big one
  lab:
    addr: b:7600 # behind the VPN
    token_file: &t /run/token
  home:
    token_file: *t
    addr: h:7600
  "123":
    addr: n:1
later: 1 # kept
current: lab
`
	if text, _ := os.ReadFile(p.file()); string(text) != want {
		t.Errorf("%s\nwant\n%s", text, want)
	}
	for text, says := range map[string]string{
		"contexts: {lab: {addr: 'a:1'}}\n---\nother: 1\n":       "config.yaml:2: a second YAML document begins here",
		"contexts: {lab: {addr: &a 'a:1'}, home: {addr: *a}}\n": "anchors, aliases or encoding do not let the change be made here",
		"contexts: {lab: {addr: 'a:1'}}\n---\n\t- broken\n":     "config.yaml:3: ",
	} {
		write(t, p.file(), []byte(text))
		if r := p.run("context", "set", "lab", "--addr", "b:1"); r.code == 0 || !strings.Contains(r.err, says) {
			t.Errorf("%q: %+v, want %s", text, r, says)
		}
		if after, _ := os.ReadFile(p.file()); string(after) != text {
			t.Errorf("%q became %q", text, after)
		}
	}
	write(t, p.file(), []byte("# nothing yet\n"))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if r := p.run("context", "set", fmt.Sprintf("c%d", i), "--addr", "h:1"); r.code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	all.Wait()
	if r := p.run("context", "list", "-q"); r.out != "c0\nc1\nc2\nc3\nc4\nc5\nc6\nc7\n" {
		t.Errorf("beside one another: %+v", r)
	}
	if text, _ := os.ReadFile(p.file()); !strings.HasPrefix(string(text), "# nothing yet\n") {
		t.Errorf("%s", text)
	}
}

// Completion proposes contexts, and asks the cluster of the one that is named.
func TestContextCompletion(t *testing.T) {
	f := start(t)
	p := newcomer(t)
	p.run("context", "set", "lab", "--addr", f.files)
	p.run("context", "set", "lake", "--addr", "127.0.0.1:1")
	for _, tc := range []struct {
		line []string
		want []string
	}{
		{[]string{"--context", "l"}, []string{"lab", "lake"}},
		{[]string{"sweep", "list", "--context=la"}, []string{"--context=lab", "--context=lake"}},
		{[]string{"context", "use", "lab"}, []string{"lab"}},
		{[]string{"context", "remove", ""}, []string{"lab", "lake"}},
		{[]string{"--context", "lab", "worker", "drain", ""}, []string{"w1", "w2"}},
		{[]string{"--context", "lake", "worker", "drain", ""}, nil},
	} {
		var got []string
		for l := range strings.Lines(p.run(append([]string{"completion", "words", "--"}, tc.line...)...).out) {
			w, _, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
			got = append(got, w)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.line, got, tc.want)
		}
	}
}

func FuzzContexts(f *testing.F) {
	f.Add("current: lab\ncontexts:\n  lab: {addr: 'a:7600,b:7600', token_file: x}\nlater: [1, {a: b}]\n")
	f.Add("contexts: {}")
	f.Add("")
	f.Add("a: &a [*a]")
	f.Add("contexts:\n  x:\n    addr: '::'\n")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := cli.RecodeContexts(text)
		if err != nil {
			return
		}
		second, err := cli.RecodeContexts(first)
		if err != nil || !strings.Contains(second, "added") {
			t.Errorf("%q became %q, then %q (%v)", text, first, second, err)
		}
	})
}
