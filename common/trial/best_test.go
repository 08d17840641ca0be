package trial_test

import (
	"math"
	"slices"
	"testing"

	"atelier/common/trial"
)

// One and the same checkpoint, whatever the order in which they are listed.
func TestBest(t *testing.T) {
	mark := func(metric float64, token uint64, epoch int32) trial.Mark {
		return trial.Mark{HasMetric: true, Metric: metric, Token: token, Epoch: epoch}
	}
	bare := func(token uint64, epoch int32) trial.Mark { return trial.Mark{Token: token, Epoch: epoch} }
	for _, x := range []struct {
		name     string
		maximize bool
		all      []trial.Mark
		want     trial.Mark
	}{
		{"of equals the first", true, []trial.Mark{mark(0.5, 9, 1), mark(0.5, 9, 3), mark(0.4, 9, 2)}, mark(0.5, 9, 1)},
		{"least", false, []trial.Mark{mark(0.5, 9, 1), mark(0.5, 9, 3), mark(0.4, 9, 2)}, mark(0.4, 9, 2)},
		{"an earlier lease's, whatever the epoch", true, []trial.Mark{mark(0.5, 9, 5), mark(0.5, 12, 3)}, mark(0.5, 9, 5)},
		{"a metric before none", true, []trial.Mark{bare(9, 4), mark(-1, 9, 1)}, mark(-1, 9, 1)},
		{"none: the newest", true, []trial.Mark{bare(9, 4), bare(9, 1), bare(12, 2)}, bare(12, 2)},
	} {
		for range len(x.all) {
			x.all = append(x.all[1:], x.all[0])
			for _, all := range [][]trial.Mark{x.all, reversed(x.all)} {
				if at := trial.BestAt(all, x.maximize, func(m *trial.Mark) trial.Mark { return *m }); at < 0 || all[at] != x.want {
					t.Errorf("%s: %d of %v, want %v", x.name, at, all, x.want)
				}
			}
		}
	}
	if trial.BestAt(nil, true, func(m *trial.Mark) trial.Mark { return *m }) != -1 {
		t.Error("of none")
	}
	nan := []trial.Mark{mark(math.NaN(), 1, 1), mark(0.1, 1, 2)}
	if trial.BestAt(nan, true, func(m *trial.Mark) trial.Mark { return *m }) != 1 {
		t.Error("NaN is no metric")
	}
}

func TestBestCheckpoint(t *testing.T) {
	all := []trial.Checkpoint{{Epoch: 1, Token: 9}, {Epoch: 2, Token: 9, Metric: new(trial.Number(0.5))}, {Epoch: 3, Token: 9, Metric: new(trial.Number(math.NaN()))}, {Epoch: 4, Token: 9, Metric: new(trial.Number(0.25))}}
	if got := trial.Best(all, true); got != &all[1] {
		t.Error(got)
	}
	if got := trial.Best(all, false); got != &all[3] {
		t.Error(got)
	}
	if got := trial.Best(all[:1], true); got != &all[0] || trial.Best(nil, true) != nil {
		t.Error(got)
	}
}

func reversed(all []trial.Mark) []trial.Mark {
	out := slices.Clone(all)
	slices.Reverse(out)
	return out
}
