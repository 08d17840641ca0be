package assign

import (
	"slices"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
	"atelier/tuner/stop"
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
		Objective: wire.ToObjective(s.Objective), TtlMs: a.span(l).Milliseconds(), BaseDir: s.BaseDir, LastEpoch: t.Epoch(), Slot: l.Slot,
		Origin: wire.ToOrigin(t.Origin), EndEpoch: l.End.Epoch, EndVerdict: wire.ToVerdict(l.End.Verdict), EndReason: l.End.Reason,
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
		if of != t && of.Checkpoints[i].Epoch > t.Origin.Epoch {
			continue // of a run that went on beyond its end: nothing would be left to train
		}
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

// endOf returns where a run of the trial that begins now ends by itself, which the
// sweep's stopping rule may know beforehand; nil where it goes on to the spec's
// last epoch.
func endOf(s *state.Sweep, t *state.Trial) *logv1.LeaseEnd {
	if s.StoppingJSON == "" {
		return nil
	}
	set, err := stop.Parse([]byte(s.StoppingJSON))
	if err != nil {
		return nil // judge fails the sweep
	}
	end, ok := set.End(t.Number, int(t.Pauses), int(t.Origin.Epoch))
	if !ok {
		return nil
	}
	e := &logv1.LeaseEnd{Epoch: int32(end.Epoch), Verdict: wire.ToVerdict(trial.VerdictPause), Reason: end.Reason}
	if end.Action == stop.Stop {
		e.Verdict = wire.ToVerdict(trial.VerdictStop)
	}
	return e
}

// span is the term of a lease.
func (a *Assigner) span(l *state.Lease) time.Duration {
	if l.TermMS > 0 {
		return time.Duration(l.TermMS) * time.Millisecond
	}
	return a.cfg.TTL
}
