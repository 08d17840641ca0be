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

	bits  []uint64       // by rank, of small finite spaces
	keys  map[string]int // how many trials hold the key; else
	tried uint64         // distinct points of the space among points
	twice map[uint64]int // rank to further copies, of small finite spaces
	drops int            // how often a point was taken back
}

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

func (l *ledger) ranked() bool { return l.enum != nil && l.enum.Size() <= maxRanked }

// follow takes a history over. What it shares with the last one is kept.
func (l *ledger) follow(history []Trial) error {
	keep := 0
	for i := range history {
		if history[i].Number != int64(i)+1 {
			return fmt.Errorf("search history: trial %d stands at place %d; histories are dense and in order", history[i].Number, i+1)
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

// same compares points, at the cost of a pointer where the history is the one
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
		l.tried++
		return
	}
	key := l.space.Key(p)
	if l.keys[key]++; l.keys[key] == 1 {
		l.tried++
	}
}

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
		l.tried--
		return
	}
	key := l.space.Key(p)
	if l.keys[key]--; l.keys[key] == 0 {
		delete(l.keys, key)
		l.tried--
	}
}

// seen says whether p has been proposed before.
func (l *ledger) seen(p space.Point) bool {
	if l.ranked() {
		r, ok := l.enum.Rank(p)
		return ok && l.seenRank(r)
	}
	return l.keys[l.space.Key(p)] > 0
}

func (l *ledger) seenRank(r uint64) bool { return l.bits[r/64]&(1<<(r%64)) != 0 }

// exhausted says whether every point of the space has been proposed.
func (l *ledger) exhausted() bool { return l.enum != nil && l.tried >= l.enum.Size() }

// len counts trials and points proposed in this ask.
func (l *ledger) len() int { return len(l.points) }

// number is that of the next trial.
func (l *ledger) number() int64 { return int64(len(l.points)) + 1 }

// outcome is what a trial tells a method.
type outcome uint8

const (
	pending outcome = iota // no result yet
	scored                 // has a finite value
	bad                    // diverged or failed: worse than anything scored
	mute                   // says nothing: cancelled, or not of this space
)

// result reads entry i; value is to be minimised and finite when scored.
func (l *ledger) result(i int, maximize bool) (value float64, o outcome) {
	if !l.valid[i] {
		return 0, mute
	}
	if i >= len(l.trials) {
		return 0, pending
	}
	return l.trials[i].result(maximize)
}

func (t *Trial) result(maximize bool) (value float64, o outcome) {
	number := t.HasValue && !math.IsNaN(t.Value) && !math.IsInf(t.Value, 0)
	value = t.Value
	if maximize {
		value = -value
	}
	switch t.Status {
	case Open:
		return 0, pending
	case Complete:
		if number {
			return value, scored
		}
		return 0, bad
	case Cancelled:
		if number {
			return value, scored
		}
		return 0, mute
	}
	return 0, bad
}
