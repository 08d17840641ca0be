package state

import (
	"cmp"
	"fmt"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
)

// settle ends a sweep whose time has come. Every command that ends a trial, or
// lets no more come, calls it last.
func (m *Machine) settle(now int64, s *Sweep) {
	c := s.Counts
	if s.Ended() {
		return
	}
	if s.Status != sweepStopping && c.Failed == c.Ended() {
		switch {
		case c.Failed >= 3 && s.badSpec == c.Failed:
			m.failNow(now, s, fmt.Sprintf("the first %d trials were refused by the trainer: %s", c.Failed, s.commonFailure()))
			return
		case c.Failed >= 10:
			m.failNow(now, s, fmt.Sprintf("the first %d trials failed: %s", c.Failed, s.commonFailure()))
			return
		}
	}
	if n := c.Failed + c.Diverged; s.Status != sweepStopping && s.best == 0 && n == c.Ended() && n >= 20 {
		m.failNow(now, s, fmt.Sprintf("none of the first %d trials has a value of %s: %s", n, s.Objective.Metric, s.commonFailure()))
		return
	}
	if s.BudgetEpochs > 0 && c.Running == 0 && s.Epochs >= s.BudgetEpochs && s.Status != sweepStopping {
		m.endNow(now, s, fmt.Sprintf("its budget of %d epochs is used", s.BudgetEpochs))
		return
	}
	if c.Open() > 0 {
		return
	}
	switch {
	case s.Status == sweepStopping:
		s.EndedMS = now
		m.setSweep(now, s, sweepStopped)
	case s.Exhausted:
		m.endNow(now, s, fmt.Sprintf("every point of its space was tried, %d trials", c.Proposed))
	case s.Unproposed() <= 0:
		m.endNow(now, s, fmt.Sprintf("its budget of %d trials is used", s.Budget))
	}
}

// endNow ends a sweep whose budget is used, and the trials that are still open
// with it: those that ran keep their values.
func (m *Machine) endNow(now int64, s *Sweep, why string) {
	for _, n := range s.Open() {
		t := m.trial(s, n)
		if t.Lease != nil {
			m.endLease(now, s, t, atelierv1.ExitClass_EXIT_CLASS_STOPPED, why)
		}
		t.StopReason = why
		to := trialStopped
		if len(t.Runs) == 0 {
			to = trialCancelled
		}
		m.end(now, s, t, to, "")
	}
	switch {
	case s.Counts.Proposed == 0:
		m.failNow(now, s, "no trial was proposed: the space has no point, or the budget ended before the first")
	case s.best == 0 && len(s.Constraints) > 0 && s.nearest() != "":
		m.failNow(now, s, s.nearest())
	case s.best == 0:
		m.failNow(now, s, fmt.Sprintf("none of %d trials has a value of %s: %s", s.Counts.Proposed, s.Objective.Metric, s.commonFailure()))
	default:
		s.Ending = why
		s.EndedMS = now
		m.setSweep(now, s, sweepFinished)
	}
}

// commonFailure returns the commonest reason for which trials ended without a
// value; of equally common ones the one that came first.
func (s *Sweep) commonFailure() string {
	type reason struct {
		text  string
		count int
		first int64
	}
	var reasons []reason
	at := map[string]int{}
	for t := range s.Trials(1) {
		text := t.Failure
		switch {
		case t.Status == trialDiverged:
			text = "diverged (the loss became NaN or infinite)"
		case t.Status != trialFailed:
			continue
		}
		i, seen := at[text]
		if !seen {
			i = len(reasons)
			at[text] = i
			reasons = append(reasons, reason{text: text, first: t.Number})
		}
		reasons[i].count++
	}
	if len(reasons) == 0 {
		return "no trial ran to a report"
	}
	top := slices.MinFunc(reasons, func(a, b reason) int { return cmp.Or(b.count-a.count, cmp.Compare(a.first, b.first)) })
	return fmt.Sprintf("%s (%d of %d trials)", top.text, top.count, s.Len())
}
