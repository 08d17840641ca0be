package report

import (
	"strings"
	"testing"

	"atelier/common/plot"
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
// and is logarithmic where theirs spans powers of ten.
func TestZoom(t *testing.T) {
	for _, c := range []struct {
		name        string
		top, all    []float64
		logarithmic bool
		zoomed      bool
	}{
		{"alike", []float64{0.3, 0.4, 0.5, 0.9}, []float64{0.3, 0.4, 0.5, 0.9, 1, 1.1}, false, false},
		{"far off", []float64{0.3, 0.4, 0.5, 0.6}, []float64{0.3, 0.4, 0.5, 0.6, 3, 4, 5, 6}, false, true},
		{"powers of ten", []float64{0.001, 0.01, 0.1, 1}, []float64{0.001, 0.01, 0.1, 1}, true, false},
		{"none", nil, []float64{1, 2, 3, 4}, false, false},
	} {
		low, high, logarithmic, zoomed := zoom(c.top, c.all)
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
