package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"atelier/common/settings"
	checked "atelier/common/spec"
	"atelier/tuner/sweep"
)

// Every method searches the same six settings of the same training, and all of
// them are the trainer's.
func TestSpecs(t *testing.T) {
	r := recipe{Model: "resnet18", Trials: 40, Epochs: 15, ImageSize: 64, Slots: 2, Data: "/data/split"}
	var first *checked.Spec
	for _, m := range names() {
		s, err := sweep.Parse(m, []byte(spec(task{m, 7}, r)))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = s
		}
		if !reflect.DeepEqual(s.Space, first.Space) || s.TrainingJSON != first.TrainingJSON || s.Seed != 7 || s.Budget != first.Budget || s.Parallelism != 2 {
			t.Errorf("%s differs from %s in more than the method", m, names()[0])
		}
		if got := s.StoppingJSON != ""; got != (m == "gp+asha") {
			t.Errorf("%s has a stopping rule: %v", m, got)
		}
	}
	if len(first.Space.Params) != 6 {
		t.Errorf("%d parameters", len(first.Space.Params))
	}
	u := make([]float64, 6)
	if _, err := settings.Parse([]byte(first.TrainingJSON), []byte(first.Space.Encode(first.Space.FromUnit(u))), "/"); err != nil {
		t.Error(err)
	}
}

// What stands in the journal is not measured again, whatever else was.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sweeps.json")
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	r := recipe{Trials: 4}
	plan, err := planOf("random,tpe", "1,2")
	if err != nil || len(plan) != 4 || plan[1] != (task{"tpe", 1}) {
		t.Fatal(plan, err)
	}
	for _, x := range plan[:3] {
		f := figures{task: x, Recipe: r, Best: 0.5, Test: 0.25, Epochs: 10, Training: 20, Wall: 11, Trials: []result{{Value: 0.1}, {Value: 0.4}, {Value: 0.5}, {}}}
		if x.Seed == 2 {
			f.Best = 0.75
		}
		if err := j.add(f); err != nil {
			t.Fatal(err)
		}
	}
	if j, err = openJournal(path); err != nil {
		t.Fatal(err)
	}
	if j.find(plan[2], r) == nil || j.find(plan[3], r) != nil || j.find(plan[0], recipe{Trials: 5}) != nil {
		t.Error("the journal holds other sweeps than were measured")
	}
	text := table(plan, r, j)
	for _, want := range []string{"| random | 1 | 0.500 | 0.400 | 0.250 | 10 | 20 | 11 |", "| random | mean of 2 | 0.625 |", "| tpe | 1 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| tpe | mean") || strings.Contains(text, "| tpe | 2 |") {
		t.Errorf("what was not measured is shown:\n%s", text)
	}
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	for _, bad := range [][2]string{{"gpp", "1"}, {"tpe", "one"}} {
		if _, err := planOf(bad[0], bad[1]); err == nil {
			t.Errorf("%v is no plan", bad)
		}
	}
}
