package search

import (
	"context"
	"errors"
	"math"
	oldrand "math/rand"
	"math/rand/v2"
	"slices"

	"github.com/MaxHalford/eaopt"

	"atelier/common/space"
)

const (
	contestants = 2   // of a tournament
	crossRate   = 0.9 // share of pairs that are crossed
	mutateRate  = 0.9 // share of children that are mutated
)

// genetic is a steady-state genetic algorithm on eaopt's selection, crossover
// and mutation. For every trial the population is rebuilt from the history (the
// best distinct points with a result: elites survive by construction), one
// generational step of eaopt is taken with the trial's own random stream, and
// the first child that is new becomes the proposal. No generation has to be
// complete, so no slot waits for a slow trial.
type genetic struct {
	problem Problem
	design  *design
	memory  *memory
}

// newGenetic has seen nothing.
func newGenetic(p Problem) *genetic {
	return &genetic{problem: p, design: newDesign(p.Space, p.Seed), memory: newMemory(p)}
}

// populationSize of the generation that a trial is born into: small, so that it
// turns over often within the budgets people use, larger in long sweeps.
func populationSize(number int64) int { return int(max(8, min(32, number/12))) }

// next breeds a child of the best, or takes the design's next point while there are too few.
func (g *genetic) next(_ context.Context, l *ledger) (space.Point, error) {
	number := l.number()
	size := populationSize(number)
	rng := oldrand.New(&oldSource{source(g.problem.Seed, number, saltPoint)})
	parents := g.parents(l, size, rng)
	if int(number)+g.memory.warm <= size || len(parents) < contestants+1 {
		return g.design.point(int(number - 1)), nil
	}
	population := eaopt.Population{Individuals: parents, RNG: rng}
	model := eaopt.ModGenerational{
		Selector:  eaopt.SelTournament{NContestants: contestants},
		MutRate:   mutateRate,
		CrossRate: crossRate,
	}
	if err := model.Validate(); err != nil {
		return nil, err
	}
	if err := model.Apply(&population); err != nil {
		return nil, err
	}
	for i := range population.Individuals {
		// eaopt leaves the second child of a crossing marked as evaluated,
		// with its parent's fitness.
		population.Individuals[i].Evaluated = false
		population.Individuals[i].Fitness = math.Inf(1)
	}
	var first space.Point
	for i, child := range population.Individuals {
		p := g.problem.Space.FromUnit(child.Genome.(*genome).unit)
		if i == 0 {
			first = p
		}
		if !l.seen(p) {
			return p, nil
		}
	}
	return first, nil
}

// parents returns the best distinct observations, best first; those that break
// constraints and unscored ones stand last and only while there is room.
func (g *genetic) parents(l *ledger, size int, rng *oldrand.Rand) eaopt.Individuals {
	done, _ := split(g.memory.follow(l))
	var out eaopt.Individuals
	var chosen [][]float64
	for at, k := range ranking(done) {
		if len(out) == size {
			break
		}
		if slices.ContainsFunc(chosen, func(u []float64) bool { return slices.Equal(u, done[k].unit) }) {
			continue
		}
		chosen = append(chosen, done[k].unit)
		u := append([]float64(nil), done[k].unit...)
		for j := range done[k].active { // a child in which it wakes up should not find it in the middle
			if !done[k].active[j] {
				u[j] = rng.Float64()
			}
		}
		out = append(out, eaopt.Individual{Genome: &genome{space: g.problem.Space, unit: u}, Fitness: float64(at), Evaluated: true})
	}
	spread(out, g.problem.Space)
	return out
}

// spread tells every genome how wide the population stands on each axis:
// mutation takes its step from there, so steps shrink as the search closes in.
func spread(population eaopt.Individuals, s *space.Space) {
	width := make([]float64, len(s.Params))
	for j := range width {
		var sum, squares float64
		for _, individual := range population {
			u := individual.Genome.(*genome).unit[j]
			sum += u
			squares += u * u
		}
		n := float64(len(population))
		width[j] = math.Sqrt(math.Max(0, squares/n-(sum/n)*(sum/n)))
	}
	for _, individual := range population {
		individual.Genome.(*genome).width = width
	}
}

// genome is a point in the unit cube with operators by parameter type.
type genome struct {
	space *space.Space
	unit  []float64
	width []float64 // standard deviation of the population, by axis; shared
}

// Evaluate is never reached: individuals come evaluated from the history, and
// children go to the cluster.
func (g *genome) Evaluate() (float64, error) {
	return 0, errors.New("a genome is evaluated by its trial, not by the search")
}

// Clone implements eaopt.Genome.
func (g *genome) Clone() eaopt.Genome {
	return &genome{g.space, append([]float64(nil), g.unit...), g.width}
}

// Crossover blends numbers (BLX-alpha: even between the parents and half their
// distance beyond, folded back into the bounds) and swaps categories.
func (g *genome) Crossover(mate eaopt.Genome, rng *oldrand.Rand) {
	const alpha = 0.5
	m := mate.(*genome)
	for j := range g.unit {
		a, b := g.unit[j], m.unit[j]
		if g.space.Params[j].Kind == space.KindCategorical {
			if rng.Float64() < 0.5 {
				g.unit[j], m.unit[j] = b, a
			}
			continue
		}
		low, high := math.Min(a, b), math.Max(a, b)
		reach := alpha * (high - low)
		g.unit[j] = reflect(low - reach + rng.Float64()*(high-low+2*reach))
		m.unit[j] = reflect(low - reach + rng.Float64()*(high-low+2*reach))
	}
}

// Mutate changes each axis with probability 1/d, at least one: a category to
// any other, a number by a normal step as wide as the population.
func (g *genome) Mutate(rng *oldrand.Rand) {
	d := len(g.unit)
	sure := rng.Intn(d)
	for j := range g.unit {
		if j != sure && rng.Float64() >= 1/float64(d) {
			continue
		}
		a := &g.space.Params[j]
		n, finite := a.Cells()
		switch {
		case finite && n == 1:
		case a.Kind == space.KindCategorical:
			at := uint64(g.unit[j] * float64(n))
			to := (at + 1 + uint64(rng.Int63n(int64(n-1)))) % n
			g.unit[j] = (float64(to) + 0.5) / float64(n)
		default:
			step := math.Max(g.width[j], 0.002)
			if finite && n > 1 {
				step = math.Max(step, 1/float64(n)) // enough to leave the cell
			}
			g.unit[j] = reflect(g.unit[j] + step*rng.NormFloat64())
		}
	}
}

// oldSource lends a PCG stream to libraries that want math/rand's source.
type oldSource struct{ *rand.PCG }

// Int63 implements math/rand.Source.
func (s *oldSource) Int63() int64 { return int64(s.Uint64() >> 1) }
func (s *oldSource) Seed(int64)   {} // streams are keyed when made
