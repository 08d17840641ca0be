package search

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"gonum.org/v1/gonum/stat/distuv"

	"atelier/common/space"
)

// searcher looks for the point of highest acquisition.
type searcher struct {
	*gp
	g      *gaussian
	seen   []observation
	v      []float64
	limits []limit
	effort effort
	target float64       // value to improve on
	some   bool          // a feasible point is known
	top    []observation // best points, best first
	low    []float64     // of the box that is searched, by axis
	high   []float64
	centre []float64 // of the box, where it is not the whole cube

	stepped []int // finite axes that candidates are moved along
}

// limit is a constraint as the model sees it: met where g is at most bound.
type limit struct {
	g     *gaussian
	v     []float64
	bound float64
}

// incumbent takes the lowest posterior mean among the best feasible points as
// the value to improve on: an observation that noise made good does not stop
// the search.
func (s *searcher) incumbent(model *gaussian, done []observation) {
	target, nearest := math.Inf(1), math.Inf(1)
	for _, i := range ranking(done) {
		if done[i].result != scored || len(s.top) == bestPoints {
			break
		}
		s.top = append(s.top, done[i])
	}
	far := violations(s.top)
	for i, o := range s.top {
		mean, _ := model.predict(o.unit, s.v[:len(model.x)])
		nearest = math.Min(nearest, mean)
		if far == nil || far[i] == 0 {
			target = math.Min(target, mean)
			s.some = true
		}
	}
	if !s.some {
		target = nearest
	}
	if far == nil && stalled(done) {
		target -= leap
	}
	s.target = target
}

const (
	stallWindow = 8    // results that are looked at
	stallTies   = 4    // of them as good as the best: the search is on a plateau
	stallShare  = 1e-3 // of the way from the best to the median: as good as equal
	leap        = 0.1  // what must be gained elsewhere then, in deviations of what the model learns
)

// stalled reports whether the latest results repeat the best one without a gain:
// on a plateau, where a setting has no effect or a table has one cell, the model
// sees small gains round every point of it for long. Small ones then do not
// count, until the latest results are others.
func stalled(done []observation) bool {
	n := len(done)
	if n < 2*stallWindow {
		return false
	}
	var values []float64
	best, before := math.Inf(1), math.Inf(1)
	for i := range done {
		if done[i].result != scored {
			continue
		}
		values = append(values, done[i].value)
		best = math.Min(best, done[i].value)
		if i < n-stallWindow {
			before = best
		}
	}
	if len(values) < stallWindow {
		return false
	}
	sort.Float64s(values)
	equal := stallShare * (values[len(values)/2] - best)
	if best < before-equal {
		return false
	}
	ties := 0
	for i := n - stallWindow; i < n; i++ {
		if done[i].result == scored && done[i].value <= best+equal {
			ties++
		}
	}
	return ties >= stallTies
}

// gain is log expected improvement at u plus the logarithm of the chance that
// every constraint is met; before any feasible point is known, the latter
// alone.
func (s *searcher) gain(u []float64) float64 {
	sum := 0.0
	if s.some || len(s.limits) == 0 {
		mean, variance := s.g.predict(u, s.v)
		sigma := math.Sqrt(variance)
		h, _ := logImprovement((s.target - mean) / sigma)
		sum = math.Log(sigma) + h
	}
	for i := range s.limits {
		l := &s.limits[i]
		mean, variance := l.g.predict(u, l.v)
		h, _ := logChance((l.bound - mean) / math.Sqrt(variance))
		sum += h
	}
	return sum
}

// rise is gain with its gradient, on axes that are numbers.
func (s *searcher) rise(u, gradient []float64, room *[2][]float64) float64 {
	clear(gradient)
	sum := 0.0
	dMean, dVariance := room[0], room[1]
	if s.some || len(s.limits) == 0 {
		mean, variance := s.g.predict(u, s.v)
		sigma := math.Sqrt(variance)
		z := (s.target - mean) / sigma
		h, dh := logImprovement(z)
		sum = math.Log(sigma) + h
		s.g.slope(u, s.v, dMean, dVariance)
		for j := range gradient {
			dSigma := dVariance[j] / (2 * sigma)
			gradient[j] += dSigma/sigma + dh*(-dMean[j]-z*dSigma)/sigma
		}
	}
	for i := range s.limits {
		l := &s.limits[i]
		mean, variance := l.g.predict(u, l.v)
		sigma := math.Sqrt(variance)
		z := (l.bound - mean) / sigma
		h, dh := logChance(z)
		sum += h
		l.g.slope(u, l.v, dMean, dVariance)
		for j := range gradient {
			gradient[j] += dh * (-dMean[j] - z*dVariance[j]/(2*sigma)) / sigma
		}
	}
	return sum
}

