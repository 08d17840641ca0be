package search

import (
	"context"
	"errors"
	"math"
	"math/bits"

	"atelier/common/space"
)

// grid proposes every point of a finite space exactly once. Point k of its
// order is computed from k alone: nothing is listed. The order strides through
// the space by near the golden ratio of its size, so that a grid that is cut
// short has looked everywhere; it is the same for every seed.
type grid struct {
	enum   *space.Enumeration
	stride uint64
	// Every position before cursor was tried, as long as the ledger takes
	// nothing back.
	cursor uint64
	drops  int
}

// newGrid refuses a grid whose points cannot be numbered.
func newGrid(s *space.Space) (*grid, error) {
	e, err := s.Enumerate()
	if err != nil {
		return nil, err
	}
	if e.Size() == math.MaxUint64 {
		return nil, errors.New("the grid has more points than can be numbered (2^64); give fewer values")
	}
	return &grid{enum: e, stride: stride(e.Size())}, nil
}

// stride returns a number near size/φ that shares no factor with size, so that
// k*stride mod size runs through every point.
func stride(size uint64) uint64 {
	if size < 3 {
		return 1
	}
	from := uint64(math.Round(float64(size) / math.Phi))
	for d := uint64(0); ; d++ {
		if gcd(from+d, size) == 1 {
			return from + d
		}
		if d < from && gcd(from-d, size) == 1 {
			return from - d
		}
	}
}

// gcd is the greatest common divisor.
func gcd(a, b uint64) uint64 {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// rank is the position in the enumeration of the k-th point of the order.
func (g *grid) rank(k uint64) uint64 {
	high, low := bits.Mul64(k, g.stride)
	_, r := bits.Div64(high%g.enum.Size(), low, g.enum.Size())
	return r
}

// next proposes the first point of the order that the ledger does not hold. In
// a sweep of its own that is point number-1; points that came from elsewhere
// are passed over.
func (g *grid) next(_ context.Context, l *ledger) (space.Point, error) {
	if l.drops != g.drops {
		g.cursor, g.drops = 0, l.drops
	}
	for ; g.cursor < g.enum.Size(); g.cursor++ {
		if p := g.enum.At(g.rank(g.cursor)); !l.tried(p) {
			return p, nil
		}
	}
	return nil, nil
}
