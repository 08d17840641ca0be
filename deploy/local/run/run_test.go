package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/tuner/sweep"
)

// Every recipe is a spec the parser takes, with the budget asked for.
func TestSpecsParse(t *testing.T) {
	for _, trainer := range []string{"torch", "sim"} {
		for _, method := range []string{"grid_search", "bayesian", "genetic", "random"} {
			r := recipe{Trainer: trainer, Model: "vanilla", Trials: 8, Epochs: 3, ImageSize: 32, Parallelism: 2, Seed: 7}
			text, err := r.spec(method, "/data/a \"b\"/train", "/data/validation")
			if err != nil {
				t.Fatal(err)
			}
			s, err := sweep.Parse(method+".yaml", []byte(text))
			if err != nil {
				t.Errorf("%v\n%s", err, text)
				continue
			}
			if s.Budget.Trials != 8 || s.Trainer != trainer || s.SearchMethod != method || s.Seed != 7 {
				t.Errorf("%s: %+v", method, s)
			}
			if trainer == "torch" && !strings.Contains(s.TrainingJSON, `"train":"/data/a \"b\"/train"`) {
				t.Error(s.TrainingJSON)
			}
		}
	}
	if _, err := (recipe{}).spec("annealing", "", ""); err == nil {
		t.Error("an unknown method gave no error")
	}
}

func folder(t *testing.T, classes map[string]int) string {
	t.Helper()
	dir := t.TempDir()
	for class, n := range classes {
		for i := range n {
			path := filepath.Join(dir, class, fmt.Sprintf("%02d.png", i))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(class), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		rel, _ := filepath.Rel(dir, f)
		out = append(out, rel)
	}
	return out
}

func TestSplitIsStratifiedSeededAndWhole(t *testing.T) {
	dir := folder(t, map[string]int{"gothic": 20, "colonial": 8, "tiny": 2})
	at := func(seed uint64) (split, []string, []string) {
		to := t.TempDir()
		s := split{filepath.Join(to, "train"), filepath.Join(to, "validation")}
		if err := splitFolder(dir, s, 0.25, seed); err != nil {
			t.Fatal(err)
		}
		return s, list(t, s.train), list(t, s.validation)
	}
	_, train, validation := at(1)
	if len(train) != 15+6+1 || len(validation) != 5+2+1 {
		t.Errorf("%d train, %d validate", len(train), len(validation))
	}
	seen := map[string]bool{}
	for _, f := range append(append([]string{}, train...), validation...) {
		if seen[f] {
			t.Errorf("%s is on both sides", f)
		}
		seen[f] = true
	}
	if len(seen) != 30 {
		t.Errorf("%d of 30 pictures", len(seen))
	}
	if _, again, _ := at(1); strings.Join(again, " ") != strings.Join(train, " ") {
		t.Error("the same seed gave another split")
	}
	if _, other, _ := at(2); strings.Join(other, " ") == strings.Join(train, " ") {
		t.Error("another seed gave the same split")
	}
}

func TestSplitRefuses(t *testing.T) {
	to := t.TempDir()
	s := split{filepath.Join(to, "train"), filepath.Join(to, "validation")}
	for dir, want := range map[string]string{
		filepath.Join(to, "nosuch"):                      "does not exist",
		folder(t, map[string]int{"one": 1, "two": 2}):    "class one has only one image",
		folder(t, map[string]int{"empty": 0}) + "/empty": "",
	} {
		if err := splitFolder(dir, s, 0.25, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", dir, err, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		args string
		bad  string
	}{
		{"", ""},
		{"--trainer sim --trials 3 --keep --methods bayesian", ""},
		{"--trials 0", "--trials 0"},
		{"--validation 1", "--validation 1"},
		{"--frobnicate", "frobnicate"},
		{"extra", `unknown argument "extra"`},
	} {
		var errs bytes.Buffer
		m := &Main{Err: &errs}
		err := m.ParseFlags(strings.Fields(tc.args))
		if (err != nil) != (tc.bad != "") || !strings.Contains(errs.String(), tc.bad) {
			t.Errorf("%q: %v, %q", tc.args, err, errs.String())
		}
	}
}

// A folder that is neither split nor class folders is refused with the reason.
func TestFolderIsRecognized(t *testing.T) {
	loose := t.TempDir()
	if err := os.WriteFile(filepath.Join(loose, "1.png"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &Main{Data: loose, Dir: t.TempDir(), Out: io.Discard, Recipe: recipe{Trainer: "torch"}}
	if _, err := m.prepareData(t.Context()); err == nil || !strings.Contains(err.Error(), "images in it (1)") {
		t.Errorf("loose images: %v", err)
	}
	m.Data, m.Share = folder(t, map[string]int{"val/gothic": 2, "val/tudor": 2, "train/gothic": 4, "train/tudor": 4}), 0.25
	if s, err := m.prepareData(t.Context()); err != nil || s.validation != filepath.Join(m.Data, "val") {
		t.Errorf("a split: %+v, %v", s, err)
	}
}
