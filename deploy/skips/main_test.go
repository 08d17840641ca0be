package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain is the program itself when a test starts this binary as a process.
func TestMain(m *testing.M) {
	if os.Getenv("SKIPS_PROCESS") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A module of its own whose tests pass, are skipped and fail is really tested.
func TestSkipsAreSeen(t *testing.T) {
	test := func(source string) string {
		t.Helper()
		dir := t.TempDir()
		for name, text := range map[string]string{"go.mod": "module atelier\n\ngo 1.26.0\n", "worker/trainer/x_test.go": source} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tests := exec.Command("go", "test", "-json", "./...")
		tests.Dir = dir
		tests.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
		said, _ := tests.Output()
		return string(said)
	}
	run := func(said, mustRun string) (string, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SKIPS_PROCESS=1", "MUST_RUN="+mustRun)
		cmd.Stdin = strings.NewReader(said)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const begin = "package x\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"quiet\") }\n"
	for _, c := range []struct {
		name, source  string
		fails, always bool // with MUST_RUN=1; without it too
		shows, hides  string
	}{
		{"pass", begin, false, false, "ok  \tatelier/worker/trainer", "quiet"},
		{"allowed", begin + "func TestGPU(t *testing.T) { t.Skip(\"no GPU here: none\") }\n", false, false, "ok  \tatelier/worker/trainer", "not in deploy/skips"},
		{"not allowed", begin + "func TestParity(t *testing.T) { t.Run(\"vgg\", func(t *testing.T) { t.Skip(\"no torchvision to compare with\") }) }\n", true, false, "atelier/worker/trainer TestParity/vgg: x_test.go:6: no torchvision", "quiet"},
		{"fails", begin + "func TestBad(t *testing.T) { t.Log(\"why\"); t.Fail() }\n", true, true, "x_test.go:6: why", "quiet"},
		{"panics", begin + "func TestBad(t *testing.T) { t.Log(\"why\"); panic(\"oh\") }\n", true, true, "panic: oh", "quiet"},
		{"does not build", begin + "func TestBad(t *testing.T) { x }\n", true, true, "undefined: x", "quiet"},
	} {
		said := test(c.source)
		out, err := run(said, "1")
		if (err != nil) != c.fails || !strings.Contains(out, c.shows) || strings.Contains(out, c.hides) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		if out, err := run(said, ""); (err != nil) != c.always || !strings.Contains(out, c.shows) {
			t.Errorf("%s, without MUST_RUN: %v\n%s", c.name, err, out)
		}
	}
}

// Each row names packages that exist, and words that a test there says.
func TestRowsAreOfTheHouse(t *testing.T) {
	rows := parse(list)
	if len(rows) < 20 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		root, all := strings.CutSuffix(strings.TrimPrefix(r.tree, "atelier/"), "/...")
		folders := []string{"../../" + root}
		if all {
			filepath.WalkDir("../../"+root, func(path string, d os.DirEntry, _ error) error {
				if d != nil && d.IsDir() {
					folders = append(folders, path)
				}
				return nil
			})
		}
		words := r.words
		if strings.HasPrefix(words, "no zsh") || strings.HasPrefix(words, "no fish") {
			words = `"no " + shell`
		}
		if !slices.ContainsFunc(folders, func(folder string) bool {
			files, _ := filepath.Glob(folder + "/*_test.go")
			return slices.ContainsFunc(files, func(file string) bool {
				text, _ := os.ReadFile(file)
				return strings.Contains(string(text), words)
			})
		}) {
			t.Errorf("no test in %s says %q: take the row away", r.tree, r.words)
		}
	}
}
