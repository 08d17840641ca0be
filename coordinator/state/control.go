package state

import (
	"math"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// find returns the sweep of a command to look at, or sets the result's error.
func (m *Machine) find(id string, r *Result) *Sweep {
	r.Sweep = id
	s, ok := m.peek(id)
	if ok {
		return s
	}
	if r.Err = notFound("sweep %q", id); m.live.gone(id) {
		r.Err = notFound("sweep %s was deleted", id)
	}
	return nil
}

// findTrial does the same for a trial; both are nil on an error.
func (m *Machine) findTrial(id string, n int64, r *Result) (*Sweep, *Trial) {
	s := m.find(id, r)
	if s == nil {
		return nil, nil
	}
	r.Trial = n
	t := s.Trial(n)
	if t == nil {
		r.Err = notFound("trial %d of sweep %s, which has %d", n, id, s.Len())
		return nil, nil
	}
	return s, t
}

// controlSweep pauses, resumes, stops or cancels. What is so already is no error and changes
// nothing, so that two people who press the same button agree; what cannot come about any more is a
// conflict. Resuming a sweep also wakes trials that were paused by hand; of a sweep with a stopping
// rule the rule says which go on.
func (m *Machine) controlSweep(now int64, c *logv1.ControlSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	refuse := func(what string) { r.Err = conflict("%s sweep %s: it is %s", what, s.ID, s.Status) }
	already := func() { r.Outcome = trial.OutcomeAlready }
	switch wire.Action(c.GetAction()) {
	case trial.ActionPause:
		switch s.Status {
		case trial.SweepRunning:
			s, _ = m.sweep(s.ID)
			m.setSweep(now, s, trial.SweepPaused)
		case trial.SweepPaused:
			already()
		default:
			refuse("pause")
		}
	case trial.ActionResume:
		switch {
		case s.Status == trial.SweepPaused || s.Status == trial.SweepRunning && s.Counts.Paused > 0 && s.StoppingJSON == "":
			s, _ = m.sweep(s.ID)
			m.setSweep(now, s, trial.SweepRunning)
			if s.StoppingJSON != "" {
				break // which paused trials go on is the rule's to say
			}
			for _, n := range s.Open() {
				if s.Trial(n).Status == trial.Paused {
					m.reopen(s, m.trial(s, n))
				}
			}
		case s.Status == trial.SweepRunning:
			already()
		default:
			refuse("resume")
		}
	case trial.ActionStop:
		switch s.Status {
		case trial.SweepRunning, trial.SweepPaused:
			s, _ = m.sweep(s.ID)
			m.setSweep(now, s, trial.SweepStopping)
			for _, n := range s.Open() {
				m.stopTrial(now, s, m.trial(s, n), "sweep stopped")
			}
			m.settle(now, s)
		case trial.SweepStopping, trial.SweepStopped:
			already()
		default:
			refuse("stop")
		}
	case trial.ActionCancel:
		switch s.Status {
		case trial.SweepRunning, trial.SweepPaused, trial.SweepStopping:
			s, _ = m.sweep(s.ID)
			m.cancelOpen(now, s, "sweep cancelled")
			s.EndedMS = now
			m.setSweep(now, s, trial.SweepCancelled)
		case trial.SweepCancelled:
			already()
		default:
			refuse("cancel")
		}
	case trial.ActionArchive, trial.ActionUnarchive, trial.ActionDelete, trial.ActionUndelete:
		if m.rules >= 2 {
			m.shelve(now, s, wire.Action(c.GetAction()), c.GetForce(), r)
			break
		}
		fallthrough
	default:
		r.Err = invalid("control sweep %s: action %d", s.ID, c.GetAction())
	}
}

// setSweep gives a sweep a status and keeps its clock: time counts while it is
// RUNNING.
func (m *Machine) setSweep(now int64, s *Sweep, to trial.SweepStatus) {
	switch {
	case to == trial.SweepRunning && s.RunningSince == 0:
		s.RunningSince = max(now, 1)
	case to != trial.SweepRunning && s.RunningSince != 0:
		s.SpentMS = s.Spent(now)
		s.RunningSince = 0
	}
	s.Status = to
	s.ModifiedIndex = m.live.index
	m.note(Change{Kind: SweepChanged, Sweep: s.ID})
}

// extendSweep adds to budgets that the sweep has, all that are asked or none. A sweep that ended by
// its budget runs again, if what is added leaves it anything to do: else it would end at once, and
// the person would wait.
func (m *Machine) extendSweep(now int64, c *logv1.ExtendSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	trials, epochs, ms := c.GetAddTrials(), c.GetAddEpochs(), c.GetAddMs()
	refuse := func(format string, a ...any) {
		r.Err = conflict("extend sweep %s: "+format, append([]any{s.ID}, a...)...)
	}
	switch {
	case trials < 0 || epochs < 0 || ms < 0 || trials+epochs+ms == 0 || trials > maxBudget-s.Budget || ms > maxTime-s.BudgetMS || epochs > math.MaxInt64-s.BudgetEpochs:
		r.Err = invalid("extend sweep %s by %d trials, %d epochs and %d ms: at least one of them, at most %d trials and %d ms", s.ID, trials, epochs, ms, maxBudget-s.Budget, maxTime-s.BudgetMS)
	case s.DeletedMS != 0:
		refuse("it is deleted")
	case trials > 0 && s.Budget == 0:
		refuse("it has no budget of trials")
	case epochs > 0 && s.BudgetEpochs == 0:
		refuse("it has no budget of epochs")
	case ms > 0 && s.BudgetMS == 0:
		refuse("it has no budget of time")
	case s.Exhausted:
		refuse("its space is used up after %d trials", s.Len())
	case s.Status == trial.SweepStopping || s.Status == trial.SweepCancelled || s.Status == trial.SweepFailed:
		refuse("it is %s", s.Status)
	case s.Ended() && s.Budget > 0 && s.Len() >= s.Budget+trials:
		refuse("its %d trials are used: add trials too", s.Budget)
	case s.Ended() && s.BudgetEpochs > 0 && s.Epochs >= s.BudgetEpochs+epochs:
		refuse("its %d epochs are used: add epochs too", s.BudgetEpochs)
	case s.Ended() && s.BudgetMS > 0 && s.SpentMS >= s.BudgetMS+ms:
		refuse("its time of %v is used: add time too", span(s.BudgetMS))
	default:
		s, _ = m.sweep(s.ID)
		s.Budget += trials
		s.BudgetEpochs += epochs
		s.BudgetMS += ms
		to := s.Status
		if s.Ended() {
			s.EndedMS = 0
			s.Ending = ""
			to = trial.SweepRunning
		}
		m.setSweep(now, s, to)
	}
}

// prioritizeSweep changes who gets the next free slot; leases stay as they are.
func (m *Machine) prioritizeSweep(now int64, c *logv1.PrioritizeSweep, r *Result) {
	s := m.find(c.GetId(), r)
	switch p := c.GetPriority(); {
	case s == nil:
	case p < -maxPriority || p > maxPriority:
		r.Err = invalid("priority %d of sweep %s: -%d to %d", p, s.ID, maxPriority, maxPriority)
	case s.Ended():
		r.Err = conflict("priority of sweep %s: it is %s", s.ID, s.Status)
	case s.Priority == p:
		r.Outcome = trial.OutcomeAlready
	default:
		s, _ = m.sweep(s.ID)
		s.Priority = p
		m.setSweep(now, s, s.Status)
	}
}

// failSweep ends a sweep that cannot go on, on the word of a duty: search has failed, or its
// goroutine has.
func (m *Machine) failSweep(now int64, c *logv1.FailSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	if s.Ended() {
		if s.Status == trial.SweepFailed {
			r.Outcome = trial.OutcomeAlready
		} else {
			r.Err = conflict("fail sweep %s: it is %s", s.ID, s.Status)
		}
		return
	}
	s, _ = m.sweep(s.ID)
	m.failNow(now, s, cut(c.GetReason()))
}

// failNow fails a sweep and cancels its open trials; those that ended keep their values.
func (m *Machine) failNow(now int64, s *Sweep, why string) {
	m.cancelOpen(now, s, "sweep failed")
	s.Failure = why
	s.Ending = ""
	s.EndedMS = now
	m.setSweep(now, s, trial.SweepFailed)
}
