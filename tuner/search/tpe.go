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
}

func newTPE(p Problem) *tpe {
	t := &tpe{problem: p}
	for i := range p.Space.Params {
		a := &p.Space.Params[i]
		n, finite := a.Cells()
		if !finite {
			n = 0
		}
		t.cells = append(t.cells, float64(n))
		t.choice = append(t.choice, a.Kind == space.KindCategorical)
	}
	return t
}

func (t *tpe) suggest(number int64, seen []observation) ([]float64, error) {
	rng := stream(t.problem.Seed, number, saltPoint)
	done, open := split(seen)
	order := ranking(done)
	good := min(25, max(2, int(math.Ceil(0.1*float64(len(done))))))
	good = min(good, len(done))
	var above, below [][]float64
	for i, k := range order {
		if i < good && done[k].result == scored {
			above = append(above, done[k].unit)
		} else {
			below = append(below, done[k].unit)
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
	for _, o := range open {
		below = append(below, o.unit)
	}
	l, g := t.density(above, true), t.density(below, false)
	best, score := []float64(nil), math.Inf(-1)
	for i := 0; i < tpeDraws; i++ {
		u := t.problem.Space.Unit(t.problem.Space.FromUnit(l.draw(rng)))
		if s := l.log(u) - g.log(u); s > score || best == nil {
			best, score = u, s
		}
	}
	return best, nil
}

// density is a mixture of product kernels, one a point, and a flat prior.
type density struct {
	*tpe
	points [][]float64
	width  [][]float64 // by kernel and axis; of a numeric axis
	norm   [][]float64 // log of each kernel's mass within the cube times width
	weight []float64   // by kernel; the last is the prior's
	same   float64     // probability that a categorical kernel keeps its value
}

func (t *tpe) density(points [][]float64, good bool) *density {
	n, d := len(points), len(t.cells)
	e := &density{tpe: t, points: points, same: float64(n+1) / float64(n+2)}
	// The bandwidth of Optuna's multivariate estimator: it shrinks with the
	// number of kernels, whatever their spread, so that a cluster that formed
	// by chance does not trap the search.
	base := bandwidth * math.Pow(float64(max(n, 1)), -1/(float64(d)+4))
	base = math.Max(base, 1/math.Min(100, float64(n)+1)*floorShare)
	for i := 0; i < n; i++ {
		width, norm := make([]float64, d), make([]float64, d)
		for j := range width {
			w := base
			if t.cells[j] > 0 && !t.choice[j] {
				w = math.Max(w, 0.6/t.cells[j])
			}
			width[j] = w
			mass := normal.CDF((1-points[i][j])/w) - normal.CDF(-points[i][j]/w)
			norm[j] = -math.Log(w * math.Max(mass, 1e-12) * math.Sqrt(2*math.Pi))
		}
		e.width, e.norm = append(e.width, width), append(e.norm, norm)
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
	prior := 1.0
	e.weight = append(e.weight, prior)
	total += prior
	for i := range e.weight {
		e.weight[i] /= total
	}
	return e
}

func (e *density) draw(rng *rand.Rand) []float64 {
	at, r := 0, rng.Float64()
	for at < len(e.weight)-1 && r >= e.weight[at] {
		r -= e.weight[at]
		at++
	}
	u := make([]float64, len(e.cells))
	for j := range u {
		switch {
		case at == len(e.points):
			u[j] = rng.Float64()
		case e.choice[j]:
			u[j] = e.points[at][j]
			if rng.Float64() >= e.same {
				u[j] = rng.Float64()
			}
		default:
			u[j] = truncated(e.points[at][j], e.width[at][j], rng)
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

// log is the logarithm of the density at u.
func (e *density) log(u []float64) float64 {
	terms := make([]float64, 0, len(e.weight))
	largest := math.Inf(-1)
	for i, w := range e.weight {
		s := math.Log(w)
		if i < len(e.points) {
			p, width, norm := e.points[i], e.width[i], e.norm[i]
			for j := range u {
				if e.choice[j] {
					// Relative to the flat prior, like the numeric axes.
					other := (1 - e.same)
					if u[j] == p[j] {
						s += math.Log(e.same*e.cells[j] + other)
					} else {
						s += math.Log(other)
					}
					continue
				}
				z := (u[j] - p[j]) / width[j]
				s += norm[j] - z*z/2
			}
		}
		terms = append(terms, s)
		largest = math.Max(largest, s)
	}
	sum := 0.0
	for _, s := range terms {
		sum += math.Exp(s - largest)
	}
	return largest + math.Log(sum)
}
