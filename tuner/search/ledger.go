package search

import (
	"fmt"
	"math"

	"atelier/common/space"
)

// maxRanked is the largest space, in points, whose tried points are kept as a
// bit each; larger ones keep a hash entry a trial.
const maxRanked = 1 << 24

// ledger is the history as methods see it: the trials that were given and the
// points proposed since, within the same ask. It remembers which points were
// tried, and follows a growing history without reading it all again.
type ledger struct {
	space  *space.Space
	enum   *space.Enumeration // nil for infinite spaces
	trials []Trial            // as given, not copied
	added  []space.Point      // proposed in this ask
	points []space.Point      // of trials and added, as last followed
	valid  []bool             // whether the point belongs to the space

	bits     []uint64       // by rank, of small finite spaces
	keys     map[string]int // how many trials hold the key; else
	distinct uint64         // distinct points of the space among points
	twice    map[uint64]int // rank to further copies, of small finite spaces
	drops    int            // how often a point was taken back

	before map[string]bool // keys of the warm start's points; looked up only
}

// newLedger keeps a bit a point of a small finite space, else the points' keys.
func newLedger(s *space.Space) *ledger {
	l := &ledger{space: s}
	if e, err := s.Enumerate(); err == nil {
		l.enum = e
	}
	if l.ranked() {
		l.bits = make([]uint64, (l.enum.Size()+63)/64)
		l.twice = map[uint64]int{}
	} else {
		l.keys = map[string]int{}
	}
	return l
}

// ranked reports whether points are known by their number.
func (l *ledger) ranked() bool { return l.enum != nil && l.enum.Size() <= maxRanked }

// follow takes a history over. What it shares with the last one is kept.
func (l *ledger) follow(history []Trial) error {
	keep := 0
	for i := range history {
		if history[i].Number != int64(i)+1 {
			return fmt.Errorf("search history: trial %d is at place %d; histories are dense and in order", history[i].Number, i+1)
		}
		if keep == i && i < len(l.points) && same(l.points[i], history[i].Point) {
			l.points[i] = history[i].Point // by pointer next time
			keep++
		}
	}
	for i := len(l.points) - 1; i >= keep; i-- {
		l.drop(l.points[i], l.valid[i])
	}
	l.points, l.valid = l.points[:keep], l.valid[:keep]
	l.trials, l.added = history, l.added[:0]
	for i := keep; i < len(history); i++ {
		l.push(history[i].Point)
	}
	return nil
}

// same reports whether two points are equal, at the cost of a pointer where the history is the one
// seen before.
func same(p, q space.Point) bool {
	if len(p) == len(q) && len(p) > 0 && &p[0] == &q[0] {
		return true
	}
	return p.Equal(q)
}

// add records a point proposed in this ask.
func (l *ledger) add(p space.Point) {
	l.added = append(l.added, p)
	l.push(p)
}

// push takes a point in. One that does not belong to the space (of a spec that was another) has a
// place and no key.
func (l *ledger) push(p space.Point) {
	valid := l.space.Check(p) == nil
	l.points = append(l.points, p)
	l.valid = append(l.valid, valid)
	if !valid {
		return
	}
	if l.ranked() {
		r, _ := l.enum.Rank(p)
		if l.bits[r/64]&(1<<(r%64)) != 0 {
			l.twice[r]++
			return
		}
		l.bits[r/64] |= 1 << (r % 64)
		l.distinct++
		return
	}
	key := l.space.Key(p)
	if l.keys[key]++; l.keys[key] == 1 {
		l.distinct++
	}
}

// drop takes the latest point out again.
func (l *ledger) drop(p space.Point, valid bool) {
	l.drops++
	if !valid {
		return
	}
	if l.ranked() {
		r, _ := l.enum.Rank(p)
		if l.twice[r] > 0 {
			if l.twice[r]--; l.twice[r] == 0 {
				delete(l.twice, r)
			}
			return
		}
		l.bits[r/64] &^= 1 << (r % 64)
		l.distinct--
		return
	}
	key := l.space.Key(p)
	if l.keys[key]--; l.keys[key] == 0 {
		delete(l.keys, key)
		l.distinct--
	}
}

// warmUp takes the points of another sweep's history over.
func (l *ledger) warmUp(history []Trial) {
	for i := range history {
		if t := &history[i]; t.HasValue && l.space.Check(t.Point) == nil {
			if l.before == nil {
				l.before = map[string]bool{}
			}
			l.before[l.space.Key(t.Point)] = true
		}
	}
}

