package search

import (
	"context"

	"github.com/c-bata/goptuna/sobol"

	"atelier/common/space"
)

// maxSobolDim is how many axes goptuna's engine takes; beyond, it panics, though
// its table of direction numbers (new-joe-kuo-6.21201) goes to 21201. More are
// drawn at random. A space of a spec has far fewer (space.Validate).
const maxSobolDim = 21201 - 2

// design is the initial design of a sweep: goptuna's Sobol sequence with a
// digital shift drawn from the seed, so that sweeps differ and every prefix is
// spread evenly.
type design struct {
	space *space.Space
	seed  uint64
	shift []uint32
	drawn [][]float64 // points 1.. of the sequence
	draw  *sobol.Engine
}

// newDesign draws the shift.
func newDesign(s *space.Space, seed uint64) *design {
	rng := stream(seed, 0, saltDesign)
	d := &design{space: s, seed: seed, shift: make([]uint32, len(s.Params))}
	for i := range d.shift {
		d.shift[i] = rng.Uint32()
	}
	return d
}

// unit returns point k, from 0, of the sequence in the unit cube. The origin,
// which goptuna's engine leaves out, is point 0.
func (d *design) unit(k int) []float64 {
	if len(d.shift) > maxSobolDim {
		u, rng := make([]float64, len(d.shift)), stream(d.seed, int64(k)+1, saltDesign)
		for i := range u {
			u[i] = rng.Float64()
		}
		return u
	}
	if d.draw == nil {
		d.draw = sobol.NewEngine(uint32(len(d.shift)))
	}
	for len(d.drawn) < k {
		d.drawn = append(d.drawn, d.draw.Draw())
	}
	u := make([]float64, len(d.shift))
	for i, shift := range d.shift {
		var bits uint32
		if k > 0 {
			bits = uint32(d.drawn[k-1][i] * (1 << 32))
		}
		u[i] = (float64(bits^shift) + 0.5) / (1 << 32)
	}
	return u
}

// next makes the design a method of its own: trial k is point k-1.
func (d *design) next(_ context.Context, l *ledger) (space.Point, error) {
	return d.point(int(l.number() - 1)), nil
}

// point returns point k, from 0, of the design.
func (d *design) point(k int) space.Point { return d.space.FromUnit(d.unit(k)) }
