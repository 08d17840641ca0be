package search

import (
	"fmt"
	"math"

	"github.com/c-bata/goptuna/cmaes"
	"gonum.org/v1/gonum/mat"
)

// cma is goptuna's CMA-ES in the unit cube. Its optimizer cannot be saved, so
// it is redriven from the history: ended trials, in number order, are told in
// groups of one population, and each ask first reseeds the optimizer with the
// trial's own stream. Trials that are still open do not hold a group up: the
// ones that ended fill it.
type cma struct {
	problem Problem
	dim     int

	optimizer *cmaes.Optimizer
	told      []observation // what the optimizer has been told, in order
	restarts  int
}

// sigma0 covers the cube from its middle: two thirds of the draws fall within
// 0.5 ± 0.3 on an axis.
const sigma0 = 0.3

func newCMA(p Problem) (*cma, error) {
	// One axis is one too few for the library's learning rates; a second that
	// nobody reads does no harm.
	c := &cma{problem: p, dim: max(2, len(p.Space.Params))}
	return c, c.restart(nil)
}

// restart makes a fresh optimizer round a mean; nil is the middle of the cube.
func (c *cma) restart(mean []float64) error {
	bounds := mat.NewDense(c.dim, 2, nil)
	start := make([]float64, c.dim)
	for i := range start {
		start[i] = 0.5
		bounds.Set(i, 0, 0)
		bounds.Set(i, 1, 1)
	}
	copy(start, mean)
	var err error
	c.optimizer, err = cmaes.NewOptimizer(start, sigma0, cmaes.OptimizerOptionBounds(bounds))
	if err != nil {
		return fmt.Errorf("cmaes in %d dimensions: %w", c.dim, err)
	}
	return nil
}

func (c *cma) suggest(number int64, seen []observation) ([]float64, error) {
	if err := c.drive(seen); err != nil {
		return nil, err
	}
	seed := source(c.problem.Seed, number, saltPoint).Uint64()
	cmaes.OptimizerOptionSeed(int64(seed >> 1))(c.optimizer)
	x, err := c.optimizer.Ask()
	if err != nil {
		return nil, err
	}
	for i := range x {
		if math.IsNaN(x[i]) {
			x[i] = 0.5
		}
	}
	return x, nil
}

// drive tells the optimizer every full group of ended trials. Groups that go
// on from what it was told last are told on top; else it starts anew.
func (c *cma) drive(seen []observation) error {
	var ended []observation
	for _, o := range seen {
		if o.result == scored || o.result == bad {
			ended = append(ended, o)
		}
	}
	if !c.goesOn(ended) {
		c.told, c.restarts = nil, 0
		if err := c.restart(nil); err != nil {
			return err
		}
	}
	for {
		size := c.optimizer.PopulationSize()
		from := len(c.told)
		if len(ended) < from+size {
			return nil
		}
		group := ended[from : from+size]
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
		solutions := make([]*cmaes.Solution, size)
		for i, o := range group {
			x := make([]float64, c.dim)
			for j := range x {
				x[j] = 0.5
			}
			copy(x, o.unit)
			value := o.value
			switch { // by rank: those that break constraints below the worst of the group, bad ones below them
			case o.result == bad:
				value = worst + (math.Abs(worst)+1)*(3+float64(len(c.problem.Constraints))*2)
			case far != nil && far[i] > 0:
				value = worst + (math.Abs(worst)+1)*(1+far[i])
			}
			solutions[i] = &cmaes.Solution{Params: x, Value: value}
		}
		c.told = append(c.told, group...)
		if err := c.optimizer.Tell(solutions); err != nil || c.optimizer.ShouldStop() {
			// Collapsed or ill-conditioned: begin again elsewhere.
			c.restarts++
			rng := stream(c.problem.Seed, -int64(c.restarts), saltDesign)
			mean := make([]float64, c.dim)
			for j := range mean {
				mean[j] = rng.Float64()
			}
			if err := c.restart(mean); err != nil {
				return err
			}
		}
	}
}

func (c *cma) goesOn(ended []observation) bool {
	if len(ended) < len(c.told) {
		return false
	}
	for i, o := range c.told {
		if !o.same(&ended[i]) {
			return false
		}
		for j := range o.unit {
			if o.unit[j] != ended[i].unit[j] {
				return false
			}
		}
	}
	return true
}
