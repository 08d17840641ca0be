package search

import (
	"math"
	"math/rand/v2"

	"atelier/common/space"
)

const (
	tpeDraws  = 32  // candidates drawn from the good density
	tpeKernel = 256 // kernels of the bad density, at most

	bandwidth  = 0.12 // of a single kernel, as a share of the axis
	floorShare = 0.2  // least bandwidth, in shares of 1/(kernels + 1)
)

// tpe is a multivariate tree-structured Parzen estimator (Bergstra et al.,
// 2011; Falkner et al., 2018; Watanabe, 2023): candidates are drawn from a
// kernel density of the good trials and the one with the highest ratio of good
// to bad density is taken. Trials in progress count as bad, so that slots do
// not crowd together.
type tpe struct {
	problem Problem
	cells   []float64 // number of values by axis; 0 for continuous axes
	choice  []bool

	conditional, mixed bool // whether any axis has a condition, or is categorical
}

// newTPE looks at the axes once.
func newTPE(p Problem) *tpe {
	t := &tpe{problem: p, conditional: p.Space.Conditional()}
	for i := range p.Space.Params {
		a := &p.Space.Params[i]
		n, finite := a.Cells()
		if !finite {
			n = 0
		}
		t.cells = append(t.cells, float64(n))
		t.choice = append(t.choice, a.Kind == space.KindCategorical)
		t.mixed = t.mixed || a.Kind == space.KindCategorical
	}
	return t
}

// suggest implements algorithm.
func (t *tpe) suggest(number int64, seen []observation) ([]float64, error) {
	rng := stream(t.problem.Seed, number, saltPoint)
	done, open := split(seen)
	order := ranking(done)
	good := min(25, max(2, int(math.Ceil(0.1*float64(len(done))))))
	good = min(good, len(done))
	var above, below []observation
	for i, k := range order {
		if i < good && done[k].result == scored {
			above = append(above, done[k])
		} else {
			below = append(below, done[k])
		}
	}
	if len(below) > tpeKernel { // the worse half tells least: thin it evenly
		kept := below[: tpeKernel/2 : tpeKernel/2]
		rest := below[tpeKernel/2:]
		for k := 0; k < tpeKernel/2; k++ {
			kept = append(kept, rest[k*len(rest)/(tpeKernel/2)])
		}
		below = kept
	}
	below = append(below, open...)
	l, g := t.density(above, true), t.density(below, false)
	best, score := []float64(nil), math.Inf(-1)
	for i := 0; i < tpeDraws; i++ {
		p := t.problem.Space.FromUnit(l.draw(rng))
		u := t.problem.Space.Unit(p)
		var active []bool
		if t.conditional {
			active = make([]bool, len(p))
			for j := range p {
				active[j] = !p[j].IsAbsent()
			}
		}
		if s := l.log(u, active) - g.log(u, active); s > score || best == nil {
			best, score = u, s
		}
	}
	return best, nil
}

// density is a mixture of product kernels, one an observation, and a flat
// prior. All densities are relative to the flat one. An axis that is inactive in
// an observation is flat in its kernel.
type density struct {
	*tpe
	kernels []observation
	width   []float64 // by axis, of numbers
	norm    []float64 // by kernel and axis: log of what makes the kernel's mass one
	total   []float64 // by kernel: the sum of its norms
	weight  []float64 // by kernel; the last is the prior's
	heavy   []float64 // logarithms of the weights
	inverse []float64 // of the widths
	stay    []float64 // by axis: log density of a categorical kernel at its value
	leave   float64   // and at every other
	same    float64   // chance that a categorical kernel keeps its value
}

// density is a mixture of one kernel an observation and the even distribution.
func (t *tpe) density(kernels []observation, good bool) *density {
	n, d := len(kernels), len(t.cells)
	e := &density{tpe: t, kernels: kernels, same: float64(n+1) / float64(n+2)}
	// The bandwidth of Optuna's multivariate estimator: it shrinks with the
	// number of kernels, whatever their spread, so that a cluster that formed
	// by chance does not trap the search.
	base := bandwidth * math.Pow(float64(max(n, 1)), -1/(float64(d)+4))
	base = math.Max(base, 1/math.Min(100, float64(n)+1)*floorShare)
	e.leave = math.Log(1 - e.same)
	masses := make([]*masses, d)
	e.width, e.inverse, e.stay = make([]float64, d), make([]float64, d), make([]float64, d)
	for j, cells := range t.cells {
		e.width[j] = base
		if cells > 0 && !t.choice[j] {
			e.width[j] = math.Max(base, 0.6/cells)
		}
		e.inverse[j] = 1 / e.width[j]
		e.stay[j] = math.Log(e.same*cells + 1 - e.same) // of categories alone
		for k := 0; k <= j && masses[j] == nil; k++ {
			if k == j {
				masses[j] = newMasses(e.width[j])
			} else if e.width[k] == e.width[j] {
				masses[j] = masses[k]
			}
		}
	}
	e.norm, e.total = make([]float64, n*d), make([]float64, n)
	for i := range kernels {
		row := e.norm[i*d : (i+1)*d]
		for j, u := range kernels[i].unit {
			if !t.choice[j] && (kernels[i].active == nil || kernels[i].active[j]) {
				row[j] = masses[j].norm(u)
				e.total[i] += row[j]
			}
		}
	}
	total := 0.0
	for i := 0; i < n; i++ {
		w := 1.0
		if good { // better points pull more
			w = math.Log(float64(n)+1.5) - math.Log(float64(i)+1)
		}
		e.weight = append(e.weight, w)
		total += w
	}
	e.weight = append(e.weight, 1)
	total++
	for i := range e.weight {
		e.weight[i] /= total
		e.heavy = append(e.heavy, math.Log(e.weight[i]))
	}
	return e
}