// logChance returns log Φ(z) and its derivative, also where z is far below
// zero.
func logChance(z float64) (value, slope float64) {
	if z > -12 {
		cdf := normal.CDF(z)
		return math.Log(cdf), normal.Prob(z) / cdf
	}
	z2 := z * z
	return -z2/2 - 0.5*math.Log(2*math.Pi) - math.Log(-z) + math.Log1p(-1/z2+3/(z2*z2)),
		-z / (1 - 1/z2 + 3/(z2*z2))
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

// candidate is a point of the unit cube and what it promises.
type candidate struct {
	unit []float64
	gain float64
}

// best takes the most promising candidates, climbs from those that lie apart, and gives the best of
// what was reached. A space that is listed whole needs no climbing.
func (s *searcher) best(rng *rand.Rand) []float64 {
	candidates := s.candidates(rng)
	sort.SliceStable(candidates, func(i, j int) bool { return candidates[i].gain > candidates[j].gain })
	if len(s.whole) == 0 {
		var climbed []candidate
		for _, c := range candidates {
			if len(climbed) == s.effort.climbs {
				break
			}
			beside := false
			for _, other := range climbed {
				beside = beside || near(c.unit, other.unit, 0.01)
			}
			if !beside {
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

// tried reports whether u stands where a point was proposed before.
func (s *searcher) tried(u []float64) bool {
	for i := range s.seen {
		if s.seen[i].unit != nil && near(u, s.seen[i].unit, apart) {
			return true
		}
	}
	return false
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
	for i := 0; i < s.effort.scatter; i++ {
		u := make([]float64, len(s.low))
		for j := range u {
			u[j] = s.low[j] + (s.high[j]-s.low[j])*rng.Float64()
		}
		consider(s.problem.Space.FromUnit(s.perturb(u, rng)))
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

// slide moves a candidate's continuous axes up the gradient; the others stay.
func (s *searcher) slide(c candidate) candidate {
	d := len(c.unit)
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
	whole := make([]float64, d)
	room := [2][]float64{make([]float64, d), make([]float64, d)}
	x, lo, hi := make([]float64, len(axes)), make([]float64, len(axes)), make([]float64, len(axes))
	for i, j := range axes {
		x[i], lo[i], hi[i] = u[j], math.Min(s.low[j], u[j]), math.Max(s.high[j], u[j])
	}
	value := descend(func(x, gradient []float64) float64 {
		for i, j := range axes {
			u[j] = x[i]
		}
		value := s.rise(u, whole, &room)
		for i, j := range axes {
			gradient[i] = -whole[j]
		}
		return -value
	}, x, lo, hi, s.effort.climbCalls)
	if -value > c.gain {
		for i, j := range axes {
			u[j] = x[i]
		}
		return candidate{u, -value}
	}
	return c
}

// steps lists the finite axes that candidates are moved along, a cell at a time:
// all, or where there are very many, those that matter most to the model.
func (s *searcher) steps() []int {
	var axes []int
	for j := range s.problem.Space.Params {
		if n, finite := s.problem.Space.Params[j].Cells(); finite && n > 1 {
			axes = append(axes, j)
		}
	}
	if len(axes) > maxSteps {
		slices.SortStableFunc(axes, func(i, j int) int { return cmp.Compare(s.g.weight[j], s.g.weight[i]) })
		axes = axes[:maxSteps]
		slices.Sort(axes)
	}
	return axes
}

// step tries other cells on finite axes, near ones first.
func (s *searcher) step(c candidate) candidate {
	for _, j := range s.stepped {
		a := &s.problem.Space.Params[j]
		n, _ := a.Cells()
		p := s.problem.Space.FromUnit(c.unit)
		if p[j].IsAbsent() {
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
