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

	openLie = 0.5 // deviations above the mean that an open trial is taken for

	nearby     = 24   // candidates round each of the best points
	bestPoints = 5    // points that nearby candidates surround
	listed     = 1024 // points up to which a finite space is tried whole
	maxSteps   = 40   // finite axes that a candidate is moved along
	apart      = 1e-6 // least distance from a tried point on some axis
)

// effort is what a suggestion may spend: much while there are few observations
// and each step is cheap, so that its time stays bounded.
type effort struct {
	fit        int // evaluations of the posterior
	scatter    int // candidates spread over the space
	climbs     int // candidates that are improved
	climbCalls int // evaluations of the acquisition in each
}

// effortFor spends less the more observations there are, since each step then costs more.
func effortFor(observations int) effort {
	n := max(1, observations)
	return effort{
		fit:        min(40, max(16, 2400/n)),
		scatter:    min(1500, max(320, 3_200_000/(n*n))),
		climbs:     min(10, max(4, 400/n)),
		climbCalls: min(60, max(24, 2400/n)),
	}
}

// gp is Bayesian optimisation with a Gaussian process: log expected
// improvement (Ament et al., 2023) over the posterior, with trials in progress
// taken for a little worse than their mean. Constraints have processes of their own, whose
// probability of being met multiplies the improvement (Gardner et al., 2014).
// Several objectives become one for each trial, by weights of its own (ParEGO:
// Knowles, 2006), so that the trials spread along the front.
type gp struct {
	problem  Problem
	category []bool
	smooth   []bool // axes that can be moved along a gradient
	whole    []space.Point

	fitted []*gaussian // the last fit of the objective and of each constraint; a cache
}

// newGP lists small finite spaces whole: then every point is a candidate.
func newGP(p Problem) *gp {
	g := &gp{problem: p, fitted: make([]*gaussian, 1+len(p.Constraints))}
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

// suggest implements algorithm; where nothing can be modelled it draws.
func (g *gp) suggest(number int64, seen []observation) ([]float64, error) {
	rng := stream(g.problem.Seed, number, saltPoint)
	s, ok := g.searcher(number, seen)
	if !ok {
		return g.anywhere(rng), nil
	}
	return s.best(rng), nil
}

// searcher models what was seen; false when that cannot be done.
func (g *gp) searcher(number int64, seen []observation) (*searcher, bool) {
	done, open := split(seen)
	if g.problem.goals() > 1 {
		done = scalarise(done, g.problem.goals(), stream(g.problem.Seed, number, saltWeights))
	}
	kept := thin(done, maxModel)
	model := g.model(0, kept, standardise(kept))
	if model == nil {
		return nil, false
	}
	s := &searcher{gp: g, seen: seen, effort: effortFor(len(kept) + len(open))}
	s.g = model.believing(open, openLie)
	s.v = make([]float64, len(s.g.x))
	for k := range g.problem.Constraints {
		if l, ok := g.limit(k, done, open); ok {
			s.limits = append(s.limits, l)
		}
	}
	s.stepped = s.steps()
	s.incumbent(model, done)
	s.confine(done)
	return s, true
}

// limit models how far constraint k is from being broken.
func (g *gp) limit(k int, done, open []observation) (limit, bool) {
	var told []observation
	worst, size := math.Inf(-1), []float64(nil)
	for _, o := range done {
		if o.result == scored {
			told = append(told, o)
			if v := o.over[k]; !math.IsNaN(v) && !math.IsInf(v, 0) {
				worst = math.Max(worst, v)
				size = append(size, math.Abs(v))
			}
		}
	}
	if len(size) < 2 {
		return limit{}, false
	}
	sort.Float64s(size)
	unit := math.Max(size[len(size)/2], 1e-300)
	kept := thin(told, maxModel)
	y := make([]float64, len(kept))
	for i, o := range kept {
		v := o.over[k]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			v = math.Max(worst, unit) // not reported: as bad as the worst
		}
		y[i] = math.Asinh(v / unit)
	}
	mean, deviation := centre(y)
	if deviation <= 1e-12 {
		return limit{}, false // all alike: nothing to tell points apart by
	}
	model := g.model(1+k, kept, y)
	if model == nil {
		return limit{}, false
	}
	believed := model.believing(open, 0)
	return limit{g: believed, v: make([]float64, len(believed.x)), bound: -mean / deviation}, true
}