// draw takes a kernel by its weight, then a point of it; an axis that is inactive in it is drawn
// evenly.
func (e *density) draw(rng *rand.Rand) []float64 {
	at, r := 0, rng.Float64()
	for at < len(e.weight)-1 && r >= e.weight[at] {
		r -= e.weight[at]
		at++
	}
	u := make([]float64, len(e.cells))
	for j := range u {
		switch {
		case at == len(e.kernels) || e.kernels[at].active != nil && !e.kernels[at].active[j]:
			u[j] = rng.Float64()
		case e.choice[j]:
			u[j] = e.kernels[at].unit[j]
			if rng.Float64() >= e.same {
				u[j] = rng.Float64()
			}
		default:
			u[j] = truncated(e.kernels[at].unit[j], e.width[j], rng)
		}
	}
	return u
}

// truncated draws from a normal within [0, 1].
func truncated(mean, width float64, rng *rand.Rand) float64 {
	for try := 0; try < 64; try++ {
		if u := mean + width*rng.NormFloat64(); u >= 0 && u <= 1 {
			return u
		}
	}
	return mean
}

// negligible is how far below the largest a term may stand, in the logarithm,
// before it is left out of a sum.
const negligible = 40

// log is the logarithm of the density at u, whose active axes are given (nil:
// all).
func (e *density) log(u []float64, active []bool) float64 {
	d := len(u)
	last := len(e.kernels)
	terms := make([]float64, 0, last+1)
	largest := e.heavy[last]
	terms = append(terms, largest)
	for i := range e.kernels {
		k := &e.kernels[i]
		s := e.heavy[i]
		switch {
		case active == nil && !e.mixed:
			s += e.total[i]
			least := largest - negligible
			for j, p := range k.unit {
				z := (u[j] - p) * e.inverse[j]
				if s -= z * z / 2; s < least {
					break
				}
			}
		case active == nil:
			s += e.total[i]
			for j, p := range k.unit {
				switch {
				case !e.choice[j]:
					z := (u[j] - p) * e.inverse[j]
					s -= z * z / 2
				case u[j] == p:
					s += e.stay[j]
				default:
					s += e.leave
				}
			}
		default:
			for j, p := range k.unit {
				switch {
				case !active[j] || !k.active[j]:
				case !e.choice[j]:
					z := (u[j] - p) * e.inverse[j]
					s += e.norm[i*d+j] - z*z/2
				case u[j] == p:
					s += e.stay[j]
				default:
					s += e.leave
				}
			}
		}
		terms = append(terms, s)
		if s > largest {
			largest = s
		}
	}
	sum := 0.0
	for _, s := range terms {
		if s > largest-negligible {
			sum += math.Exp(s - largest)
		}
	}
	return largest + math.Log(sum)
}

// masses tabulates the norm of kernels of one width by where they stand.
type masses struct {
	width float64
	table [massSteps + 1]float64
	known [massSteps + 1]bool
}

const massSteps = 512

// newMasses fills its table as it is asked.
func newMasses(width float64) *masses { return &masses{width: width} }

// norm is minus the logarithm of a kernel's mass within [0, 1] times its width.
func (m *masses) norm(u float64) float64 {
	x := u * massSteps
	k := min(int(x), massSteps-1)
	t := x - float64(k)
	return (1-t)*m.at(k) + t*m.at(k+1)
}

// at is an entry of the table, computed once.
func (m *masses) at(k int) float64 {
	if !m.known[k] {
		u := float64(k) / massSteps
		mass := normal.CDF((1-u)/m.width) - normal.CDF(-u/m.width)
		m.table[k], m.known[k] = -math.Log(m.width*math.Max(mass, 1e-12)*math.Sqrt(2*math.Pi)), true
	}
	return m.table[k]
}
