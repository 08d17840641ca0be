package state

import (
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// grantLease gives a waiting trial to whoever asked. All that the leader decided by is looked at
// again here, since it may have decided on an older state: parallelism, budgets, drained workers. A
// request that holds a lease gets that one, so an answer may be lost and asked for again. The token
// is the command's own place in the log, and so greater than any before it: whatever comes under an
// older one is late.
func (m *Machine) grantLease(now int64, token uint64, c *logv1.GrantLease, r *Result) {
	for _, name := range []string{c.GetWorker(), c.GetIncarnation(), c.GetRequest()} {
		if name == "" || len(name) > maxName || len(c.GetSlot()) > maxName {
			r.Err = invalid("grant lease: worker, incarnation and request must be of 1 to %d bytes", maxName)
			return
		}
	}
	key := leaseKey{c.GetWorker(), c.GetIncarnation(), c.GetRequest()}
	if held, ok := m.leases[key]; ok {
		s, _ := m.peek(held.sweep)
		r.Sweep, r.Trial, r.Token = held.sweep, held.trial, s.Trial(held.trial).Lease.Token
		if held.member != 0 {
			r.Members = []int32{held.member}
		}
		r.Outcome = trial.OutcomeAlready
		return
	}
	s, t := m.findTrial(c.GetId(), c.GetTrial(), r)
	switch {
	case t == nil:
	case c.GetTermMs() < 0 || c.GetTermMs() > maxTime:
		r.Err = invalid("grant lease for trial %d of sweep %s: a term of %d ms", t.Number, s.ID, c.GetTermMs())
	case c.GetEnd() != nil && !validEnd(endOf(c.GetEnd())) || len(c.GetFolder()) > maxName:
		r.Err = invalid("grant lease for trial %d of sweep %s: it ends at epoch %d with verdict %d, folder of %d bytes", t.Number, s.ID, c.GetEnd().GetEpoch(), c.GetEnd().GetVerdict(), len(c.GetFolder()))
	case len(c.GetCredential()) > maxCredential:
		r.Err = invalid("grant lease for trial %d of sweep %s: a hash of %d bytes", t.Number, s.ID, len(c.GetCredential()))
	case s.Status != trial.SweepRunning:
		r.Err = conflict("grant lease for trial %d of sweep %s: the sweep is %s", t.Number, s.ID, s.Status)
	case s.Overdue(now):
		r.Err = conflict("grant lease for trial %d of sweep %s: its time of %v is used", t.Number, s.ID, span(s.BudgetMS))
	case t.Status != trial.Waiting:
		r.Err = conflict("grant lease for trial %d of sweep %s: it is %s", t.Number, s.ID, t.Status)
	case s.Counts.Running >= s.Parallelism:
		r.Err = conflict("grant lease for trial %d of sweep %s: %d trials run, as many as its parallelism", t.Number, s.ID, s.Counts.Running)
	case s.Room() == 0:
		r.Err = conflict("grant lease for trial %d of sweep %s: its budget of %d epochs is used, %d of them by trials that run", t.Number, s.ID, s.BudgetEpochs, s.reserved())
	case m.live.Drained(c.GetWorker()):
		r.Err = conflict("grant lease for trial %d of sweep %s: worker %s is drained", t.Number, s.ID, c.GetWorker())
	default:
		r.Err = m.validGroup(s, t, c)
	}
	if r.Err != nil {
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	m.move(s, t, trial.Running)
	lease := &Lease{Token: token, Worker: m.intern(c.GetWorker()), Incarnation: m.intern(c.GetIncarnation()), Slot: m.intern(c.GetSlot()), Request: c.GetRequest(), GrantedMS: now, TermMS: c.GetTermMs(),
		End: endOf(c.GetEnd()), Final: c.GetFinal(), Folder: m.intern(c.GetFolder())}
	run := Run{Number: int32(len(t.Runs) + 1), Token: token, Worker: lease.Worker, Slot: lease.Slot, StartedMS: now, Credential: string(c.GetCredential())}
	if len(t.Checkpoints) > 0 {
		run.ResumedEpoch = t.Checkpoints[0].Epoch
	}
	if s.Members.Group() {
		run.Group = m.newGroup(now, s, c)
		lease.Members = run.Group.Members
		r.Members = []int32{1}
	}
	t.Runs = append(t.Runs[:len(t.Runs):len(t.Runs)], run)
	t.Lease = lease
	t.Verdict = 0
	t.Failure = ""
	if t.StartedMS == 0 {
		t.StartedMS = now
	}
	s.Counts.Runs++
	m.hold(s, t)
	r.Token = token
	m.note(Change{Kind: LeaseGranted, Sweep: s.ID, Trial: t.Number, Worker: lease.Worker, Token: token})
	for i := range lease.Members {
		m.noteMember(MemberJoined, s, t, &lease.Members[i])
	}
}

// endOf is the log's end; the zero End for none.
func endOf(e *logv1.LeaseEnd) End {
	return End{Epoch: e.GetEpoch(), Verdict: wire.Verdict(e.GetVerdict()), Reason: cut(e.GetReason())}
}

// validEnd reports whether a run can end so by itself.
func validEnd(e End) bool {
	return e.Epoch >= 1 && (e.Verdict == trial.VerdictPause || e.Verdict == trial.VerdictStop)
}

// Proto returns the end as the log has it; nil for none.
func (e End) Proto() *logv1.LeaseEnd {
	if e.Epoch == 0 {
		return nil
	}
	return &logv1.LeaseEnd{Epoch: e.Epoch, Verdict: wire.ToVerdict(e.Verdict), Reason: e.Reason}
}

// atEnd reports whether the trial's run has reported its last epoch.
func (t *Trial) atEnd() bool {
	return t.Lease != nil && t.Lease.End.Epoch > 0 && t.Epoch() >= t.Lease.End.Epoch
}

// endLease ends the run that holds the lease. The trial stays RUNNING: the
// caller says what becomes of it.
func (m *Machine) endLease(now int64, s *Sweep, t *Trial, class trial.Exit, message string) {
	l := t.Lease
	m.unhold(l)
	for i := range l.Members {
		m.noteMember(MemberGone, s, t, &l.Members[i])
	}
	runs := append(make([]Run, 0, len(t.Runs)), t.Runs...)
	last := &runs[len(runs)-1]
	last.EndedMS, last.Exit, last.Message = now, class, cut(message)
	t.Runs = runs
	t.Lease = nil
	t.Verdict = 0
	s.ModifiedIndex = m.live.index
	m.note(Change{Kind: LeaseEnded, Sweep: s.ID, Trial: t.Number, Worker: l.Worker, Token: l.Token})
}

// expireLease ends a run that has not been heard of. The leader alone has clocks: it says so
// through the log, and names the token, so that the end of a lease which was given to somebody else
// meanwhile ends nothing.
func (m *Machine) expireLease(now int64, c *logv1.ExpireLease, r *Result) {
	s, t := m.findTrial(c.GetId(), c.GetTrial(), r)
	if t == nil {
		return
	}
	r.Token = c.GetToken()
	if t.Lease == nil || t.Lease.Token != c.GetToken() {
		if t.run(c.GetToken()) == nil {
			r.Outcome = trial.OutcomeFenced
			r.Err = conflict("expire lease %d of trial %d of sweep %s: it never had that lease", c.GetToken(), t.Number, s.ID)
			return
		}
		r.Outcome = trial.OutcomeAlready
		return
	}
	s, _ = m.sweep(s.ID)
	m.endRun(now, s, m.trial(s, t.Number), trial.ExitLost, c.GetCause())
}

// endRun ends the present run and decides what becomes of the trial.
func (m *Machine) endRun(now int64, s *Sweep, t *Trial, class trial.Exit, message string) {
	verdict, lease := t.Verdict, t.Lease
	m.endLease(now, s, t, class, message)
	m.afterRun(now, s, t, lease, verdict, class, message)
}

// run returns the run of a token, nil if the trial never had it.
func (t *Trial) run(token uint64) *Run {
	for i := len(t.Runs) - 1; i >= 0; i-- {
		if t.Runs[i].Token == token {
			return &t.Runs[i]
		}
	}
	return nil
}
