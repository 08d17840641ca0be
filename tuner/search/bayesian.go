package search

import (
	"context"

	"atelier/common/space"
)

// bayesian is the strategy of the bayesian algorithms: the first points come
// from the design, and once enough has ended an algorithm proposes.
type bayesian struct {
	problem   Problem
	design    *design
	startup   int // ended or open trials that come from the design first
	algorithm algorithm
	memory    *memory
}

// algorithm proposes the point of a trial after startup, in the unit cube.
type algorithm interface {
	suggest(number int64, seen []observation) ([]float64, error)
}

// newBayesian has the design propose until startup observations are there.
func newBayesian(p Problem, startup int, a algorithm) *bayesian {
	return &bayesian{problem: p, design: newDesign(p.Space, p.Seed), startup: startup, algorithm: a, memory: newMemory(p)}
}

// next goes on with the design for as long as there is too little to learn from: half of the
// startup has to have ended, and not all alike.
func (b *bayesian) next(ctx context.Context, l *ledger) (space.Point, error) {
	seen := b.memory.follow(l)
	if l.len()+b.memory.warm < b.startup || !informed(seen) || answers(seen) < b.startup/2 {
		return b.design.next(ctx, l)
	}
	u, err := b.algorithm.suggest(l.number(), seen)
	if err != nil {
		return nil, err
	}
	return b.problem.Space.FromUnit(u), nil
}

// answers counts observations that have ended.
func answers(seen []observation) (n int) {
	for i := range seen {
		if seen[i].result == scored || seen[i].result == unscored {
			n++
		}
	}
	return n
}
