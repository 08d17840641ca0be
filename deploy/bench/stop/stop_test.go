package main

import (
	"math/rand/v2"
	"slices"

	"atelier/tuner/stop"

	"testing"
)

func accuracy(t *testing.T) *surrogate {
	t.Helper()
	s, err := newSurrogate("val_acc")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The bar, with the default settings: within 1 % of what the full search finds,
// for a quarter of its epochs, on 32 workers.
func TestAshaKeepsTheBar(t *testing.T) {
	f, err := accuracy(t).compare("val_acc", `{"rule":"asha","max_epochs":%d}`, 256, 32, 12)
	if err != nil {
		t.Fatal(err)
	}
	if f.Epochs > 0.25 || f.LossMedian > 0.01 || f.LossMean > 0.015 || f.WorthMean > 0.01 || f.Resumed == 0 {
		t.Errorf("%+v", f)
	}
}

// The surrogate gives back what was recorded where it was recorded, and its
// curves cross.
func TestSurrogate(t *testing.T) {
	s := accuracy(t)
	for i, p := range s.points {
		if p != place(i+1) {
			t.Errorf("curve %d was recorded at %+v, its place is %+v", i+1, p, place(i+1))
		}
		values, worth := s.train(p, rand.New(rand.NewPCG(1, 2)))
		if len(values) != s.epochs() || slices.Max(values) > 1 || slices.Min(values) < 0 {
			t.Fatalf("at %+v: %v", p, values)
		}
		if last := s.smooth[i][s.epochs()-1]; worth < last-0.3 || worth > last+0.3 {
			t.Errorf("at %+v: %.3f at the end, recorded %.3f", p, worth, last)
		}
	}
	if k := s.kept(1); k < 0.5 || k > 0.9 {
		t.Errorf("%.2f of the pairs keep their order from the first epoch to the last", k)
	}
}

// The same trials cost the same without a rule, however often they are drawn,
// and no worker stands idle while a trial waits.
func TestFullSearch(t *testing.T) {
	s := accuracy(t)
	p := stop.Problem{Metric: "val_acc", Maximize: true}
	a := sweep(stop.Settings{Rule: stop.None}, p, s.trials(3, 40), 8)
	b := sweep(stop.Settings{Rule: stop.None}, p, s.trials(3, 40), 8)
	if a != b || a.epochs != 40*s.epochs() || a.whole != 40 || a.resumed != 0 {
		t.Errorf("%+v and %+v", a, b)
	}
	one := sweep(stop.Settings{Rule: stop.None}, p, s.trials(3, 40), 1)
	if one.seconds < 6*a.seconds || one.value != a.value {
		t.Errorf("on one worker %+v, on eight %+v", one, a)
	}
}
