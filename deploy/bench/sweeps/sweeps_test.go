package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"atelier/common/settings"
	checked "atelier/common/spec"
	"atelier/deploy/bench/harness"
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

// The table shows what the journal holds of the plan, and means of several seeds.
func TestTable(t *testing.T) {
	j, err := harness.OpenJournal("", "")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Session: &harness.Session{Journal: j}, recipe: recipe{Trials: 4}, methods: []string{"random", "tpe"}, seeds: []int{1, 2}}
	plan := b.plan()
	if len(plan) != 4 || plan[1] != (task{"tpe", 1}) {
		t.Fatal(plan)
	}
	for _, x := range plan[:3] {
		f := figures{Best: 0.5, Test: 0.25, Epochs: 10, Training: 20, Wall: 11, Trials: []result{{Value: 0.1}, {Value: 0.4}, {Value: 0.5}, {}}}
		if x.Seed == 2 {
			f.Best = 0.75
		}
		if err := j.Add(b.key(x), time.Now(), 0, f); err != nil {
			t.Fatal(err)
		}
	}
	text := b.table()
	for _, want := range []string{"| random | 1 | 0.500 | 0.400 | 0.250 | 10 | 20 | 11 |", "| random | mean of 2 | 0.625 |", "| tpe | 1 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| tpe | mean") || strings.Contains(text, "| tpe | 2 |") {
		t.Errorf("what was not measured is shown:\n%s", text)
	}
	if b.Trials = 5; strings.Contains(b.table(), "| tpe | 1") {
		t.Error("a sweep of another recipe is shown")
	}
	b.methods = []string{"gpp"}
	if err := b.check(); err == nil || !strings.Contains(err.Error(), `no "gpp"`) {
		t.Error(err)
	}
}
