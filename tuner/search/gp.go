package search

import (
	"math"
	"math/rand/v2"
	"sort"

	"gonum.org/v1/gonum/stat/distuv"

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

// split separates ended observations from open ones.
func split(seen []observation) (done, open []observation) {
	for _, o := range seen {
		switch o.result {
		case scored, bad:
			done = append(done, o)
		case pending:
			open = append(open, o)
		}
	}
	return done, open
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

// searcher looks for the point of highest acquisition.
type searcher struct {
	*gp
	g      *gaussian
	seen   []observation
	v      []float64
	target float64       // value to improve on
	top    []observation // best points, best first
}

// incumbent takes the lowest posterior mean among ended points as the value to
// improve on: an observation that noise made good does not stop the search.
func (s *searcher) incumbent(done []observation) {
	s.target = math.Inf(1)
	for _, o := range done {
		if o.result == scored {
			s.top = append(s.top, o)
		}
	}
	sort.SliceStable(s.top, func(i, j int) bool { return s.top[i].value < s.top[j].value })
	s.top = s.top[:min(len(s.top), bestPoints)]
	for _, o := range s.top {
		mean, _ := s.g.predict(o.unit, s.v)
		s.target = math.Min(s.target, mean)
	}
}

// gain is log expected improvement at u.
func (s *searcher) gain(u []float64) float64 {
	mean, variance := s.g.predict(u, s.v)
	sigma := math.Sqrt(variance)
	h, _ := logImprovement((s.target - mean) / sigma)
	return math.Log(sigma) + h
}

var normal = distuv.UnitNormal

// logImprovement returns log(φ(z) + zΦ(z)) and its derivative, also where z is
// far below zero.
func logImprovement(z float64) (value, slope float64) {
	if z > -12 {
		phi, cdf := normal.Prob(z), normal.CDF(z)
		h := phi + z*cdf
		return math.Log(h), cdf / h
	}
	z2 := z * z
	tail := 1 - 3/z2 + 15/(z2*z2) - 105/(z2*z2*z2)
	return -z2/2 - 0.5*math.Log(2*math.Pi) - math.Log(z2) + math.Log(tail),
		-z * (1 - 1/z2 + 3/(z2*z2)) / tail
}

type candidate struct {
	unit []float64
	gain float64
}

func (s *searcher) best(rng *rand.Rand) []float64 {
	candidates := s.candidates(rng)
	sort.SliceStable(candidates, func(i, j int) bool { return candidates[i].gain > candidates[j].gain })
	if len(s.whole) == 0 {
		var climbed []candidate
		for _, c := range candidates {
			if len(climbed) == climbs {
				break
			}
			near := false
			for _, other := range climbed {
				near = near || close(c.unit, other.unit, 0.01)
			}
			if !near {
				climbed = append(climbed, s.climb(c))
			}
		}
		candidates = append(climbed, candidates...)
		sort.SliceStable(candidates, func(i, j int) bool { return candidates[i].gain > candidates[j].gain })
	}
	for _, c := range candidates {
		if !s.tried(c.unit) {
			return c.unit
		}
	}
	return s.anywhere(rng)
}

// tried says whether u stands where a point was proposed before.
func (s *searcher) tried(u []float64) bool {
	for i := range s.seen {
		if close(u, s.seen[i].unit, apart) {
			return true
		}
	}
	return false
}

func close(a, b []float64, within float64) bool {
	for j := range a {
		if math.Abs(a[j]-b[j]) > within {
			return false
		}
	}
	return true
}

// candidates are points all over the space and round the best ones; of a small
// finite space every point.
func (s *searcher) candidates(rng *rand.Rand) []candidate {
	var out []candidate
	consider := func(p space.Point) {
		u := s.problem.Space.Unit(p)
		out = append(out, candidate{u, s.gain(u)})
	}
	if len(s.whole) > 0 {
		for _, p := range s.whole {
			consider(p)
		}
		return out
	}
	for i := 0; i < scatter; i++ {
		consider(uniform(s.problem.Space, rng))
	}
	for _, o := range s.top {
		for i := 0; i < nearby; i++ {
			consider(s.problem.Space.FromUnit(s.shake(o.unit, rng)))
		}
	}
	return out
}

// shake moves some axes of u by a step between coarse and fine.
func (s *searcher) shake(u []float64, rng *rand.Rand) []float64 {
	out := append([]float64(nil), u...)
	step := 0.3 * math.Pow(0.01, rng.Float64())
	share := math.Max(1.5/float64(len(u)), 0.3)
	sure := rng.IntN(len(u))
	for j := range out {
		if j != sure && rng.Float64() > share {
			continue
		}
		if s.category[j] {
			out[j] = rng.Float64()
			continue
		}
		move := step
		if n, finite := s.problem.Space.Params[j].Cells(); finite {
			move = math.Max(move, 1/float64(n))
		}
		out[j] = reflect(out[j] + move*rng.NormFloat64())
	}
	return out
}

// climb improves a candidate: along the gradient on continuous axes, by steps
// on the others.
func (s *searcher) climb(c candidate) candidate {
	for round := 0; round < 2; round++ {
		before := c.gain
		c = s.slide(c)
		c = s.step(c)
		if c.gain < before+1e-3 {
			break
		}
	}
	return c
}

func (s *searcher) slide(c candidate) candidate {
	d := len(c.unit)
	low, high := append([]float64(nil), c.unit...), append([]float64(nil), c.unit...)
	p := s.problem.Space.FromUnit(c.unit)
	var axes []int
	for j := range c.unit {
		if s.smooth[j] && !p[j].IsAbsent() {
			axes = append(axes, j)
		}
	}
	if len(axes) == 0 {
		return c
	}
	u := append([]float64(nil), c.unit...)
	dMean, dVariance := make([]float64, d), make([]float64, d)
	x, lo, hi := make([]float64, len(axes)), make([]float64, len(axes)), make([]float64, len(axes))
	for i, j := range axes {
		x[i], hi[i] = u[j], 1
		low[j], high[j] = 0, 1
	}
	value := descend(func(x, gradient []float64) float64 {
		for i, j := range axes {
			u[j] = x[i]
		}
		mean, variance := s.g.predict(u, s.v)
		sigma := math.Sqrt(variance)
		z := (s.target - mean) / sigma
		h, dh := logImprovement(z)
		s.g.slope(u, s.v, dMean, dVariance)
		for i, j := range axes {
			dSigma := dVariance[j] / (2 * sigma)
			dz := (-dMean[j] - z*dSigma) / sigma
			gradient[i] = -(dSigma/sigma + dh*dz)
		}
		return -(math.Log(sigma) + h)
	}, x, lo, hi, climbCalls)
	if -value > c.gain {
		for i, j := range axes {
			u[j] = x[i]
		}
		return candidate{u, -value}
	}
	return c
}

// step tries other cells on every finite axis, near ones first.
func (s *searcher) step(c candidate) candidate {
	for j := range c.unit {
		a := &s.problem.Space.Params[j]
		n, finite := a.Cells()
		p := s.problem.Space.FromUnit(c.unit)
		if !finite || n < 2 || p[j].IsAbsent() {
			continue
		}
		at, _ := a.Index(p[j])
		var cells []uint64
		if s.category[j] && n <= 16 {
			for k := uint64(0); k < n; k++ {
				cells = append(cells, k)
			}
		} else if !s.category[j] {
			for _, by := range []int64{-1, 1, -3, 3, -int64(n / 8), int64(n / 8)} {
				if to := int64(at) + by; by != 0 && to >= 0 && to < int64(n) {
					cells = append(cells, uint64(to))
				}
			}
		}
		for _, k := range cells {
			u := append([]float64(nil), c.unit...)
			u[j] = a.ToUnit(a.At(k))
			u = s.problem.Space.Unit(s.problem.Space.FromUnit(u))
			if gain := s.gain(u); gain > c.gain {
				c = candidate{u, gain}
			}
		}
	}
	return c
}
