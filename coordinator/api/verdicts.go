package api

import (
	"context"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

// verdictWait is how long the answer to a report waits for the verdict on it. A
// later verdict reaches the run with its next report or its worker's heartbeat.
const verdictWait = 2 * time.Second

// Judge decides on reports where a sweep has a stopping rule.
type Judge interface {
	// Judges reports whether it decides anything in a sweep.
	Judges(sweep string) bool
	// Await returns once what is decided on the state at index is in the log.
	Await(ctx context.Context, sweep string, index uint64)
}

// verdicts adds to the answers what stopping rules make of the reports just
// recorded: a run that is to pause at an epoch must not begin the next. Where no
// rule has a say it costs no look at the state.
func (s *Server) verdicts(ctx context.Context, events []*atelierv1.RunEvent, answers []state.EventResult, index uint64) {
	if s.cfg.Judge == nil {
		return
	}
	var view *state.View // one that shows the decisions on the sweep awaited last
	awaited := ""
	for i, e := range events {
		if e.GetReport() == nil || answers[i].Outcome != trial.OutcomeRecorded || answers[i].Verdict != trial.VerdictContinue || !s.cfg.Judge.Judges(e.SweepId) {
			continue
		}
		if awaited != e.SweepId {
			awaited = e.SweepId
			ctx, cancel := context.WithTimeout(ctx, verdictWait)
			s.cfg.Judge.Await(ctx, e.SweepId, index)
			cancel()
			view = s.cfg.View()
		}
		sw, ok := view.Sweep(e.SweepId)
		if !ok {
			continue
		}
		if t := sw.Trial(e.Trial); t != nil && t.Lease != nil && t.Lease.Token == e.Token && t.Verdict > trial.VerdictContinue {
			answers[i].Verdict, answers[i].Message = t.Verdict, t.StopReason
		}
	}
}
