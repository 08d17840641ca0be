package trial_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"atelier/common/trial"
)

func TestOver(t *testing.T) {
	for n := trial.Status(-1); n < 12; n++ {
		want := strings.Contains(" finished stopped diverged failed cancelled ", " "+n.String()+" ")
		if n.Over() != want {
			t.Errorf("a trial that is %q is over: %v", n, n.Over())
		}
	}
	for n := trial.SweepStatus(-1); n < 12; n++ {
		want := strings.Contains(" finished stopped cancelled failed ", " "+n.String()+" ")
		if n.Over() != want {
			t.Errorf("a sweep that is %q is over: %v", n, n.Over())
		}
	}
}

func TestWords(t *testing.T) {
	type record struct {
		Status  trial.Status
		Sweep   trial.SweepStatus
		Exit    trial.Exit
		Verdict trial.Verdict
		Outcome trial.Outcome
		Source  trial.Source
	}
	for _, r := range []record{
		{},
		{trial.Waiting, trial.SweepStopping, trial.ExitOutOfMemory, trial.VerdictPause, trial.OutcomeFenced, trial.SourceEnqueued},
		{trial.Cancelled, trial.SweepFailed, trial.ExitDataMissing, trial.VerdictStop, trial.OutcomeRefused, trial.SourcePopulation},
	} {
		text, err := json.Marshal(r)
		var back record
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil || back != r {
			t.Errorf("%v: %s, %v, %v", r, text, back, err)
		}
	}
	var s trial.Status
	for _, bad := range []string{`"RUNNING"`, `"gone"`, `3`, `"9"`} {
		if json.Unmarshal([]byte(bad), &s) == nil {
			t.Errorf("%s is a status", bad)
		}
	}
	if _, err := trial.ParseExit("crash"); err == nil || !strings.Contains(err.Error(), `unknown exit class "crash": want one of finished, `) || strings.Contains(err.Error(), ", ,") {
		t.Error(err)
	}
	if _, err := trial.ParseStatus(""); err == nil {
		t.Error("no word is a status")
	}
	if got := trial.Exit(99).String(); got != "99" {
		t.Errorf("a number of a newer peer is %q", got)
	}
	if trial.ExitOutOfMemory.Text() != "out of memory" || strings.Join(trial.StatusWords(), " ") != "waiting running paused finished stopped diverged failed cancelled" {
		t.Error(trial.ExitOutOfMemory.Text(), trial.StatusWords())
	}
}

func TestBounds(t *testing.T) {
	for _, x := range []struct {
		c     trial.Constraint
		text  string
		holds []float64
		not   []float64
	}{
		{trial.Constraint{Metric: "ms", HasMax: true, Max: 20}, "ms <= 20", []float64{20, -1e9, math.Inf(-1)}, []float64{20.5, math.NaN(), math.Inf(1)}},
		{trial.Constraint{Metric: "acc", HasMin: true, Min: 0.5}, "acc >= 0.5", []float64{0.5, 7}, []float64{0.4, math.NaN()}},
		{trial.Constraint{Metric: "x", HasMin: true, Min: 1, HasMax: true, Max: 2}, "x >= 1 and x <= 2", []float64{1, 2}, []float64{0, 3}},
	} {
		if x.c.String() != x.text {
			t.Errorf("%q, want %q", x.c, x.text)
		}
		for _, v := range x.holds {
			if !x.c.Holds(v) {
				t.Errorf("%s does not hold for %g", x.c, v)
			}
		}
		for _, v := range x.not {
			if x.c.Holds(v) {
				t.Errorf("%s holds for %g", x.c, v)
			}
		}
	}
	up, down := trial.Objective{Metric: "a", Maximize: true}, trial.Objective{Metric: "a"}
	if !up.Better(2, 1) || up.Better(1, 1) || down.Better(2, 1) || !down.Better(1, 2) || up.Direction() != "maximize" || down.Direction() != "minimize" {
		t.Error("which way")
	}
}

func TestLocation(t *testing.T) {
	for _, x := range []struct {
		l              trial.Location
		shared, served string
		fetchable      bool
	}{
		{trial.SharedAt("s-abc/3/run-5/e.pth"), "s-abc/3/run-5/e.pth", "", false},
		{trial.ServedAt("http://w:7", "s-abc/3/run-5/ä b%.pth"), "", "s-abc/3/run-5/ä b%.pth", true},
		{"https://w/checkpoints/s/1/x", "", "s/1/x", true},
		{"http://w/other/x", "", "", true},
		{"http://[bad/checkpoints/x", "", "", true},
		{"shared:", "", "", false},
		{"ftp://w/checkpoints/x", "", "", false},
		{"/checkpoints/x", "", "", false},
		{"", "", "", false},
	} {
		shared, isShared := x.l.Shared()
		served, isServed := x.l.Served()
		if shared != x.shared || isShared != strings.HasPrefix(string(x.l), "shared:") || served != x.served || isServed != (x.served != "") || x.l.Fetchable() != x.fetchable {
			t.Errorf("%s: shared %q %v, served %q %v, fetchable %v", x.l, shared, isShared, served, isServed, x.l.Fetchable())
		}
	}
}

func FuzzLocation(f *testing.F) {
	f.Add("s-abc/3/run-5/ä b%2f.pth")
	f.Fuzz(func(t *testing.T, path string) {
		if got, ok := trial.SharedAt(path).Shared(); !ok || got != path {
			t.Errorf("shared %q came back as %q", path, got)
		}
		if got, ok := trial.ServedAt("http://w:7", path).Served(); !ok || got != path {
			t.Errorf("served %q came back as %q", path, got)
		}
	})
}
