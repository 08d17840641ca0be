// Package importance says how much each parameter of a sweep mattered for its
// best results.
//
// It is PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023): for every
// parameter, how far the distribution of the best tenth of the trials is from
// that of all of them, by the Pearson divergence of one-dimensional Parzen
// estimators. A pure function of space and history: no randomness, a millisecond
// for thousands of trials.
package importance

import (
	"fmt"
	"math"
	"sort"

	"atelier/common/space"
	"atelier/tuner/search"
)

const (
	// Least is the number of trials with a value below which nothing can be said.
	Least = 10

	best  = 0.1 // share of the trials that counts as the best
	few   = 5   // trials that count as the best at least, but not more than half
	cells = 50  // of the grid of an axis, at most
)

// Score is one parameter's importance.
type Score struct {
	Parameter  string
	Share      float64 // of all parameters' divergence, in [0, 1]; 0 everywhere when nothing told trials apart
	Divergence float64 // Pearson divergence of the best trials from all
	Trials     int     // trials with a value in which the parameter is active
}

// Of ranks the parameters of a sweep by what they did for objective k (from 0),
// the most important first. Trials that have ended with a finite value count,
// whether or not they meet constraints. A conditional parameter is judged on the
// trials in which it is active, and counts by their share of all.
func Of(p search.Problem, history []search.Trial, k int) ([]Score, error) {
	if p.Space == nil {
		return nil, fmt.Errorf("importance: no space")
	}
	if n := max(1, len(p.Objectives)); k < 0 || k >= n {
		return nil, fmt.Errorf("importance: objective %d of %d", k, n)
	}
	var points []space.Point
	var losses []float64
	for i := range history {
		t := &history[i]
		if v, ok := value(p, t, k); ok && p.Space.Check(t.Point) == nil {
			points, losses = append(points, t.Point), append(losses, v)
		}
	}
	if len(points) < Least {
		return nil, fmt.Errorf("importance: %d trials have a value; at least %d are needed", len(points), Least)
	}
	top := leading(losses)
	out := make([]Score, len(p.Space.Params))
	total := 0.0
	for j := range out {
		a := &p.Space.Params[j]
		size := gridSize(a)
		all, some := make([]float64, size), make([]float64, size)
		active, activeTop := 0, 0
		for i, at := range points {
			if at[j].IsAbsent() {
				continue
			}
			c := cell(a, at[j], size)
			all[c]++
			active++
			if top[i] {
				some[c]++
				activeTop++
			}
		}
		out[j] = Score{Parameter: a.Name, Trials: active}
		if active > 1 && activeTop > 1 && size > 1 {
			choices := a.Kind == space.KindCategorical
			out[j].Divergence = pearson(estimate(some, choices), estimate(all, choices)) * float64(active) / float64(len(points))
		}
		total += out[j].Divergence
	}
	for j := range out {
		if total > 0 {
			out[j].Share = out[j].Divergence / total
		}
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].Divergence > out[b].Divergence })
	return out, nil
}

// value is objective k of a trial that has ended, to be minimised.
func value(p search.Problem, t *search.Trial, k int) (float64, bool) {
	if t.Status != search.Complete && t.Status != search.Cancelled || !t.HasValue {
		return 0, false
	}
	v, maximize := t.Value, p.Maximize
	if len(p.Objectives) > 0 {
		maximize = p.Objectives[k].Maximize
	}
	if len(p.Objectives) > 1 {
		if k >= len(t.Values) {
			return 0, false
		}
		v = t.Values[k]
	}
	if maximize {
		v = -v
	}
	return v, !math.IsNaN(v) && !math.IsInf(v, 0)
}

// leading marks the best tenth, ties included.
func leading(losses []float64) []bool {
	n := len(losses)
	count := max(int(math.Ceil(best*float64(n))), min(few, n/2))
	sorted := append([]float64(nil), losses...)
	sort.Float64s(sorted)
	out := make([]bool, n)
	for i, v := range losses {
		out[i] = v <= sorted[count-1]
	}
	return out
}

// gridSize is the number of cells of a parameter's axis.
func gridSize(a *space.Parameter) int {
	n, finite := a.Cells()
	if a.Kind == space.KindCategorical {
		return int(n)
	}
	if finite && n < cells {
		return int(n)
	}
	return cells
}

// cell is where a value stands on the grid, which covers the axis on its scale,
// ends included.
func cell(a *space.Parameter, v space.Value, size int) int {
	if n, finite := a.Cells(); finite && (a.Kind == space.KindCategorical || int(n) == size) {
		i, _ := a.Index(v)
		return int(i)
	}
	c := math.Ceil(a.ToUnit(v)*float64(size-1) - 0.5)
	return int(math.Max(0, math.Min(c, float64(size-1))))
}

// pearson is the divergence of p from q, both over the same cells.
func pearson(p, q []float64) float64 {
	sum := 0.0
	for i := range p {
		ratio := (p[i]+1e-12)/(q[i]+1e-12) - 1
		sum += q[i] * ratio * ratio
	}
	return sum
}

// estimate is a Parzen estimate over the cells, with one flat kernel as prior.
func estimate(counts []float64, choices bool) []float64 {
	total, distinct := 1.0, 1.0 // the prior
	for _, c := range counts {
		if total += c; c > 0 {
			distinct++
		}
	}
	size := float64(len(counts))
	out := make([]float64, len(counts))
	if choices {
		// A kernel leaks 1/distinct of its own weight to every choice.
		row := 1 + size/distinct
		for i := range out {
			out[i] = 1 / (total * size)
			for k, c := range counts {
				mass := 1 / distinct
				if k == i {
					mass++
				}
				out[i] += c / total * mass / row
			}
		}
		return out
	}
	width := bandwidth(counts)
	for k, c := range counts {
		if c > 0 {
			spread(out, float64(k), width, c/total)
		}
	}
	spread(out, (size-1)/2, size, 1/total)
	return out
}

// spread adds weight times a normal, cut off at the ends and rounded to cells.
func spread(out []float64, mean, deviation, weight float64) {
	at := func(x float64) float64 { return 0.5 * math.Erfc(-(x-mean)/(deviation*math.Sqrt2)) }
	first, last := at(-0.5), at(float64(len(out))-0.5)
	below := first
	for i := range out {
		above := at(float64(i) + 0.5)
		out[i] += weight * (above - below) / (last - first)
		below = above
	}
}

// bandwidth is Scott's rule (1992) on the smaller of deviation and quartile
// range, in cells; at least such that nine tenths of a kernel stay in its cell.
func bandwidth(counts []float64) float64 {
	n, mean := 0.0, 0.0
	for k, c := range counts {
		n += c
		mean += c * float64(k)
	}
	mean /= n
	squares := 0.0
	for k, c := range counts {
		squares += c * (float64(k) - mean) * (float64(k) - mean)
	}
	deviation := math.Sqrt(squares / math.Max(1, n-1))
	quartile := func(rank float64, past bool) float64 {
		sum, last := 0.0, 0.0
		for k, c := range counts {
			if c == 0 {
				continue
			}
			sum += c
			last = float64(k)
			if sum > rank || !past && sum == rank {
				return last
			}
		}
		return last
	}
	between := quartile(math.Floor(3*n/4), true) - quartile(math.Floor(n/4), false)
	return math.Max(0.5/1.64, 1.059*math.Min(between/1.34, deviation)*math.Pow(n, -0.2))
}
