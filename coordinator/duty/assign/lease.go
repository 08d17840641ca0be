package assign

import (
	"slices"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
)

// message is a lease with all that a worker needs for the run; nil if the view
// no longer holds it.
func (a *Assigner) message(view *state.View, sweep string, trial int64, token uint64) *atelierv1.Lease {
	l := current(view, sweep, trial, token)
	if l == nil {
		return nil
	}
	s, _ := view.Sweep(sweep)
	t := s.Trial(trial)
	m := &atelierv1.Lease{
		SweepId: sweep, Trial: trial, Token: token, Trainer: s.Trainer,
		ParamsJson: t.ParamsJSON, TrainingJson: s.TrainingJSON, Seed: TrialSeed(s.Seed, trial),
		Objective: s.Objective.Proto(), TtlMs: a.span(l).Milliseconds(), BaseDir: s.BaseDir, LastEpoch: t.Epoch(), Slot: l.Slot,
		Origin: t.Origin.Proto(),
	}
	for _, r := range t.Runs {
		if r.Token == token {
			m.Run = r.Number
		}
	}
	of := t
	if o := s.Trial(t.Origin.Trial); o != nil && len(t.Checkpoints) == 0 {
		of = o // it begins where that one was
	}
	for i := range of.Checkpoints {
		m.Checkpoints = append(m.Checkpoints, of.Checkpoints[i].Proto(sweep, of.Number))
	}
	slices.SortStableFunc(m.Checkpoints, func(x, y *atelierv1.Checkpoint) int {
		if of != t && (x.Epoch == t.Origin.Epoch) != (y.Epoch == t.Origin.Epoch) {
			return map[bool]int{true: -1, false: 1}[x.Epoch == t.Origin.Epoch]
		}
		return int(y.Epoch) - int(x.Epoch)
	})
	return m
}

// span is the term of a lease.
func (a *Assigner) span(l *state.Lease) time.Duration {
	if l.TermMS > 0 {
		return time.Duration(l.TermMS) * time.Millisecond
	}
	return a.cfg.TTL
}
