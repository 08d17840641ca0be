package assign

import (
	"slices"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// A match is a function of who waits, which trials wait and what is known of both:
// first what the state shows is learned, then trials are placed on slots in their
// order, then all of them are granted, beside one another. Where groups carry runs
// out it goes on: members are asked to leave for trials that got nothing, and what
// slots are left then go to groups that may grow.

// pair is a trial and who is to have it: of a group all its members.
type pair struct {
	ws    []*waiter
	sweep *state.Sweep
	trial int64
	inRow int // see lease
}

// grant is a Grant on its way.
type grant struct{ inRow int }

// use is what a match does with a waiter.
type use uint8

const (
	free  use = iota
	taken     // it gets a trial, or a trial gets it as soon as others have left
	kept      // for a group that starts when there are enough
)

// matching is one match.
type matching struct {
	*Scheduler
	pairs   []pair
	short   []want // what found no slots, in order
	changes []*change
	keepers []*state.Sweep // whose groups have waited too long, and slots are kept for
	busy    map[place]bool
}

// match grants every trial that waiters may have.
func (s *Scheduler) match() {
	if len(s.waiters) == 0 && len(s.grouped) == 0 {
		return
	}
	open := s.candidates()
	if len(open) == 0 && len(s.grouped) == 0 {
		return
	}
	for _, c := range open {
		s.learn(c.sweep)
	}
	for _, w := range s.waiters {
		w.use = free
	}
	m := &matching{Scheduler: s}
	m.promote(open)
	for len(open) > 0 {
		at := 0
		for i, c := range open {
			if c.before(open[at]) {
				at = i
			}
		}
		if !m.serve(open[at]) {
			open = slices.Delete(open, at, at+1)
		}
	}
	if len(s.grouped) > 0 {
		m.reclaim()
		m.grow()
	}
	m.carry()
}

// carry has what was decided carried out.
func (m *matching) carry() {
	s := m.Scheduler
	for _, p := range m.pairs {
		s.granting[trialKey{p.sweep.ID, p.trial}] = &grant{p.inRow}
		s.promise(p.ws)
		delete(s.waits, p.sweep.ID)
	}
	for _, c := range m.changes {
		s.promise(c.add)
	}
	if len(m.pairs)+len(m.changes) > 0 {
		s.waiters = slices.DeleteFunc(s.waiters, func(w *waiter) bool { return s.promised[w.request()] == w })
	}
	for _, p := range m.pairs {
		w := p.ws[0]
		g := &logv1.GrantLease{
			Id: p.sweep.ID, Trial: p.trial, Worker: w.Worker, Incarnation: w.Incarnation, Slot: w.Name, Request: w.Request,
			TermMs: w.Term.Milliseconds(), End: endOf(p.sweep, p.sweep.Trial(p.trial)), Final: s.final(p.sweep, p.ws), Folder: w.Folder, Credential: w.Credential,
		}
		if p.sweep.Members.Group() {
			for i, w := range p.ws {
				g.Members = append(g.Members, wire.ToGroupMember(w.member(int32(i+1))))
			}
		}
		s.want(Grant{p.sweep.ID, p.trial, &logv1.Command{RequestId: w.Request, TimeMs: s.now.UnixMilli(), Op: &logv1.Command_GrantLease{GrantLease: g}}})
	}
	for _, c := range m.changes {
		s.carryChange(c)
	}
}

// promise keeps waiters out of the next match until the log has answered.
func (s *Scheduler) promise(ws []*waiter) {
	for _, w := range ws {
		s.promised[w.request()] = w
	}
}

// candidate is a sweep with trials to give, or with runs that lack members.
type candidate struct {
	sweep   *state.Sweep
	waiting []int64
	running int64 // running, or about to run
	room    int64 // how many more may run at once
	next    int   // of the waiters: those before it do not suit

	// Where there are groups:
	missing []*change // runs below their least number of members, oldest first
	since   time.Time // when it began to wait; set once that is longer than others may go first
	block   *block    // of slots that a gang left, for its next trial
}

// candidates are the sweeps that have a trial to give now. Grants that are on their way to the log
// count as running: the state does not show them yet.
func (s *Scheduler) candidates() []*candidate {
	var out []*candidate
	now := s.now.UnixMilli()
	for _, sw := range s.view.Sweeps() {
		group := len(s.grouped) > 0 && s.grouped[sw.ID]
		if sw.Status != trial.SweepRunning || sw.Counts.Waiting == 0 && !group || sw.Overdue(now) {
			delete(s.waits, sw.ID)
			continue
		}
		c := &candidate{sweep: sw, running: sw.Counts.Running, room: sw.Room()}
		for _, n := range sw.Waiting() {
			if s.granting[trialKey{sw.ID, n}] == nil {
				c.waiting = append(c.waiting, n)
			} else {
				c.running++
				c.room--
			}
		}
		if group {
			c.missing = s.missing(sw)
			c.running -= int64(len(c.missing)) // their members wait as trials do
		}
		if len(c.waiting) > 0 && c.room > 0 || len(c.missing) > 0 {
			s.age(c)
			out = append(out, c)
		} else {
			delete(s.waits, sw.ID)
		}
	}
	return out
}

// age lets a sweep that has waited longer than others may go first come before them.
// Without groups the order is by what runs alone.
func (s *Scheduler) age(c *candidate) {
	if len(s.grouped) == 0 {
		clear(s.waits)
		return
	}
	since, waits := s.waits[c.sweep.ID]
	if !waits {
		since = s.now
		s.waits[c.sweep.ID] = since
	}
	if s.now.Sub(since) >= patience {
		c.since = since
	}
}

// before reports whether the first of two sweeps gets a free slot before the second: the one of higher priority,
// of equals the one for which slots were left together, then the one that has waited longest, if it is longer than
// patience, then the one with fewer trials running.
func (c *candidate) before(o *candidate) bool {
	switch {
	case c.sweep.Priority != o.sweep.Priority:
		return c.sweep.Priority > o.sweep.Priority
	case c.block != o.block:
		return c.block != nil
	case !c.since.Equal(o.since):
		return o.since.IsZero() || !c.since.IsZero() && c.since.Before(o.since)
	}
	return c.running < o.running
}

// served takes note that a trial has a place, and reports whether the sweep has more
// to give.
func (c *candidate) served(at int) (more bool) {
	c.waiting = slices.Delete(c.waiting, at, at+1)
	c.running++
	c.room--
	c.since = time.Time{}
	return len(c.waiting) > 0 && c.room > 0
}

// serve places the next trial of a sweep, and reports whether there may be more to
// place.
func (m *matching) serve(c *candidate) (more bool) {
	if len(c.missing) > 0 {
		m.replace(c)
		return true
	}
	if len(c.waiting) == 0 || c.room <= 0 {
		return false
	}
	if c.sweep.Members.Group() {
		return m.serveGroup(c)
	}
	for c.next < len(m.waiters) && !m.open(m.waiters[c.next], c.sweep) {
		c.next++
	}
	if c.next < len(m.waiters) {
		for at, n := range c.waiting {
			for _, w := range m.waiters[c.next:] {
				if m.open(w, c.sweep) && m.may(w, c.sweep, n) {
					w.use = taken
					m.pairs = append(m.pairs, pair{[]*waiter{w}, c.sweep, n, 1})
					return c.served(at)
				}
			}
		}
	}
	m.short = append(m.short, want{candidate: c})
	return false
}

// open reports whether a waiter is free for trials of a sweep.
func (m *matching) open(w *waiter, sw *state.Sweep) bool { return w.use == free && m.suits(w, sw) }

// suits reports whether a waiter may have trials of a sweep, as far as its worker
// and slot go.
func (s *Scheduler) suits(w *waiter, sw *state.Sweep) bool {
	return w.fits(sw) && !s.view.Drained(w.Worker) && !s.shunned(sw, w)
}

// fits reports whether the slot may have trials of a sweep: it offers the trainer
// and carries every label that is required.
func (w *Slot) fits(s *state.Sweep) bool {
	if !slices.Contains(w.Trainers, s.Trainer) || s.Members.Group() && !slices.Contains(w.GroupTrainers, s.Trainer) || w.Sweep != "" && w.Sweep != s.ID || (w.Sweep == "") == (s.Trainer == External) {
		return false
	}
	if w.Sweep != "" {
		return true // a program is no worker: it has no labels
	}
	return labelled(w.Labels, s)
}

// offers reports whether a worker has the trainer of a sweep, one that knows groups
// where its runs are carried out by one.
func offers(w *trial.Worker, s *state.Sweep) bool {
	return slices.Contains(w.Trainers, s.Trainer) && (!s.Members.Group() || slices.Contains(w.GroupTrainers, s.Trainer))
}

// labelled reports whether labels hold all that a sweep requires.
func labelled(labels map[string]string, s *state.Sweep) bool {
	for _, r := range s.Requires {
		if v, ok := labels[r.Key]; !ok || v != r.Value {
			return false
		}
	}
	return true
}

// may reports whether a waiter may have this trial, after how its last run ended.
func (s *Scheduler) may(w *waiter, sw *state.Sweep, number int64) bool {
	runs := sw.Trial(number).Runs
	if len(runs) == 0 {
		return true
	}
	last := &runs[len(runs)-1]
	if g := last.Group; g != nil {
		for _, e := range g.Ended {
			if !s.mayAfter(w, sw, number, e.Worker, e.Slot, e.Exit) {
				return false
			}
		}
		return true
	}
	return s.mayAfter(w, sw, number, last.Worker, last.Slot, last.Exit)
}

// mayAfter is may after one end, of the last run or of a member's part in it.
func (s *Scheduler) mayAfter(w *waiter, sw *state.Sweep, number int64, worker, slot string, exit trial.Exit) bool {
	same := worker == w.Worker && w.Sweep == ""
	switch {
	case exit == trial.ExitBadSpec && same:
		// What one worker refused another tries, if there is one.
		return s.settled() && !s.others(sw, w)
	case exit == trial.ExitDiskFull && same && s.others(sw, w),
		exit == trial.ExitDeviceFault && worker == w.Worker && slot == w.Name:
		return s.now.Sub(s.faults[trialKey{sw.ID, number}]) >= otherSlotFor
	}
	return true
}
