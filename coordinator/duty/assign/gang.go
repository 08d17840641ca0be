package assign

import (
	"cmp"
	"slices"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// A gang is the members that a run is granted with: all at once or none. Nothing is
// held for a part of one, so gangs cannot wait for each other. What keeps a large
// one from waiting for ever is in before (a sweep that has waited longer than
// patience comes before those of its priority that wait less) and in serveGroup (from
// then on the slots that become free are kept for it).

const (
	// patience is how long smaller trials may take slots while a gang waits for
	// enough of them.
	patience = 30 * time.Second
	// inRow is how many gangs have slots one after the other without giving them to
	// smaller trials whose turn it is: emptying the slots for one costs idle time.
	inRow = 4
	// gatherFor is how long slots that a gang left are kept together for the next:
	// they ask within moments of each other.
	gatherFor = 2 * time.Second
)

// place is a slot of a worker, whichever start of it.
type place struct{ worker, slot string }

func (w *Slot) place() place { return place{w.Worker, w.Name} }

// counts are numbers by kind of slot, in order of first appearance.
type counts []struct {
	kind string
	n    int
}

func (c *counts) add(kind string, n int) {
	for i := range *c {
		if (*c)[i].kind == kind {
			(*c)[i].n += n
			return
		}
	}
	*c = append(*c, struct {
		kind string
		n    int
	}{kind, n})
}

func (c counts) of(kind string) int {
	for _, k := range c {
		if k.kind == kind {
			return k.n
		}
	}
	return 0
}

func (c counts) most() (most int) {
	for _, k := range c {
		most = max(most, k.n)
	}
	return most
}

// kind is what a slot is (gpu, cpu), as its worker's heartbeats tell; a group has
// slots of one kind. ok is false where the worker is not heard of, or has no address
// that others could reach it at.
func (s *Scheduler) kind(worker, slot string) (kind string, ok bool) {
	w := s.workers[worker]
	if w == nil || s.now.Sub(w.seen) > s.ttl || w.told.Address == "" {
		return "", false
	}
	for i := range w.told.Slots {
		if w.told.Slots[i].Name == slot {
			return w.told.Slots[i].Kind, true
		}
	}
	return "", false
}

// might reports whether a worker's slots, busy or not, could have members of a sweep's
// groups.
func (s *Scheduler) might(name string, sw *state.Sweep) bool {
	w := s.workers[name]
	probe := &waiter{Slot: Slot{Worker: name, Trainers: w.told.Trainers, GroupTrainers: w.told.GroupTrainers, Labels: w.told.Labels}}
	return s.now.Sub(w.seen) <= s.ttl && !w.told.Draining && w.told.Address != "" && s.suits(probe, sw)
}

// rivals reports whether two sweeps' groups could have members on the same worker.
func (s *Scheduler) rivals(a, b *state.Sweep) bool {
	for name := range s.workers {
		if s.might(name, a) && s.might(name, b) {
			return true
		}
	}
	return false
}

// exist counts the slots that a sweep's groups could have members on, busy or not.
func (s *Scheduler) exist(sw *state.Sweep) (n counts) {
	for _, name := range s.names() {
		if !s.might(name, sw) {
			continue
		}
		for _, slot := range s.workers[name].told.Slots {
			if slot.State != "quarantined" {
				n.add(slot.Kind, 1)
			}
		}
	}
	return n
}

// names are the workers heard of, sorted.
func (s *Scheduler) names() []string {
	names := make([]string, 0, len(s.workers))
	for name := range s.workers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// serveGroup places the next trial of a sweep on its least number of slots. One that
// finds too few is passed over; after patience what there is is kept for it, unless
// slots are kept for another that could have the same: they would keep each other's.
func (m *matching) serveGroup(c *candidate) (more bool) {
	need := int(c.sweep.Members.Min)
	for at, n := range c.waiting {
		ws := nearest(m.candidateSlots(c.sweep, n), need)
		if ws == nil {
			continue
		}
		p := pair{ws, c.sweep, n, 1}
		if c.block != nil {
			p.inRow = c.block.inRow
			m.spend(c.block)
			c.block = nil
		}
		for _, w := range ws {
			w.use = taken
		}
		m.pairs = append(m.pairs, p)
		return c.served(at)
	}
	switch {
	case c.block != nil:
		m.keep(c.sweep, c.waiting[0])
	case !c.since.IsZero() && need > 1 && !slices.ContainsFunc(m.keepers, func(sw *state.Sweep) bool { return m.rivals(sw, c.sweep) }):
		if m.keep(c.sweep, c.waiting[0]) {
			m.keepers = append(m.keepers, c.sweep)
		}
	}
	m.short = append(m.short, want{candidate: c})
	return false
}

// keep keeps the slots that a trial's group could have, of the kind of which it lacks
// fewest, and reports whether enough exist for it to start one day.
func (m *matching) keep(sw *state.Sweep, number int64) bool {
	exist, need := m.exist(sw), int(sw.Members.Min)
	var best []*waiter
	could := false
	for _, ws := range m.candidateSlots(sw, number) {
		kind, _ := m.kind(ws[0].Worker, ws[0].Name)
		if exist.of(kind) >= need && len(ws) > len(best) {
			best = ws
		}
	}
	for _, k := range exist {
		could = could || k.n >= need
	}
	for _, w := range best {
		w.use, w.keeper = kept, sw.ID
	}
	return could
}

// candidateSlots are the free waiters that could be members of a trial's group, one a
// slot, by kind, in order of arrival.
func (m *matching) candidateSlots(sw *state.Sweep, number int64) (kinds [][]*waiter) {
	var order counts
	seen := map[place]bool{}
	for _, w := range m.waiters {
		if w.use != free || seen[w.place()] || !m.suits(w, sw) || !m.may(w, sw, number) {
			continue
		}
		kind, ok := m.kind(w.Worker, w.Name)
		if !ok {
			continue
		}
		seen[w.place()] = true
		order.add(kind, 1)
		at := slices.IndexFunc(order, func(k struct {
			kind string
			n    int
		}) bool {
			return k.kind == kind
		})
		if at == len(kinds) {
			kinds = append(kinds, nil)
		}
		kinds[at] = append(kinds[at], w)
	}
	return kinds
}

// nearest chooses so many slots of one kind, on few workers: links within a machine
// are faster. nil where no kind has enough.
func nearest(kinds [][]*waiter, need int) []*waiter {
	for _, ws := range kinds {
		if len(ws) < need {
			continue
		}
		var workers [][]*waiter // in order of arrival
		for _, w := range ws {
			at := slices.IndexFunc(workers, func(of []*waiter) bool { return of[0].Worker == w.Worker })
			if at < 0 {
				at = len(workers)
				workers = append(workers, nil)
			}
			workers[at] = append(workers[at], w)
		}
		var out []*waiter
		for len(out) < need {
			left := need - len(out)
			slices.SortStableFunc(workers, func(a, b []*waiter) int {
				if enough := len(a) >= left; enough != (len(b) >= left) {
					return map[bool]int{true: -1, false: 1}[enough]
				} else if enough {
					return cmp.Compare(len(a), len(b)) // the tightest
				}
				return cmp.Compare(len(b), len(a))
			})
			n := min(left, len(workers[0]))
			out = append(out, workers[0][:n]...)
			workers = workers[1:]
		}
		return out
	}
	return nil
}

// member is a waiter as a member of a run; its id is 0 where the state gives it.
func (w *waiter) member(id int32) trial.GroupMember {
	return trial.GroupMember{ID: id, Worker: w.Worker, Slot: w.Name, Incarnation: w.Incarnation, Request: w.Request, Folder: w.Folder}
}

// groupOf is what a member has to know of its group.
func (s *Scheduler) groupOf(sw *state.Sweep, l *state.Lease, at int) *trial.Group {
	g := &trial.Group{Member: l.Members[at].ID, Members: slices.Clone(l.Members), Min: sw.Members.Min, Max: sw.Members.Max, Shards: sw.Shards,
		Join: l.Members[at].GrantedMS != l.GrantedMS} // see carryChange
	for i := range g.Members {
		if w := s.workers[g.Members[i].Worker]; w != nil {
			g.Members[i].Address = w.told.Address
		}
	}
	return g
}
