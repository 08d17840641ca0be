package search

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/c-bata/goptuna/cmaes"
)

// cma is goptuna's CMA-ES in the unit cube. Its optimizer cannot be saved, so
// it is redriven from the history: ended trials, in number order, are told in
// groups of one population, and each ask first reseeds the optimizer with the
// trial's own stream. Trials that are still open do not hold a group up: the
// ones that ended fill it.
//
// A proposal of the optimizer takes the cube of its axes. Spaces of many axes
// are therefore searched in blocks: an optimizer for each, all of one population
// size and told the same ranks, which makes the covariance block-diagonal
// (Ros and Hansen, A Simple Modification in CMA-ES Achieving Linear Time and
// Space Complexity, 2008, is the case of blocks of one).
type cma struct {
	problem    Problem
	blocks     []block
	population int

	told     []observation // what the optimizers have been told, in order
	restarts int
	fresh    bool // the means are those of the blocks: nothing told since the start
}

// block is an optimizer with the axes that it searches.
type block struct {
	axes      []int // of the space
	mean      []float64
	optimizer *cmaes.Optimizer
}

const (
	// sigma0 covers the cube from its middle: two thirds of the draws fall within
	// 0.5 ± 0.3 on an axis.
	sigma0 = 0.3

	cmaWhole = 20  // axes up to which one optimizer searches them all
	cmaBlock = 10  // axes of a block beyond, at most
	cmaTries = 100 // draws for a point within the bounds, before it is folded back

	nudge = 1e-6 // of the way to another draw: for a result on the very mean
)

// newCMA searches all axes together, or, where they are many, in blocks: the covariance of a
// hundred axes could not be learned from a sweep's trials.
func newCMA(p Problem) (*cma, error) {
	// An axis of one value does no harm among others; a block of such axes would
	// have every result on its mean.
	var axes []int
	for j := range p.Space.Params {
		if n, finite := p.Space.Params[j].Cells(); len(p.Space.Params) <= cmaWhole || !finite || n > 1 {
			axes = append(axes, j)
		}
	}
	c := &cma{problem: p}
	count := 1
	if len(axes) > cmaWhole {
		count = (len(axes) + cmaBlock - 1) / cmaBlock
	}
	for k := range count {
		c.blocks = append(c.blocks, block{axes: axes[k*len(axes)/count : (k+1)*len(axes)/count]})
	}
	// The library's own size, for all axes together.
	c.population = 4 + int(math.Floor(3*math.Log(float64(max(2, len(axes))))))
	return c, c.restart(nil)
}

// restart makes fresh optimizers; draw gives the means, nil is the middle of
// the cube.
func (c *cma) restart(draw func() float64) error {
	c.fresh = true
	for k := range c.blocks {
		b := &c.blocks[k]
		// One axis is one too few for the library's learning rates; a second that
		// nobody reads does no harm.
		b.mean = make([]float64, max(2, len(b.axes)))
		for i := range b.mean {
			b.mean[i] = 0.5
			if draw != nil {
				b.mean[i] = draw()
			}
		}
		var err error
		// The library would set what lies beyond bounds onto them; they are kept here.
		b.optimizer, err = cmaes.NewOptimizer(slices.Clone(b.mean), sigma0, cmaes.OptimizerOptionPopulationSize(c.population))
		if err != nil {
			return fmt.Errorf("cmaes in %d dimensions: %w", len(b.mean), err)
		}
	}
	return nil
}

// suggest implements algorithm: the optimizers are driven to where the history is, then asked with
// the trial's own stream.
func (c *cma) suggest(number int64, seen []observation) ([]float64, error) {
	if err := c.drive(seen); err != nil {
		return nil, err
	}
	u := make([]float64, len(c.problem.Space.Params))
	for j := range u {
		u[j] = 0.5
	}
	rng := source(c.problem.Seed, number, saltPoint)
	for k := range c.blocks {
		b := &c.blocks[k]
		x, err := b.draw(rng.Uint64())
		if err != nil {
			return nil, err
		}
		for i, j := range b.axes {
			u[j] = x[i]
		}
	}
	return u, nil
}

