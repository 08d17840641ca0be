package state

import (
	"fmt"
	"strings"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// Epochs. Every running trial holds one epoch of the budget in reserve, the one
// it is in; it is told to stop when there is none for its next. A report beyond
// the budget is refused, so it is exact even where a run did not obey in time.

// Trained is how many epochs the trial itself trained: those of the trial it
// started from are not its own.
func (t *Trial) Trained() int64 {
	if len(t.curve.epochs) == 0 {
		return 0
	}
	return t.with(t.Epoch())
}

// with is what Trained will be once epoch is reported.
func (t *Trial) with(epoch int32) int64 {
	first := epoch
	if len(t.curve.epochs) > 0 {
		first = t.curve.epochs[0]
	}
	if first > t.Origin.Epoch {
		epoch -= t.Origin.Epoch
	}
	return int64(epoch)
}

// reserved is how many epochs the running trials may report without being asked
// again.
func (s *Sweep) reserved() int64 {
	if s.Epochs+s.Counts.Running < s.BudgetEpochs {
		return s.Counts.Running // no need to look closer
	}
	n := int64(0)
	for _, number := range s.open.list {
		if t := s.Trial(number); t.Lease != nil && t.Verdict != trial.VerdictStop {
			n++
		}
	}
	return n
}

// affords reports whether a running trial may report epochs more: a run that was
// told to stop does not use up what others hold in reserve.
func (s *Sweep) affords(t *Trial, epochs int64) bool {
	others := s.reserved()
	if t.Verdict != trial.VerdictStop {
		others--
	}
	return s.Epochs+epochs+others <= s.BudgetEpochs
}

// Room is how many more trials may run at once: paused ones do not count.
func (s *Sweep) Room() int64 {
	room := s.Parallelism - s.Counts.Running
	if s.BudgetEpochs > 0 {
		room = min(room, s.BudgetEpochs-s.Epochs-s.reserved())
	}
	return max(room, 0)
}

// Wanted is how many more trials should be proposed now, so that as many wait or
// run as the sweep's parallelism and budgets allow.
func (s *Sweep) Wanted() int64 {
	open := s.Counts.Waiting + s.Counts.Running
	room := min(s.Parallelism-open, s.Unproposed())
	if s.BudgetEpochs > 0 {
		room = min(room, s.BudgetEpochs-s.Epochs-s.reserved()-s.Counts.Waiting)
	}
	return max(room, 0)
}

// spendEpochs takes the epochs of a report into account, the trial's next one
// too.
func (m *Machine) spendEpochs(now int64, s *Sweep, t *Trial, epochs int64) {
	s.Epochs += epochs
	if s.BudgetEpochs > 0 && t.Verdict != trial.VerdictStop && s.Epochs+s.reserved() > s.BudgetEpochs {
		m.stopTrial(now, s, t, fmt.Sprintf("the sweep's budget of %d epochs is used", s.BudgetEpochs))
	}
}

// Time.

// Spent is how long the sweep has run at now, both in milliseconds.
func (s *Sweep) Spent(now int64) int64 {
	if s.RunningSince == 0 {
		return s.SpentMS
	}
	return s.SpentMS + max(0, now-s.RunningSince)
}

// span writes milliseconds as people do: 2h, 1h30m, 90s is 1m30s.
func span(ms int64) string {
	var b strings.Builder
	for _, unit := range []struct {
		ms   int64
		name string
	}{{3_600_000, "h"}, {60_000, "m"}, {1000, "s"}, {1, "ms"}} {
		if n := ms / unit.ms; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			ms %= unit.ms
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// Overdue reports whether the sweep's time is used at now, in Unix milliseconds.
func (s *Sweep) Overdue(now int64) bool {
	return s.BudgetMS > 0 && s.Status == trial.SweepRunning && s.Spent(now) >= s.BudgetMS
}

// endOverdue ends a sweep whose time is used. A report that comes later finds its
// run over, whether this command came before it or not.
func (m *Machine) endOverdue(now int64, c *logv1.EndOverdue, r *Result) {
	s := m.find(c.GetId(), r)
	switch {
	case s == nil:
	case s.Ended():
		r.Outcome = trial.OutcomeAlready
	case !s.Overdue(now):
		r.Err = conflict("end sweep %s: its time is not used", s.ID)
	default:
		m.overrun(now, s)
	}
}

// overrun ends a sweep whose time is used. A report, too, may be what shows it: the time of its
// command counts, so every replica ends the sweep at the same entry.
func (m *Machine) overrun(now int64, s *Sweep) {
	s, _ = m.sweep(s.ID)
	m.endNow(now, s, fmt.Sprintf("its time of %v is used", span(s.BudgetMS)))
}

// Checkpoints.

// keep gives a trial its kept checkpoints and tells of those given up. Files of
// workers other than the one that holds the lease, of a group's members, of which
// another may have written them, and what the budget drops, are named: nobody else
// would delete them.
func (m *Machine) keep(s *Sweep, t *Trial, kept []Checkpoint, pressed bool) {
	s.StoredBytes -= size(t.Checkpoints)
	before := t.Checkpoints
	t.Checkpoints = kept
	s.StoredBytes += size(kept)
	if s.CheckpointBytes > 0 {
		if len(kept) > 0 {
			s.stored.add(m.gen, t.Number)
		} else {
			s.stored.drop(m.gen, t.Number)
		}
	}
	for i := range before {
		old := &before[i]
		gone := true
		for j := range kept {
			gone = gone && (kept[j].Epoch != old.Epoch || kept[j].Token != old.Token)
		}
		if !gone {
			continue
		}
		c := Change{Kind: CheckpointDropped, Sweep: s.ID, Trial: t.Number, Worker: old.Worker}
		if pressed || t.Lease == nil || t.Lease.Members != nil || t.Lease.Worker != old.Worker {
			c.Location = old.Location
		}
		m.note(c)
	}
}

// size is the bytes of the checkpoints kept.
func size(list []Checkpoint) (bytes int64) {
	for i := range list {
		bytes += list[i].Size
	}
	return bytes
}

// press drops checkpoints until the sweep's keep to their budget: of the worst
// trial first, and of a trial the one that is not its best first. It never drops
// what an open trial goes on from, what another trial is to start from, and the
// best checkpoint of the best trial, and what aliases keep, even where these alone exceed the budget.
func (m *Machine) press(s *Sweep) {
	for s.CheckpointBytes > 0 && s.StoredBytes > s.CheckpointBytes {
		origins := map[int64]bool{}
		for _, n := range s.fresh.list {
			if o := s.Trial(n).Origin.Trial; o != 0 {
				origins[o] = true // looked up only
			}
		}
		var worst *Trial
		drop := 0
		for _, n := range s.stored.list {
			t := s.Trial(n)
			if origins[n] || worst != nil && !s.worse(t, worst) {
				continue
			}
			if i := m.victim(s, t); i >= 0 {
				worst, drop = t, i
			}
		}
		if worst == nil {
			return
		}
		t := m.trial(s, worst.Number)
		kept := append(make([]Checkpoint, 0, 1), t.Checkpoints[:drop]...)
		m.keep(s, t, append(kept, t.Checkpoints[drop+1:]...), true)
	}
}

// victim is the place of the checkpoint of a trial that may go first; -1 when all
// must stay.
func (m *Machine) victim(s *Sweep, t *Trial) int {
	best := bestCheckpoint(s.Objective, t.Checkpoints)
	for i := len(t.Checkpoints) - 1; i >= 0; i-- {
		if i != best && (i != 0 || t.Ended()) && !m.pinned(s, t, &t.Checkpoints[i]) {
			return i
		}
	}
	if t.Number == s.best || best == 0 && !t.Ended() || m.pinned(s, t, &t.Checkpoints[best]) {
		return -1
	}
	return best
}

// worse reports whether a's place in the ranking is behind b's.
func (s *Sweep) worse(a, b *Trial) bool {
	switch {
	case a.HasValue != b.HasValue:
		return b.HasValue
	case !a.HasValue:
		return a.Number > b.Number
	}
	return outranks(s.Objective, score{b.Value, b.Number}, score{a.Value, a.Number})
}
