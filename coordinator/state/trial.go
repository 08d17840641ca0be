package state

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// cut bounds a message, on a rune's edge.
func cut(s string) string { return cutTo(s, maxMessage) }

func cutTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) {
		s = s[:len(s)-1]
	}
	return s
}

// queue is the set a waiting trial stands in.
func (s *Sweep) queue(t *Trial) *numbers {
	if len(t.Runs) > 0 {
		return &s.retries
	}
	return &s.fresh
}

// lastExit is how the latest run ended; 0 while it goes on, or before the first.
func (t *Trial) lastExit() trial.Exit {
	if len(t.Runs) == 0 {
		return 0
	}
	return t.Runs[len(t.Runs)-1].Exit
}

// move gives a trial another status. Call it before the trial's runs change.
func (m *Machine) move(s *Sweep, t *Trial, to trial.Status) {
	from := t.Status
	*s.Counts.of(from)--
	*s.Counts.of(to)++
	if from == trial.Waiting {
		s.queue(t).drop(m.gen, t.Number)
	}
	t.Status = to
	if to == trial.Waiting {
		s.queue(t).add(m.gen, t.Number)
	}
	switch {
	case from.Over() && !to.Over():
		s.open.add(m.gen, t.Number)
	case !from.Over() && to.Over():
		s.open.drop(m.gen, t.Number)
	}
	s.ModifiedIndex = m.live.index
}

// end gives a trial its last status. The lease must be gone.
func (m *Machine) end(now int64, s *Sweep, t *Trial, to trial.Status, failure string) {
	m.move(s, t, to)
	t.EndedMS = now
	t.Failure = failure
	t.Verdict = 0
	t.curve.compact()
	m.learn(s, t)
	if to == trial.Failed && t.lastExit() == trial.ExitBadSpec {
		s.badSpec++
	}
	m.note(Change{Kind: TrialEnded, Sweep: s.ID, Trial: t.Number})
	m.press(s)
}

// pause lets a trial stand until it is resumed; what it reported counts for
// search meanwhile.
func (m *Machine) pause(s *Sweep, t *Trial) {
	m.move(s, t, trial.Paused)
	t.Pauses++
	if t.ReportCount() > 0 {
		m.learn(s, t)
	}
	m.note(Change{Kind: TrialPaused, Sweep: s.ID, Trial: t.Number})
}

// resumeTrial lets a paused trial wait for a lease again.
func (m *Machine) resumeTrial(c *logv1.ResumeTrial, r *Result) {
	s, t := m.findTrial(c.GetId(), c.GetTrial(), r)
	switch {
	case t == nil:
	case t.Ended():
		r.Err = conflict("resume trial %d of sweep %s: it has ended", t.Number, s.ID)
	case t.Status != trial.Paused:
		r.Outcome = trial.OutcomeAlready
	default: // a sweep that is ended or stopping has no paused trial
		s, _ = m.sweep(s.ID)
		t = m.trial(s, t.Number)
		t.StopReason = cut(c.GetReason())
		m.reopen(s, t)
	}
}

// reopen makes a trial wait for a lease again.
func (m *Machine) reopen(s *Sweep, t *Trial) {
	m.move(s, t, trial.Waiting)
	m.note(Change{Kind: TrialReopened, Sweep: s.ID, Trial: t.Number})
}

// stopTrial ends a trial that does not run and tells one that runs to stop.
func (m *Machine) stopTrial(now int64, s *Sweep, t *Trial, why string) {
	t.StopReason = why
	if t.Lease == nil {
		m.end(now, s, t, trial.Stopped, "")
		return
	}
	t.Verdict = trial.VerdictStop
	s.ModifiedIndex = m.live.index
	m.note(Change{Kind: VerdictSet, Sweep: s.ID, Trial: t.Number, Worker: t.Lease.Worker, Token: t.Lease.Token})
}

// cancelOpen drops every open trial at once.
func (m *Machine) cancelOpen(now int64, s *Sweep, why string) {
	for _, n := range s.Open() {
		t := m.trial(s, n)
		if t.Lease != nil {
			m.endLease(now, s, t, trial.ExitStopped, why)
		}
		t.StopReason = why
		m.end(now, s, t, trial.Cancelled, "")
	}
}

