package assign

import (
	"cmp"
	"math"
	"slices"

	"atelier/coordinator/state"
)

// spare is a member that could leave, or is leaving: its slot as if it waited.
type spare struct {
	*holder
	w    *waiter
	kind string
	from *change
	used bool
}

// spares are the slots that will be free soon or could be, in the order in which they
// are to: those whose run is over and that are about to ask, members that leave
// already, then members above the least number, of the lowest priority first, of the
// youngest run, with the highest id.
func (m *matching) spares() (list []*spare) {
	for _, l := range m.groups() {
		sw, ok := m.view.Sweep(l.trialKey.sweep)
		if !ok || l.ending || m.now.Before(l.again) {
			continue
		}
		from := &change{lease: l, sweep: sw}
		extra := l.lasting() - l.joining - int(sw.Members.Min)
		for _, h := range slices.Backward(l.holders) {
			kind, known := m.kind(h.worker, h.slot)
			if !known || !h.lasting() || !h.leaving && extra <= 0 {
				continue
			}
			if !h.leaving {
				extra--
			}
			told := m.workers[h.worker].told
			list = append(list, &spare{holder: h, kind: kind, from: from, w: &waiter{Slot: Slot{Worker: h.worker, Incarnation: h.incarnation, Request: "-", Name: h.slot,
				Trainers: told.Trainers, GroupTrainers: told.GroupTrainers, Labels: told.Labels, Folder: h.folder}}})
		}
	}
	for at := range m.coming {
		w, busy := m.workers[at.worker], false
		kind, known := m.kind(at.worker, at.slot)
		for _, l := range m.leases {
			busy = busy || slices.ContainsFunc(l.holders, func(h *holder) bool { return h.worker == at.worker && h.slot == at.slot })
		}
		if known && !busy {
			list = append(list, &spare{holder: &holder{lease: &lease{}, request: request{worker: at.worker}, slot: at.slot, leaving: true}, kind: kind, from: &change{sweep: &state.Sweep{Priority: math.MinInt32}},
				w: &waiter{Slot: Slot{Worker: at.worker, Name: at.slot, Request: "-", Trainers: w.told.Trainers, GroupTrainers: w.told.GroupTrainers, Labels: w.told.Labels}}})
		}
	}
	slices.SortStableFunc(list, func(a, b *spare) int {
		if a.leaving != b.leaving {
			return map[bool]int{true: -1, false: 1}[a.leaving]
		}
		return cmp.Or(cmp.Compare(a.from.sweep.Priority, b.from.sweep.Priority), cmp.Compare(b.token, a.token), cmp.Compare(b.member, a.member),
			cmp.Compare(a.worker, b.worker), cmp.Compare(a.slot, b.slot))
	})
	return list
}

// reclaim asks members to leave where trials, or members that runs lack, could start
// with their slots, no more than it takes. Slots that are free already and will be
// used then are not for groups to grow.
func (m *matching) reclaim() {
	m.drain()
	if len(m.short) == 0 {
		return
	}
	pool := m.spares()
	for _, x := range m.short {
		if x.missing != nil {
			m.claim(x.sweep, 1, nil, pool, func(w *waiter) bool { return m.joins(x.missing, w) })
			continue
		}
		room := x.room
		for _, n := range x.waiting {
			if room == 0 {
				break
			}
			need, real := 1, []*waiter(nil)
			if x.sweep.Members.Group() {
				need, real = int(x.sweep.Members.Min), m.waiters
			}
			if !m.claim(x.sweep, need, real, pool, func(w *waiter) bool { return m.suits(w, x.sweep) && m.may(w, x.sweep, n) }) {
				break
			}
			room--
		}
	}
}

// claim sets slots apart for a trial that needs so many of one kind: free ones, then
// spare ones, whose members are asked to leave. It does nothing and returns false where
// they are too few.
func (m *matching) claim(sw *state.Sweep, need int, waiters []*waiter, pool []*spare, suits func(*waiter) bool) bool {
	var n counts
	real := map[string][]*waiter{}
	seen := map[place]bool{}
	for _, w := range waiters {
		if kind, ok := m.kind(w.Worker, w.Name); ok && (w.use == free || w.use == kept && w.keeper == sw.ID) && !seen[w.place()] && suits(w) {
			seen[w.place()] = true
			n.add(kind, 1)
			real[kind] = append(real[kind], w)
		}
	}
	lent := map[string][]*spare{}
	for _, s := range pool {
		if !s.used && s.from.sweep.Priority <= sw.Priority && !seen[s.w.place()] && suits(s.w) {
			n.add(s.kind, 1)
			lent[s.kind] = append(lent[s.kind], s)
		}
	}
	for _, k := range n {
		group := sw.Members.Group()
		if k.n < need && (group || n.most() < need) {
			continue
		}
		left := need
		for _, w := range real[k.kind] {
			if left > 0 {
				w.use = taken
				left--
			}
		}
		for _, s := range lent[k.kind] {
			if left == 0 {
				break
			}
			s.used = true
			left--
			if !s.leaving {
				m.leave(s.from, s.holder)
			}
		}
		return true
	}
	return false
}

// leave asks a member to leave.
func (m *matching) leave(c *change, h *holder) {
	if len(c.leave) == 0 {
		m.changes = append(m.changes, c)
	}
	h.leaving = true
	c.leave = append(c.leave, h.member)
	c.shrunk = m.now
}

// drain asks the members of drained workers to leave where others stay that are at
// work: newcomers alone could not continue the run.
func (m *matching) drain() {
	for _, l := range m.groups() {
		sw, ok := m.view.Sweep(l.trialKey.sweep)
		if !ok || l.ending || m.now.Before(l.again) {
			continue
		}
		c := &change{lease: l, sweep: sw}
		g := sw.Trial(l.trial).Group()
		if g == nil || g.View() == nil {
			continue
		}
		stays := func(h *holder) bool {
			return h.lasting() && !h.leaving && !m.view.Drained(h.worker) && slices.Contains(g.View().Members, h.member)
		}
		if !slices.ContainsFunc(l.holders, stays) {
			continue
		}
		for _, h := range l.holders {
			if h.lasting() && !h.leaving && m.view.Drained(h.worker) {
				m.leave(c, h)
			}
		}
	}
}