// draw asks for a point within the bounds. Where none comes in cmaTries, which
// is the rule with many axes, what lies beyond a bound is folded back: set onto
// it, as the library does, a tenth of the axes would stand there.
func (b *block) draw(seed uint64) ([]float64, error) {
	cmaes.OptimizerOptionSeed(int64(seed >> 1))(b.optimizer)
	for try := 0; ; try++ {
		x, err := b.optimizer.Ask()
		if err != nil {
			return nil, err
		}
		inside := true
		for _, v := range x {
			inside = inside && v > 0 && v < 1
		}
		if inside {
			return x, nil
		}
		if try == cmaTries {
			for i := range x {
				x[i] = reflect(x[i])
			}
			return x, nil
		}
	}
}

// drive tells the optimizers every full group of ended trials. Groups that go
// on from what was told last are told on top; else it starts anew.
func (c *cma) drive(seen []observation) error {
	var ended []observation
	for _, o := range seen {
		if o.result == scored || o.result == unscored {
			ended = append(ended, o)
		}
	}
	if !c.goesOn(ended) {
		c.told, c.restarts = nil, 0
		if err := c.restart(nil); err != nil {
			return err
		}
	}
	for len(ended) >= len(c.told)+c.population {
		group := ended[len(c.told) : len(c.told)+c.population]
		c.told = append(c.told, group...)
		if c.tell(group) {
			continue
		}
		// Collapsed or ill-conditioned: begin again elsewhere.
		c.restarts++
		if err := c.restart(stream(c.problem.Seed, -int64(c.restarts), saltDesign).Float64); err != nil {
			return err
		}
	}
	return nil
}

// tell hands one group to every block, and reports whether the search can go on
// from there.
func (c *cma) tell(group []observation) bool {
	values := c.values(group)
	// The library's own sort may leave equal values in any order.
	order := make([]int, len(group))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(values[i], values[j]) })
	goesOn := true
	for k := range c.blocks {
		b := &c.blocks[k]
		solutions := make([]*cmaes.Solution, len(group))
		for at, i := range order {
			x := make([]float64, len(b.mean))
			for j := range x {
				x[j] = 0.5
			}
			for j, axis := range b.axes {
				x[j] = group[i].unit[axis]
			}
			if c.fresh && at >= len(group)/2 && slices.Equal(x, b.mean) {
				if c.apart(b, x, len(c.told)-len(group)+i) != nil {
					return false
				}
			}
			solutions[at] = &cmaes.Solution{Params: x, Value: values[i]}
		}
		if b.optimizer.Tell(solutions) != nil || b.optimizer.ShouldStop() || !b.sound() {
			goesOn = false
		}
	}
	c.fresh = false
	return goesOn
}

// apart moves a result of the worse half off the mean: the library divides by
// its distance from there. Only the direction counts in what it learns, so one
// is drawn from the distribution itself, which on average changes nothing.
func (c *cma) apart(b *block, x []float64, place int) error {
	seed := source(c.problem.Seed, int64(place), saltNudge).Uint64()
	cmaes.OptimizerOptionSeed(int64(seed >> 1))(b.optimizer)
	other, err := b.optimizer.Ask()
	if err != nil {
		return err
	}
	for j := range x {
		x[j] += nudge * (other[j] - x[j])
	}
	return nil
}

// sound reports whether the optimizer still draws numbers.
func (b *block) sound() bool {
	x, err := b.optimizer.Ask()
	return err == nil && !slices.ContainsFunc(x, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

// values gives every result of a group one value, by rank: those that break
// constraints below the worst of the group, unscored ones below them.
func (c *cma) values(group []observation) []float64 {
	far := violations(group)
	worst := math.Inf(-1)
	for _, o := range group {
		if o.result == scored {
			worst = math.Max(worst, o.value)
		}
	}
	if math.IsInf(worst, -1) {
		worst = 0
	}
	values := make([]float64, len(group))
	for i, o := range group {
		values[i] = o.value
		switch {
		case o.result == unscored:
			values[i] = worst + (math.Abs(worst)+1)*(3+float64(len(c.problem.Constraints))*2)
		case far != nil && far[i] > 0:
			values[i] = worst + (math.Abs(worst)+1)*(1+far[i])
		}
	}
	return values
}

// goesOn reports whether ended begins with what the optimizers were told; if not, they begin anew.
func (c *cma) goesOn(ended []observation) bool {
	if len(ended) < len(c.told) {
		return false
	}
	for i, o := range c.told {
		if !o.same(&ended[i]) || !slices.Equal(o.unit, ended[i].unit) {
			return false
		}
	}
	return true
}
