package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"atelier/common/plot"
	"atelier/common/space"
	"atelier/common/trial"
)

// Every state of a run has a look of its own, by colour and hatch, and the same
// one in every report.
func TestEveryStateHasALook(t *testing.T) {
	seen := map[plot.Fill]string{}
	for _, l := range looks {
		if other, taken := seen[l.fill]; taken {
			t.Errorf("%q looks like %q", l.state, other)
		}
		seen[l.fill] = l.state
	}
	unknown := len(looks) - 1
	for e := trial.ExitFinished; e <= trial.ExitDataMissing; e++ {
		if _, err := trial.ParseExit(e.String()); err != nil || e == trial.ExitRestored {
			continue
		}
		if place(e.String()) == unknown {
			t.Errorf("%s has no look", e)
		}
	}
	if place(running) == unknown || place("of a newer version") != unknown {
		t.Error("running, or a state that is new")
	}
	if looks[place("finished")].fill.Color != plot.Blue || looks[place("finished")].fill.Hatch != plot.Plain {
		t.Error("finished is not plain blue")
	}
}

// The axis of learning curves follows the best where the others are far off,
// and is logarithmic where theirs spans powers of ten. The good end of the best
// is never cut off.
func TestZoom(t *testing.T) {
	winner := []float64{2.01, 2.02, 2.03, 2.04, 2.05, 2.06, 2.07, 2.08, 1.41}
	risen := []float64{0.21, 0.22, 0.23, 0.24, 0.25, 0.26, 0.27, 0.28, 0.9}
	for _, c := range []struct {
		name        string
		top, all    []float64
		good        end
		logarithmic bool
		zoomed      bool
	}{
		{"alike", []float64{0.3, 0.4, 0.5, 0.9}, []float64{0.3, 0.4, 0.5, 0.9, 1, 1.1}, lower, false, false},
		{"far off", []float64{0.3, 0.4, 0.5, 0.6}, []float64{0.3, 0.4, 0.5, 0.6, 3, 4, 5, 6}, lower, false, true},
		{"powers of ten", []float64{0.001, 0.01, 0.1, 1}, []float64{0.001, 0.01, 0.1, 1}, lower, true, false},
		{"none", nil, []float64{1, 2, 3, 4}, lower, false, false},
		{"one far better", winner, append([]float64{5, 6, 7, 8, 9}, winner...), lower, false, true},
		{"one far better, all alike", winner, winner, lower, false, false},
		{"one far better, the higher", risen, append([]float64{0.01, 0.02, 0.1}, risen...), upper, false, true},
		{"a metric of its own", append([]float64{0.01}, risen...), append([]float64{0.01}, risen...), either, true, false},
	} {
		low, high, logarithmic := zoom(c.top, c.all, c.good)
		zoomed := slices.ContainsFunc(c.all, func(y float64) bool { return y < low || y > high })
		if logarithmic != c.logarithmic || zoomed != c.zoomed || low >= high {
			t.Errorf("%s: %g to %g, logarithmic %t, zoomed %t", c.name, low, high, logarithmic, zoomed)
		}
		for _, v := range c.top {
			if v < low || v > high {
				t.Errorf("%s: %g of the best is outside %g to %g", c.name, v, low, high)
			}
		}
	}
}

// The good end of an objective is that of its direction; of other metrics, that of their name.
func TestGoodEnd(t *testing.T) {
	v := newView(&Sweep{Metric: "val_f1", Maximize: true, Objectives: []trial.Objective{{Metric: "val_f1", Maximize: true}, {Metric: "bytes"}}})
	for metric, want := range map[string]end{"val_f1": upper, "bytes": lower, "val_acc": upper, "train_loss": lower, "lr": either} {
		if got := v.good(metric); got != want {
			t.Errorf("%s: %d, want %d", metric, got, want)
		}
	}
}

// sweepOf is a sweep over lr and momentum (of sgd alone), whose last trial is far off.
func sweepOf(n int) *Sweep {
	momentum := space.Parameter{Name: "momentum", Kind: space.KindFloat, Low: 0.5, High: 0.99, When: []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}}
	s := &Sweep{ID: "s-1", Metric: "val_loss", Space: space.Space{Params: []space.Parameter{{Name: "lr", Kind: space.KindFloat, Low: 1e-4, High: 1e-1, Log: true},
		{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("adam"), space.String("sgd")}}, momentum}}}
	for i := range n {
		u := float64(i) / float64(n)
		t := Trial{Number: int64(i + 1), Status: trial.Finished, Point: s.Space.FromUnit([]float64{u, float64(i%2) * 0.9, 1 - u}), HasValue: true, Value: 0.5 + 0.1*u, ValueEpoch: 1, Epochs: 1}
		if i == n-1 {
			t.Value = 1e6
		}
		s.Trials = append(s.Trials, t)
	}
	return s
}

// A title reports that values are marked at the edge only where the chart marks them.
func TestMarkedAtTheEdge(t *testing.T) {
	v := newView(sweepOf(16))
	for name, c := range map[string]struct {
		draw func(*view) (plot.Figure, []*plot.Panel, string)
		want string
	}{
		"history": {(*view).history, "; 1 value far off, marked at the edge"}, "slices": {(*view).slices, "; 1 value far off, marked at the edge"},
		"parallel": {(*view).parallel, "; 1 value far off, drawn at the end of the axis"}, "distribution": {(*view).distribution, "; 1 value far off, not drawn"},
		"contour": {(*view).contour, ""}, "heatmaps": {(*view).heatmaps, ""},
	} {
		f, panels, reason := c.draw(v)
		if reason != "" {
			t.Fatal(name, reason)
		}
		var file bytes.Buffer
		if err := f.WriteSVG(&file, panels...); err != nil {
			t.Fatal(err)
		}
		text := file.String()
		if far := strings.Contains(text, "far off"); far != (c.want != "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: want %q (%q)", name, c.want, f.Title)
		}
	}
}

// Numbers of a heat map are ranges or single values by one rule, also of a parameter that few trials use.
func TestCellsOfAConditionalParameter(t *testing.T) {
	v := newView(sweepOf(16))
	for k, name := range map[int]string{0: "lr", 2: "momentum"} {
		for _, cell := range v.cells(k).names {
			if !strings.Contains(cell, " to ") {
				t.Errorf("%s: %q stands alone", name, cell)
			}
		}
	}
}

// Below each title: model, data set, date, search.
func TestAbout(t *testing.T) {
	for training, want := range map[string]string{
		`{"data.train":"run/facades/train"}`:        "resnet18  ·  facades  ·  2026-09-21 14:13 UTC  ·  grid_search  ·  0 trials  ·  s-1",
		`{"data":{"train":"/images/styles/train"}}`: "resnet18  ·  styles  ·  2026-09-21 14:13 UTC  ·  grid_search  ·  0 trials  ·  s-1",
		`{}`: "resnet18  ·  2026-09-21 14:13 UTC  ·  grid_search  ·  0 trials  ·  s-1",
	} {
		v := newView(&Sweep{ID: "s-1", Model: "resnet18", SearchMethod: "grid_search", CreatedMS: 1_790_000_000_000, Training: []byte(training)})
		if got := v.about(); got != want {
			t.Errorf("%s: %q, want %q", training, got, want)
		}
	}
	v := newView(&Sweep{Data: "facades/train", Training: []byte(`{"data.train":"tuned/subset/train"}`)})
	if got := v.about(); !strings.HasPrefix(got, "facades") {
		t.Errorf("%q", got)
	}
}
