package state

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"atelier/common/trial"
)

// settle ends a sweep whose time has come. Every command that ends a trial, or
// lets no more come, calls it last.
func (m *Machine) settle(now int64, s *Sweep) {
	c := s.Counts
	if s.Ended() {
		return
	}
	if s.Status != trial.SweepStopping {
		if why := s.earlyFailure(); why != "" {
			m.failNow(now, s, why)
			return
		}
	}
	if s.BudgetEpochs > 0 && c.Running == 0 && s.Epochs >= s.BudgetEpochs && s.Status != trial.SweepStopping {
		m.endNow(now, s, fmt.Sprintf("its budget of %d epochs is used", s.BudgetEpochs))
		return
	}
	if c.Open() > 0 {
		return
	}
	switch {
	case s.Status == trial.SweepStopping:
		s.EndedMS = now
		m.setSweep(now, s, trial.SweepStopped)
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
			m.endLease(now, s, t, trial.ExitStopped, why)
		}
		t.StopReason = why
		to := trial.Stopped
		if len(t.Runs) == 0 {
			to = trial.Cancelled
		}
		m.end(now, s, t, to, "")
	}
	if failure := s.noAnswer(); failure != "" {
		m.failNow(now, s, failure)
		return
	}
	s.Ending = why
	s.EndedMS = now
	m.setSweep(now, s, trial.SweepFinished)
}

// How many trials without a value, of those that ended first, end their sweep.
const (
	maxRefusals  = 3  // refused by the trainer, or without a report of the objective
	maxFailures  = 10 // failed for any reason
	maxValueless = 20 // failed, diverged or stopped without a finite value
)

// earlyFailure returns why a sweep cannot succeed: what its first trials met, all
// others would. It returns "" if the sweep may still succeed.
func (s *Sweep) earlyFailure() string {
	c := s.Counts
	ended := c.Ended()
	if c.Failed == ended {
		switch {
		case ended >= maxRefusals && s.badSpec == c.Failed && s.refused():
			return fmt.Sprintf("the first %d trials were refused by the trainer: %s", c.Failed, s.commonFailure())
		case ended >= maxRefusals && s.neverReported():
			return fmt.Sprintf("the first %d trials never reported the objective: %s", c.Failed, s.commonFailure())
		case ended >= maxFailures && s.badSpec < c.Failed:
			return fmt.Sprintf("the first %d trials failed: %s", c.Failed, s.commonFailure())
		}
	}
	if s.best == 0 && ended >= maxValueless && c.Failed+c.Diverged+c.Stopped == ended && s.badSpec < ended && s.neverFinite() {
		return fmt.Sprintf("none of the first %d trials has a value of %s: %s", ended, s.Objective.Metric, s.commonFailure())
	}
	return ""
}

// refused reports whether bad specs are the spec's fault and not one worker's:
// another one refused too, or the same one did again and again, each time after
// it had before, while no other tries. Who gives trials out does not ask a worker
// a third time while another might know better.
func (s *Sweep) refused() bool {
	var runs []Run
	for t := range s.Trials(1) {
		for _, r := range t.Runs {
			if r.Exit == trial.ExitBadSpec {
				runs = append(runs, r)
			}
		}
	}
	slices.SortStableFunc(runs, func(a, b Run) int { return cmp.Compare(a.EndedMS, b.EndedMS) })
	row, last := 0, int64(math.MinInt64)
	for _, r := range runs {
		if r.Worker != runs[0].Worker {
			return true
		}
		if r.StartedMS >= last {
			row, last = row+1, r.EndedMS
		}
	}
	return row >= maxRefusals && !s.heldBeside(runs[0].Worker)
}

// neverReported reports whether every failed trial trained to its end and never
// reported the objective.
func (s *Sweep) neverReported() bool {
	for t := range s.Trials(1) {
		if t.Status == trial.Failed && (t.lastExit() != trial.ExitFinished || t.ReportCount() == 0) {
			return false
		}
	}
	return true
}

// neverFinite reports whether every trial that was stopped had reported, and nothing
// finite: not a value that only constraints keep from counting.
func (s *Sweep) neverFinite() bool {
	for t := range s.Trials(1) {
		if t.Status == trial.Stopped && (t.ReportCount() == 0 || s.Infeasible(t)) {
			return false
		}
	}
	return true
}

// noAnswer returns why a sweep that has come to its end has no answer; "" if it
// has one.
func (s *Sweep) noAnswer() string {
	switch {
	case s.Counts.Proposed == 0:
		return "no trial was proposed: the space has no point, or the budget ended before the first"
	case s.best == 0 && len(s.Constraints) > 0 && s.nearest() != "":
		return s.nearest()
	case s.best == 0:
		return fmt.Sprintf("none of %d trials has a value of %s: %s", s.Counts.Proposed, s.Objective.Metric, s.commonFailure())
	}
	for _, o := range s.Objectives[1:] {
		if !s.measures(o.Metric) {
			return fmt.Sprintf("no trial reported a finite %s, one of its %d objectives, at the epoch of its value", o.Metric, len(s.Objectives))
		}
	}
	return ""
}

// measures reports whether any trial has a finite metric at the epoch of its
// value.
func (s *Sweep) measures(metric string) bool {
	for t := range s.Trials(1) {
		if !t.HasValue {
			continue
		}
		for i, epoch := range t.curve.epochs {
			if v, ok := t.curve.metric(i, metric); epoch == t.ValueEpoch && ok && finite(v) {
				return true
			}
		}
	}
	return false
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
		case t.Status == trial.Diverged:
			text = "diverged (the loss became NaN or infinite)"
		case t.Status == trial.Stopped && t.ReportCount() > 0 && !t.HasValue && s.reported(t):
			text = "was stopped without a finite value"
		case t.Status == trial.Stopped && t.ReportCount() > 0 && !t.HasValue:
			text = s.noObjective(t)
		case t.Status != trial.Failed:
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
