package search

import (
	"context"

	"atelier/common/space"
)

// random draws each trial from its own stream, uniform in the unit cube.
type random struct {
	space *space.Space
	seed  uint64
}

// next implements strategy.
func (r random) next(_ context.Context, l *ledger) (space.Point, error) {
	return uniform(r.space, stream(r.seed, l.number(), saltPoint)), nil
}