// warm counts distinct points of the warm start.
func (l *ledger) warm() int { return len(l.before) }

// seen reports whether p has been proposed before, here or in the warm start.
func (l *ledger) seen(p space.Point) bool {
	return l.tried(p) || l.before != nil && l.before[l.space.Key(p)]
}

// tried reports whether p has been proposed before in this sweep.
func (l *ledger) tried(p space.Point) bool {
	if l.ranked() {
		r, ok := l.enum.Rank(p)
		return ok && l.seenRank(r)
	}
	return l.keys[l.space.Key(p)] > 0
}

// crowded reports whether p, of a space with continuous axes, stands all but on
// the point of a trial that is still open: a result there would teach nothing.
func (l *ledger) crowded(p space.Point) bool {
	if l.enum != nil {
		return false
	}
	var u []float64
	for i := l.len() - 1; i >= 0; i-- {
		if i < len(l.trials) && l.trials[i].Status != Open || !l.valid[i] {
			continue
		}
		if u == nil {
			u = l.space.Unit(p)
		}
		if near(u, l.space.Unit(l.points[i]), 1e-8) {
			return true
		}
	}
	return false
}

// near reports whether two points of the unit cube differ by no more than within
// on any axis.
func near(a, b []float64, within float64) bool {
	for j := range a {
		if math.Abs(a[j]-b[j]) > within {
			return false
		}
	}
	return true
}

// seenRank reports whether the point of that number was proposed.
func (l *ledger) seenRank(r uint64) bool { return l.bits[r/64]&(1<<(r%64)) != 0 }

// exhausted reports whether every point of the space has been proposed.
func (l *ledger) exhausted() bool { return l.enum != nil && l.distinct >= l.enum.Size() }

// len counts trials and points proposed in this ask.
func (l *ledger) len() int { return len(l.points) }

// number is that of the next trial.
func (l *ledger) number() int64 { return int64(len(l.points)) + 1 }

// resultKind is what a trial tells a method.
type resultKind uint8

const (
	pending       resultKind = iota // no result yet
	scored                          // has finite values
	unscored                        // diverged or failed: worse than anything scored
	uninformative                   // says nothing: cancelled, or not of this space
)

// observation is a trial as methods see it.
type observation struct {
	unit   []float64 // in the unit cube; inactive parameters at 0.5; nil of a foreign point
	active []bool    // which parameters are active; nil where all are
	value  float64   // of the first objective, to be minimised; meaningful when scored
	values []float64 // of every objective, to be minimised; nil when there is one
	over   []float64 // by how much each constraint is broken; NaN = not reported
	result resultKind
}

// goals are the values of all objectives.
func (o *observation) goals() []float64 {
	if o.values != nil {
		return o.values
	}
	return []float64{o.value}
}

// same reports whether two observations of one point say the same.
func (o *observation) same(p *observation) bool {
	return o.result == p.result && o.value == p.value && alike(o.values, p.values) && alike(o.over, p.over)
}

// alike reports whether two lists are equal, NaN being like NaN.
func alike(a, b []float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !(math.IsNaN(a[i]) && math.IsNaN(b[i])) {
			return false
		}
	}
	return true
}

// observe reads entry i, but for its place in the unit cube.
func (l *ledger) observe(i int, p *Problem) observation {
	switch {
	case !l.valid[i]:
		return observation{result: uninformative}
	case i >= len(l.trials):
		return observation{result: pending}
	}
	return p.observe(&l.trials[i])
}

// observe reads what a trial says: its values, turned so that smaller is
// better, and how its constraints stand.
func (p *Problem) observe(t *Trial) observation {
	valueless := unscored
	switch t.Status {
	case Open:
		return observation{result: pending}
	case Complete:
	case Cancelled:
		valueless = uninformative
	default:
		return observation{result: unscored}
	}
	var o observation
	if !t.HasValue {
		return observation{result: valueless}
	}
	for k := 0; k < p.goals(); k++ {
		v := t.Value
		if len(p.Objectives) > 1 {
			if v = math.NaN(); k < len(t.Values) {
				v = t.Values[k]
			}
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return observation{result: valueless}
		}
		if p.maximize(k) {
			v = -v
		}
		if k == 0 {
			o.value = v
		}
		if len(p.Objectives) > 1 {
			o.values = append(o.values, v)
		}
	}
	for k := range p.Constraints {
		m := math.NaN()
		if k < len(t.Constraints) {
			m = t.Constraints[k]
		}
		o.over = append(o.over, p.Constraints[k].Excess(m))
	}
	o.result = scored
	return o
}
