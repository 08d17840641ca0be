package search

import (
	"atelier/common/space"
)

// memory turns the ledger into observations: first those of the warm start,
// then one for every trial, in order. It reads again only what has changed.
type memory struct {
	problem Problem
	warm    int           // observations that are not of this sweep
	seen    []observation // warm ones, then trials; a trial's may be uninformative
	points  []space.Point // of trials, as last read
}

// newMemory takes over what of a warm start lies in the space and says something.
func newMemory(p Problem) *memory {
	m := &memory{problem: p}
	for i := range p.Warm {
		t := &p.Warm[i]
		if p.Space.Check(t.Point) != nil {
			continue
		}
		if o := p.observe(t); o.result == scored || o.result == unscored {
			m.place(&o, t.Point)
			m.seen = append(m.seen, o)
		}
	}
	m.warm = len(m.seen)
	return m
}

// place writes where an observation stands.
func (m *memory) place(o *observation, p space.Point) {
	o.unit = m.problem.Space.Unit(p)
	if m.problem.Space.Conditional() {
		o.active = make([]bool, len(p))
		for j := range p {
			o.active[j] = !p[j].IsAbsent()
		}
	}
}

// follow brings the memory to the ledger and returns all it holds.
func (m *memory) follow(l *ledger) []observation {
	if l.len() < len(m.points) {
		m.points = m.points[:l.len()]
		m.seen = m.seen[:m.warm+l.len()]
	}
	for i := 0; i < l.len(); i++ {
		o := l.observe(i, &m.problem)
		if i < len(m.points) {
			kept := &m.seen[m.warm+i]
			if same(m.points[i], l.points[i]) {
				o.unit, o.active = kept.unit, kept.active
			}
			*kept, m.points[i] = o, l.points[i]
		} else {
			m.seen, m.points = append(m.seen, o), append(m.points, l.points[i])
		}
		if kept := &m.seen[m.warm+i]; kept.unit == nil && l.valid[i] {
			m.place(kept, l.points[i])
		}
	}
	return m.seen
}

// split separates ended observations from open ones.
func split(seen []observation) (done, open []observation) {
	for i := range seen {
		switch seen[i].result {
		case scored, unscored:
			done = append(done, seen[i])
		case pending:
			open = append(open, seen[i])
		}
	}
	return done, open
}

// informed reports whether observations differ: without that there is nothing to
// learn from.
func informed(seen []observation) bool {
	var first *observation
	failed := false
	for i := range seen {
		switch o := &seen[i]; o.result {
		case unscored:
			failed = true
		case scored:
			if first == nil {
				first = o
			} else if o.value != first.value || !alike(o.values, first.values) || !alike(o.over, first.over) {
				return true
			}
		}
	}
	return failed && first != nil
}
