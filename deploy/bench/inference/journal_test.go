package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// A measurement that is cut off goes on with the rounds that are whole.
func TestJournalGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rounds.jsonl")
	open := func() *journal {
		t.Helper()
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	s := setup{Part: "production", Size: 224, Threads: 2, Images: 500}
	other := s
	other.Threads = 1
	j := open()
	first := round{setup: s, Number: 1, Ours: 2, Theirs: 6, Bare: 5, Pictures: 500}
	for _, r := range []round{first, {setup: other, Number: 1, Ours: 9}, {setup: s, Number: 2, Ours: 3}} {
		if err := j.add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-9], 0o644); err != nil { // the last line is cut off
		t.Fatal(err)
	}
	j = open()
	if got := j.of(s, 3); len(got) != 1 || !reflect.DeepEqual(got[0], first) {
		t.Errorf("%+v", got)
	}
	second := round{setup: s, Number: 2, Ours: 4, Theirs: 8, Sides: []side{{Rate: 2, Took: []float64{0.5}}}}
	if err := j.add(second); err != nil {
		t.Fatal(err)
	}
	j.close()
	j = open()
	defer j.close()
	if got := j.of(s, 3); len(got) != 2 || !reflect.DeepEqual(got[1], second) {
		t.Errorf("%+v", got)
	}
	if got := j.of(s, 1); len(got) != 1 {
		t.Errorf("%d rounds of one", len(got))
	}
	if err := os.WriteFile(path, []byte("{}\nnonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
}

func TestQuantile(t *testing.T) {
	v := make([]float64, 200)
	for i := range v {
		v[i] = float64(i + 1)
	}
	if p := quantile(v, 0.5); p != 100 {
		t.Errorf("p50 %v", p)
	}
	if p := quantile(v, 0.99); p != 198 {
		t.Errorf("p99 %v", p)
	}
	if p := quantile(v[:1], 0.99); p != 1 {
		t.Errorf("p99 of one %v", p)
	}
}
