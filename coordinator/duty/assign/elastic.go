package assign

import (
	"cmp"
	"slices"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// A group has between its least and its greatest number of members. Below the least
// its run goes on, and the members it lacks count as trials that wait. Above it slots
// are lent: the group gets them while no trial could use them, and gives them back at
// a step's boundary when one could.

const (
	// growAfter is how long a slot waits for a trial before a group gets it.
	growAfter = time.Second
	// regrowAfter is the same for a group that was asked to give slots back less
	// than so long ago.
	regrowAfter = 10 * time.Second
)

// change is what becomes of a group in a match.
type change struct {
	*lease
	sweep *state.Sweep
	kind  string // of its slots
	lack  int    // members below the least number
	add   []*waiter
	leave []int32
}

// want is what found no slots: the trials of a sweep that are left, or a member that a
// run lacks.
type want struct {
	*candidate
	missing *change
}

// changeOf is a group's change; ok is false where the group takes no one in: its run
// is about to end, or it is not known what its slots are.
func (s *Scheduler) changeOf(sw *state.Sweep, l *lease) (c *change, ok bool) {
	t := sw.Trial(l.trial)
	if l.ending || s.now.Before(l.again) || t == nil || t.Lease == nil || t.Lease.Token != l.token || t.Verdict > trial.VerdictContinue || len(l.holders) == 0 {
		return nil, false
	}
	c = &change{lease: l, sweep: sw}
	for _, h := range l.holders {
		kind, known := s.kind(h.worker, h.slot)
		if !known && h.lasting() {
			return nil, false
		}
		if known {
			c.kind = kind
		}
	}
	c.lack = max(int(sw.Members.Min)-l.lasting(), 0)
	c.lack = min(c.lack, int(sw.Members.Max)-len(l.holders)-l.joining)
	return c, true
}

// lasting counts the members that stay, and those on their way.
func (l *lease) lasting() int {
	n := l.joining
	for _, h := range l.holders {
		if h.lasting() && !h.leaving {
			n++
		}
	}
	return n
}

// groups are the leases that groups hold, in order of their grants.
func (s *Scheduler) groups() (list []*lease) {
	for _, l := range s.leases {
		if l.group {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *lease) int { return cmp.Compare(a.token, b.token) })
	return list
}

// missing are a sweep's runs with fewer members than they were to have at least.
func (s *Scheduler) missing(sw *state.Sweep) (out []*change) {
	if sw.Counts.Running == 0 {
		return nil
	}
	for _, l := range s.groups() {
		if l.trialKey.sweep == sw.ID && l.lasting() < int(sw.Members.Min) {
			if c, ok := s.changeOf(sw, l); ok && c.lack > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// replace looks for a slot for the first member that a sweep's runs lack.
func (m *matching) replace(c *candidate) {
	r := c.missing[0]
	if len(r.add) == 0 {
		m.changes = append(m.changes, r)
	}
	if w := m.joiner(r, func(*waiter) bool { return true }); w != nil {
		w.use = taken
		r.add = append(r.add, w)
		if r.lack--; r.lack > 0 {
			return
		}
	} else {
		m.short = append(m.short, want{c, r})
	}
	c.missing = c.missing[1:]
	c.running++ // see candidates
}

// joiner is a free slot that may join a group: of its kind, not in it, and at best on
// a worker that has members already.
func (m *matching) joiner(c *change, which func(*waiter) bool) (best *waiter) {
	near := false
	for _, w := range m.waiters {
		if w.use != free || !which(w) || !m.joins(c, w) {
			continue
		}
		there := slices.ContainsFunc(c.holders, func(h *holder) bool { return h.worker == w.Worker })
		if best == nil || there && !near {
			best, near = w, there
		}
	}
	return best
}

// joins reports whether a slot may join a group.
func (s *Scheduler) joins(c *change, w *waiter) bool {
	if !s.suits(w, c.sweep) {
		return false
	}
	if kind, ok := s.kind(w.Worker, w.Name); !ok || kind != c.kind {
		return false
	}
	if slices.ContainsFunc(c.holders, func(h *holder) bool { return h.worker == w.Worker && h.slot == w.Name }) ||
		slices.ContainsFunc(c.add, func(o *waiter) bool { return o.place() == w.place() }) {
		return false
	}
	for _, o := range s.promised { // it may be in a change that is on its way
		if o.place() == w.place() {
			return false
		}
	}
	if c.token == 0 {
		return true // it begins
	}
	runs := c.sweep.Trial(c.trial).Runs
	return s.now.UnixMilli() >= rejoins(runs[len(runs)-1].Group, w.place())
}

// rejoins is when a slot may have another member of a run, in ms: one that fails
// there again and again costs the others a step each time. One that was killed or
// lost may soon, for that is seldom the slot's doing.
func rejoins(g *trial.RunGroup, at place) int64 {
	const minute = int64(time.Minute / time.Millisecond)
	var pause, again int64
	for _, e := range g.Ended {
		if e.Worker != at.worker || e.Slot != at.slot {
			continue
		}
		first, most := int64(10_000), 10*minute
		switch e.Exit {
		case trial.ExitFinished, trial.ExitStopped, trial.ExitPaused, trial.ExitReleased:
			continue
		case trial.ExitKilled, trial.ExitLost:
			first, most = 250, 2000
		}
		if again > 0 && e.TimeMS > again+minute {
			pause = 0
		}
		pause = min(max(2*pause, first), most)
		again = e.TimeMS + pause
	}
	return again
}

// grow gives the slots that are left to groups below their greatest number of members:
// to those of the highest priority, then to the smallest. A group that begins takes
// what is free; one that runs a slot that has waited for a while.
func (m *matching) grow() {
	type target struct {
		*change
		begins int // its place in pairs; -1 = it runs
		size   int
	}
	var targets []*target
	for i := range m.pairs {
		p := &m.pairs[i]
		if p.sweep.Members.Group() {
			c := &change{lease: &lease{trialKey: trialKey{p.sweep.ID, p.trial}}, sweep: p.sweep, add: p.ws}
			c.kind, _ = m.kind(p.ws[0].Worker, p.ws[0].Name)
			targets = append(targets, &target{c, i, len(p.ws)})
		}
	}
	if slices.ContainsFunc(m.waiters, func(w *waiter) bool { return w.use == free && m.idles(w) }) {
		for _, l := range m.groups() {
			sw, ok := m.view.Sweep(l.trialKey.sweep)
			if !ok || sw.Status != trial.SweepRunning || sw.Overdue(m.now.UnixMilli()) || slices.ContainsFunc(m.changes, func(c *change) bool { return c.lease == l }) {
				continue
			}
			if c, ok := m.changeOf(sw, l); ok {
				targets = append(targets, &target{c, -1, len(l.holders) + l.joining})
			}
		}
	}
	for len(targets) > 0 {
		slices.SortStableFunc(targets, func(a, b *target) int {
			return cmp.Or(cmp.Compare(b.sweep.Priority, a.sweep.Priority), cmp.Compare(a.size, b.size))
		})
		t := targets[0]
		var w *waiter
		if t.size < int(t.sweep.Members.Max) {
			w = m.joiner(t.change, func(w *waiter) bool {
				if t.begins >= 0 {
					return m.may(w, t.sweep, t.trial)
				}
				wait := growAfter
				if m.now.Sub(t.shrunk) < regrowAfter {
					wait = regrowAfter
				}
				return m.idles(w) && m.now.Sub(w.since) >= wait
			})
		}
		if w == nil {
			targets = targets[1:]
			continue
		}
		w.use = taken
		t.size++
		if t.begins >= 0 {
			t.add = append(t.add, w)
			m.pairs[t.begins].ws = t.add
			continue
		}
		if len(t.add) == 0 {
			m.changes = append(m.changes, t.change)
		}
		t.add = append(t.add, w)
	}
}

// idles reports whether a slot that asks does nothing meanwhile: one asks for its next
// trial shortly before its present one ends.
func (m *matching) idles(w *waiter) bool {
	if m.busy == nil {
		m.busy = map[place]bool{}
		for _, l := range m.leases {
			for _, h := range l.holders {
				m.busy[place{h.worker, h.slot}] = true
			}
		}
	}
	return !m.busy[w.place()]
}
