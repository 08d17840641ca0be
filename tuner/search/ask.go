package search

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"atelier/common/space"
)

// strategy is the part in which methods differ: it proposes the point of the
// trial that follows the ledger's last. It need not avoid points that were
// tried before. A nil point without an error means: wait for results.
type strategy interface {
	next(ctx context.Context, l *ledger) (space.Point, error)
}

// asker makes a Method of a strategy. It proposes one point at a time, each
// with the ones before it on the ledger as open trials, so that asking once for
// two is asking twice for one; it keeps the budget and never repeats a point
// while an untried one is left.
type asker struct {
	problem  Problem
	ledger   *ledger
	strategy strategy
}

// newAsker begins with the points of the warm start as known.
func newAsker(p Problem, s strategy) *asker {
	l := newLedger(p.Space)
	l.warmUp(p.Warm)
	return &asker{problem: p, ledger: l, strategy: s}
}

// Propose implements Method. It stops short at the budget, at the end of the space and at ctx.
func (a *asker) Propose(ctx context.Context, history []Trial, n int) (Proposal, error) {
	l := a.ledger
	if err := l.follow(history); err != nil {
		return Proposal{}, err
	}
	var out Proposal
	for len(out.Points) < n && !l.exhausted() {
		if a.problem.Budget > 0 && int64(l.len()) >= a.problem.Budget {
			break
		}
		if err := ctx.Err(); err != nil {
			return Proposal{}, err
		}
		p, err := a.strategy.next(ctx, l)
		if err != nil {
			return Proposal{}, fmt.Errorf("propose trial %d: %w", l.number(), err)
		}
		if p == nil {
			break
		}
		if l.seen(p) || l.crowded(p) {
			p = a.distinct(p)
		}
		l.add(p)
		out.Points = append(out.Points, p)
	}
	out.Exhausted = l.exhausted()
	return out, nil
}

const (
	nearTries = 32 // changes of one axis
	farTries  = 64 // whole new points
)

// distinct looks for an untried point: next to p first, anywhere else after,
// and in a small space that is nearly used up by walking over what is left.
func (a *asker) distinct(p space.Point) space.Point {
	l := a.ledger
	rng := stream(a.problem.Seed, l.number(), saltDistinct)
	for try := 0; try < nearTries; try++ {
		if q := neighbour(a.problem.Space, p, rng); !l.seen(q) && !l.crowded(q) {
			return q
		}
	}
	for try := 0; try < farTries; try++ {
		if q := uniform(a.problem.Space, rng); !l.seen(q) && !l.crowded(q) {
			return q
		}
	}
	if l.enum != nil && l.enum.Size() < math.MaxUint64 {
		// Of as many places as there are points on the ledger, and one more, one
		// is free.
		size := l.enum.Size()
		for k, at := uint64(0), rng.Uint64N(size); k < size && k <= uint64(l.len()+l.warm()); k++ {
			if q := l.enum.At((at + k) % size); !l.seen(q) {
				return q
			}
		}
		for k, at := uint64(0), rng.Uint64N(size); k < size && k <= uint64(l.len()); k++ {
			if q := l.enum.At((at + k) % size); !l.tried(q) {
				return q
			}
		}
	}
	return p // a continuous space in which 96 draws stood on points tried before: it cannot be
}

// uniform draws a point from the unit cube.
func uniform(s *space.Space, rng *rand.Rand) space.Point {
	u := make([]float64, len(s.Params))
	for i := range u {
		u[i] = rng.Float64()
	}
	return s.FromUnit(u)
}

// neighbour changes one active axis of p: a categorical one to any choice, a
// finite one by a cell or two, a continuous one by a little.
func neighbour(s *space.Space, p space.Point, rng *rand.Rand) space.Point {
	q := s.Canonical(p)
	active := make([]int, 0, len(q))
	for i, v := range q {
		if n, finite := s.Params[i].Cells(); !v.IsAbsent() && (!finite || n > 1) {
			active = append(active, i)
		}
	}
	if len(active) == 0 {
		return q
	}
	u := s.Unit(q)
	i := active[rng.IntN(len(active))]
	a := &s.Params[i]
	n, finite := a.Cells()
	switch {
	case a.Kind == space.KindCategorical:
		u[i] = rng.Float64()
	case finite:
		at, _ := a.Index(q[i])
		step := int64(1 + rng.IntN(2))
		if rng.IntN(2) == 0 {
			step = -step
		}
		to := max(0, min(int64(at)+step, int64(n)-1))
		u[i] = a.ToUnit(a.At(uint64(to)))
	default:
		u[i] = reflect(u[i] + 0.05*rng.NormFloat64())
	}
	return s.FromUnit(u)
}

// reflect folds u back into [0, 1].
func reflect(u float64) float64 {
	for i := 0; i < 8; i++ {
		switch {
		case u < 0:
			u = -u
		case u > 1:
			u = 2 - u
		default:
			return u
		}
	}
	return 0.5
}
