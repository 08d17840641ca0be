// Package trial holds the nouns that every room speaks of (the states of a trial
// and a sweep, how a run ends, verdicts, objectives, where a checkpoint lies), the
// records that a cluster tells of them (sweeps, trials, runs, checkpoints, reports,
// workers), and what several rooms ask of a trial's records and must answer alike:
// is it over, which checkpoint is the best, was the data the same. It knows nothing
// of the schema that carries them (see wire) and does no I/O.
package trial

import "math"

// Mark is what decides between checkpoints of a trial.
type Mark struct {
	HasMetric bool
	Metric    float64 // of the sweep's objective; NaN counts as none
	Token     uint64  // of the lease that wrote it; later leases have higher ones
	Epoch     int32
}

// Best is the best of a trial's checkpoints, in whatever order they stand; nil
// where there is none. Of equal metrics it is the one written first, as a trial's
// value is that of the first epoch that reached it; where none has a metric it is
// the one written last.
func Best(all []Checkpoint, maximize bool) *Checkpoint {
	at := BestAt(all, maximize, func(c *Checkpoint) Mark {
		m := Mark{HasMetric: c.Metric != nil, Token: c.Token, Epoch: c.Epoch}
		if c.Metric != nil {
			m.Metric = float64(*c.Metric)
		}
		return m
	})
	if at < 0 {
		return nil
	}
	return &all[at]
}

// BestAt is the place of the best of rows that stand for checkpoints; -1 where
// there is none.
func BestAt[T any](all []T, maximize bool, mark func(*T) Mark) int {
	best := -1
	var top Mark
	for i := range all {
		m := mark(&all[i])
		m.HasMetric = m.HasMetric && !math.IsNaN(m.Metric)
		if best < 0 || before(m, top, maximize) {
			best, top = i, m
		}
	}
	return best
}

func before(a, b Mark, maximize bool) bool {
	switch {
	case a.HasMetric != b.HasMetric:
		return a.HasMetric
	case a.HasMetric && a.Metric != b.Metric:
		return a.Metric > b.Metric == maximize
	}
	older := a.Token < b.Token || a.Token == b.Token && a.Epoch < b.Epoch
	if a.HasMetric {
		return older
	}
	return !older && (a.Token != b.Token || a.Epoch != b.Epoch)
}