// scalarise gives every scored observation one value: the augmented Tchebycheff
// distance from the best of each objective, in shares of its range over the
// better half, under weights that the stream draws evenly from the simplex.
func scalarise(done []observation, goals int, rng *rand.Rand) []observation {
	weight, total := make([]float64, goals), 0.0
	for k := range weight {
		weight[k] = rng.ExpFloat64()
		total += weight[k]
	}
	low, span := make([]float64, goals), make([]float64, goals)
	for k := range low {
		var values []float64
		for _, o := range done {
			if o.result == scored {
				values = append(values, o.values[k])
			}
		}
		if len(values) == 0 {
			return done
		}
		sort.Float64s(values)
		low[k] = values[0]
		if span[k] = values[(len(values)-1)*3/4] - low[k]; span[k] <= 0 {
			span[k] = math.Max(values[len(values)-1]-low[k], 1e-300)
		}
	}
	out := append([]observation(nil), done...)
	for i := range out {
		if out[i].result != scored {
			continue
		}
		largest, sum := math.Inf(-1), 0.0
		for k, v := range out[i].values {
			share := weight[k] / total * (v - low[k]) / span[k]
			largest = math.Max(largest, share)
			sum += share
		}
		out[i].value, out[i].values = largest+0.05*sum, nil
	}
	return out
}

// anywhere draws evenly.
func (g *gp) anywhere(rng *rand.Rand) []float64 {
	return g.problem.Space.Unit(uniform(g.problem.Space, rng))
}

// model fits a Gaussian process to ended observations and what they are to
// give. It is a function of these alone; the last result in each slot is kept.
func (g *gp) model(slot int, done []observation, y []float64) *gaussian {
	x := make([][]float64, len(done))
	for i := range done {
		x[i] = done[i].unit
	}
	if f := g.fitted[slot]; f != nil && sameData(f.x, x, f.y, y) {
		return f
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
	few.fit(effortFor(len(few.x)).fit)
	m.weight, m.scale, m.noise = few.weight, few.scale, few.noise
	for !m.condition() {
		if m.noise *= 10; m.noise > 10 || math.IsNaN(m.noise) {
			return nil
		}
	}
	g.fitted[slot] = m
	return m
}

// sameData reports whether a fit was made of exactly these numbers.
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
	order := ranking(done)
	half := n / 2
	kept, others := order[:half:half], order[half:]
	sort.Ints(others)
	for k := 0; k < n-half; k++ {
		kept = append(kept, others[k*len(others)/(n-half)])
	}
	sort.Ints(kept)
	return kept
}

// standardise turns values into what the model learns: their distance from the
// median, with its far side drawn in, so that a diverging run does not flatten
// the rest.
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
	for i, o := range done {
		if o.result == unscored {
			y[i] = worst
		}
	}
	centre(y)
	return y
}

// centre shifts and scales y to mean 0 and deviation 1, and returns what they
// were.
func centre(y []float64) (mean, deviation float64) {
	sum, squares := 0.0, 0.0
	for _, v := range y {
		sum += v
	}
	mean = sum / float64(len(y))
	for _, v := range y {
		squares += (v - mean) * (v - mean)
	}
	deviation = math.Sqrt(math.Max(squares/float64(len(y)), 1e-24))
	for i := range y {
		y[i] = (y[i] - mean) / deviation
	}
	return mean, deviation
}

// squash tames what is far from the median, so that one bad result does not flatten all others.
func squash(t float64) float64 {
	const far = 8 // spreads below the median up to which distance counts as it is
	switch {
	case t > 0:
		return math.Min(math.Log1p(t), 700)
	case t < -far:
		return -far - math.Min(math.Log1p(-far-t), 700)
	}
	return t
}