// setVerdict tells a trial to continue, pause or stop: a running one through its run, another at
// once. A verdict that names a token is for that lease alone: a rule decided on what it had
// reported. A stop is final, a pause may be taken back.
func (m *Machine) setVerdict(now int64, c *logv1.SetVerdict, r *Result) {
	s, t := m.findTrial(c.GetId(), c.GetTrial(), r)
	if t == nil {
		return
	}
	verdict := wire.Verdict(c.GetVerdict())
	if verdict < trial.VerdictContinue || verdict > trial.VerdictStop {
		r.Err = invalid("verdict %d for trial %d of sweep %s", verdict, t.Number, s.ID)
		return
	}
	if token := c.GetToken(); token != 0 && (t.Lease == nil || t.Lease.Token != token) {
		r.Outcome = trial.OutcomeFenced
		r.Err = conflict("verdict for trial %d of sweep %s: lease %d is not its lease", t.Number, s.ID, token)
		return
	}
	if t.Ended() {
		r.Err = conflict("verdict for trial %d of sweep %s: it has ended", t.Number, s.ID)
		return
	}
	present := max(t.Verdict, trial.VerdictContinue)
	if t.Status == trial.Paused {
		present = trial.VerdictPause
	}
	if verdict == present {
		r.Outcome = trial.OutcomeAlready
		return
	}
	if t.Verdict == trial.VerdictStop {
		// A stop is never taken back: the run may have obeyed it already.
		r.Err = conflict("verdict for trial %d of sweep %s: it is being stopped", t.Number, s.ID)
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	why := cut(c.GetReason())
	switch {
	case verdict == trial.VerdictStop:
		m.stopTrial(now, s, t, why)
		m.settle(now, s)
	case t.Lease == nil && verdict == trial.VerdictPause:
		t.StopReason = why
		m.pause(s, t)
	case t.Lease == nil: // continue, paused
		m.reopen(s, t)
	default:
		t.Verdict = verdict
		t.StopReason = why
		s.ModifiedIndex = m.live.index
		m.note(Change{Kind: VerdictSet, Sweep: s.ID, Trial: t.Number, Worker: t.Lease.Worker, Token: t.Lease.Token})
	}
}

// retryTrial lets a failed trial try again, with its retries restored.
func (m *Machine) retryTrial(now int64, c *logv1.RetryTrial, r *Result) {
	s, t := m.findTrial(c.GetId(), c.GetTrial(), r)
	if t == nil {
		return
	}
	switch {
	case s.DeletedMS != 0:
		r.Err = conflict("retry trial %d of sweep %s: the sweep is deleted", t.Number, s.ID)
		return
	case t.Status != trial.Failed:
		r.Err = conflict("retry trial %d of sweep %s: only a failed trial is retried, it is %s", t.Number, s.ID, t.Status)
		return
	case s.Status == trial.SweepStopping || s.Status == trial.SweepCancelled:
		r.Err = conflict("retry trial %d of sweep %s: the sweep is %s", t.Number, s.ID, s.Status)
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	if t.lastExit() == trial.ExitBadSpec {
		s.badSpec--
	}
	t.FailedRuns, t.LostRuns, t.Refusals, t.Failure, t.StopReason, t.EndedMS = 0, 0, 0, "", "", 0
	m.reopen(s, t)
	if s.Ended() {
		s.EndedMS = 0
		s.Failure, s.Ending = "", ""
		m.setSweep(now, s, trial.SweepRunning)
	}
}

// afterRun decides what becomes of a trial whose run has ended; the lease is
// gone and the trial still RUNNING. verdict is what the run had been told: who was
// to pause or stop does so, however the run ended.
func (m *Machine) afterRun(now int64, s *Sweep, t *Trial, lease *Lease, verdict trial.Verdict, class trial.Exit, message string) {
	stopping := verdict == trial.VerdictStop || s.Status == trial.SweepStopping
	again := func() {
		switch {
		case stopping:
			m.end(now, s, t, trial.Stopped, "")
		case len(t.Runs) >= maxRuns:
			m.end(now, s, t, trial.Failed, fmt.Sprintf("%d runs and no end", len(t.Runs)))
		case verdict == trial.VerdictPause:
			m.pause(s, t)
		default:
			m.reopen(s, t)
		}
	}
	switch class {
	case trial.ExitFinished:
		why := t.StopReason
		t.StopReason = ""
		switch {
		case s.Infeasible(t):
			t.StopReason = "it met the constraints at no epoch"
			fallthrough
		case t.HasValue:
			m.end(now, s, t, trial.Finished, "")
		case s.reported(t):
			m.end(now, s, t, trial.Diverged, "")
		case m.rules >= 1 && t.ReportCount() == 0 && stopping:
			t.StopReason = why
			m.end(now, s, t, trial.Stopped, "") // what it reported came too late
		case m.rules >= 1 && t.ReportCount() == 0 && t.Origin.Trial != 0:
			t.StopReason = fmt.Sprintf("nothing was left to train from epoch %d of trial %d", t.Origin.Epoch, t.Origin.Trial)
			m.end(now, s, t, trial.Stopped, "")
		default:
			m.end(now, s, t, trial.Failed, s.noObjective(t))
		}
	case trial.ExitStopped:
		m.end(now, s, t, trial.Stopped, "")
	case trial.ExitPaused:
		if stopping {
			m.end(now, s, t, trial.Stopped, "")
		} else {
			m.pause(s, t)
		}
	case trial.ExitDiverged:
		m.end(now, s, t, trial.Diverged, "")
	case trial.ExitOutOfMemory:
		m.end(now, s, t, trial.Failed, reason("out of memory", message))
	case trial.ExitBadSpec:
		if m.rules >= 1 {
			t.Refusals++
			if !lease.Final && t.Refusals < triers {
				again() // it may be the worker's fault: another tries
				break
			}
		}
		m.end(now, s, t, trial.Failed, reason("bad spec", message))
	case trial.ExitDataMissing:
		if lease.Final && s.Counts.Reports == 0 && !s.heldBeside(lease.Worker) && s.Status != trial.SweepStopping {
			m.end(now, s, t, trial.Failed, reason("data missing", message))
			m.failNow(now, s, s.dataMissing(message))
			return
		}
		again()
	case trial.ExitReleased, trial.ExitRestored:
		again()
	case trial.ExitLost:
		t.LostRuns++
		if t.LostRuns >= maxLosses && !stopping {
			m.end(now, s, t, trial.Failed, reason(fmt.Sprintf("lost %d times", t.LostRuns), message))
			break
		}
		again()
	default: // device fault, disk full, killed, crashed
		t.FailedRuns++
		if t.FailedRuns > s.MaxRetries && !stopping {
			m.end(now, s, t, trial.Failed, reason(fmt.Sprintf("%s, run %d", class.Text(), len(t.Runs)), message))
			break
		}
		again()
	}
	m.settle(now, s)
}

// triers is how many refusals are the trial's own, whoever they came from.
const triers = 2

// heldBeside reports whether another worker has a run of the sweep: it will tell.
func (s *Sweep) heldBeside(worker string) bool {
	for _, n := range s.open.list {
		if l := s.Trial(n).Lease; l != nil && (l.Worker != worker || slices.ContainsFunc(l.Members, func(m trial.GroupMember) bool { return m.Worker != worker })) {
			return true
		}
	}
	return false
}

// dataMissing says that no worker has the sweep's data. A sweep whose trials have
// reported does not end so: its data is somewhere, and may come back.
func (s *Sweep) dataMissing(message string) string {
	var workers []string
	for t := range s.Trials(1) {
		for _, r := range t.Runs {
			if r.Exit == trial.ExitDataMissing && !slices.Contains(workers, r.Worker) {
				workers = append(workers, r.Worker)
			}
		}
	}
	slices.Sort(workers)
	who := fmt.Sprintf("the %d workers that could train it, %s, do not have its data", len(workers), strings.Join(workers, ", "))
	if len(workers) == 1 {
		who = fmt.Sprintf("worker %s, the only one that could train it, does not have its data", workers[0])
	}
	return reason(who, message)
}

// reason is why a trial failed: our word, then the run's.
func reason(what, message string) string {
	if message == "" {
		return what
	}
	return cut(what + ": " + message)
}

// reported reports whether any report of the trial carried the objective.
func (s *Sweep) reported(t *Trial) bool {
	for i := range t.curve.epochs {
		if _, ok := t.curve.metric(i, s.Objective.Metric); ok {
			return true
		}
	}
	return false
}

// noObjective says why a run that finished has no value: it names the metrics there were, for a
// misspelt objective is the usual cause.
func (s *Sweep) noObjective(t *Trial) string {
	if t.ReportCount() == 0 {
		return fmt.Sprintf("the run ended without a report; the objective is %s", s.Objective.Metric)
	}
	return cut(fmt.Sprintf("no report carried the objective %s; metrics seen: %s", s.Objective.Metric, strings.Join(t.curve.layout.names, ", ")))
}
