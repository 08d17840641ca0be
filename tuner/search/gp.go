package search

import (
	"math"
	"math/rand/v2"
	"sort"

	"atelier/common/space"
)

const (
	maxFit   = 120 // observations that choose the kernel's parameters
	maxModel = 350 // observations that predict; further ones are thinned out
	fitCalls = 16  // evaluations of the posterior a fit may take

	scatter    = 320  // candidates spread over the space
	nearby     = 24   // candidates round each of the best points
	bestPoints = 5    // points that nearby candidates surround
	climbs     = 4    // candidates that are improved
	climbCalls = 24   // evaluations of the acquisition a climb may take
	listed     = 1024 // points up to which a finite space is tried whole
	apart      = 1e-6 // least distance from a tried point on some axis
)

// gp is Bayesian optimisation with a Gaussian process: log expected
// improvement (Ament et al., 2023) over the posterior, with trials in progress
// believed at their mean.
type gp struct {
	problem  Problem
	category []bool
	smooth   []bool // axes that can be moved along a gradient
	whole    []space.Point

	fitted *gaussian // for fittedX, fittedY; a cache
}

func newGP(p Problem) *gp {
	g := &gp{problem: p}
	for i := range p.Space.Params {
		a := &p.Space.Params[i]
		_, finite := a.Cells()
		g.category = append(g.category, a.Kind == space.KindCategorical)
		g.smooth = append(g.smooth, !finite)
	}
	if e, err := p.Space.Enumerate(); err == nil && e.Size() <= listed {
		for k := uint64(0); k < e.Size(); k++ {
			g.whole = append(g.whole, e.At(k))
		}
	}
	return g
}

func (g *gp) suggest(number int64, seen []observation) ([]float64, error) {
	rng := stream(g.problem.Seed, number, saltPoint)
	done, open := split(seen)
	model := g.model(done)
	if model == nil {
		return g.anywhere(rng), nil
	}
	believed := *model
	believed.alpha = append([]float64(nil), model.alpha...)
	for _, o := range open {
		believed.extend(o.unit)
	}
	s := &searcher{gp: g, g: &believed, seen: seen, v: make([]float64, len(believed.x))}
	s.incumbent(done)
	return s.best(rng), nil
}

func (g *gp) anywhere(rng *rand.Rand) []float64 {
	return g.problem.Space.Unit(uniform(g.problem.Space, rng))
}

// model fits a Gaussian process to ended observations. It is a function of
// them alone; the last result is kept.
func (g *gp) model(done []observation) *gaussian {
	done = thin(done, maxModel)
	y := standardise(done)
	x := make([][]float64, len(done))
	for i := range done {
		x[i] = done[i].unit
	}
	if g.fitted != nil && sameData(g.fitted.x, x, g.fitted.y, y) {
		return g.fitted
	}
	m := &gaussian{category: g.category, x: x, y: y}
	few := m
	if len(x) > maxFit {
		few = &gaussian{category: g.category}
		kept := pick(done, maxFit)
		for _, i := range kept {
			few.x, few.y = append(few.x, x[i]), append(few.y, y[i])
		}
	}
	few.fit(fitCalls)
	m.weight, m.scale, m.noise = few.weight, few.scale, few.noise
	for !m.condition() {
		if m.noise *= 10; m.noise > 10 || math.IsNaN(m.noise) {
			return nil
		}
	}
	g.fitted = m
	return m
}

func sameData(x, otherX [][]float64, y, otherY []float64) bool {
	if len(x) != len(otherX) {
		return false
	}
	for i := range x {
		if y[i] != otherY[i] {
			return false
		}
		for j := range x[i] {
			if x[i][j] != otherX[i][j] {
				return false
			}
		}
	}
	return true
}

// thin keeps at most n observations.
func thin(done []observation, n int) []observation {
	if len(done) <= n {
		return done
	}
	var out []observation
	for _, i := range pick(done, n) {
		out = append(out, done[i])
	}
	return out
}

// pick chooses n of the observations, ascending: the best half, and the rest
// spread evenly over the others in number order.
func pick(done []observation, n int) []int {
	order := make([]int, len(done))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool {
		x, y := done[order[a]], done[order[b]]
		if (x.result == scored) != (y.result == scored) {
			return x.result == scored
		}
		return x.result == scored && x.value < y.value
	})
	half := n / 2
	kept, others := order[:half:half], order[half:]
	sort.Ints(others)
	for k := 0; k < n-half; k++ {
		kept = append(kept, others[k*len(others)/(n-half)])
	}
	sort.Ints(kept)
	return kept
}

// standardise turns values into what the model learns: half their standing
// among the others, as normal scores, half their distance, with the far side
// of the median drawn in, so that a diverging run does not flatten the rest.
// Bad observations stand with the worst.
func standardise(done []observation) []float64 {
	var values []float64
	for _, o := range done {
		if o.result == scored {
			values = append(values, o.value)
		}
	}
	sort.Float64s(values)
	n := len(values)
	middle := values[n/2]
	spread := middle - values[0]
	if quarter := middle - values[n/4]; quarter > 0 {
		spread = math.Min(spread, 4*quarter)
	}
	if !(spread > 0) {
		spread = math.Max(values[n-1]-middle, 1e-300)
	}
	y := make([]float64, len(done))
	worst := math.Inf(-1)
	for i, o := range done {
		if o.result == scored {
			y[i] = squash((o.value - middle) / spread)
			worst = math.Max(worst, y[i])
		}
	}
	sum, squares := 0.0, 0.0
	for i, o := range done {
		if o.result == bad {
			y[i] = worst
		}
		sum += y[i]
		squares += y[i] * y[i]
	}
	mean := sum / float64(len(y))
	deviation := math.Sqrt(math.Max(squares/float64(len(y))-mean*mean, 1e-24))
	for i := range y {
		y[i] = (y[i] - mean) / deviation
	}
	return y
}

func squash(t float64) float64 {
	if t > 0 {
		return math.Log1p(t)
	}
	return t
}
