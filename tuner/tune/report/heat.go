package report

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"atelier/common/plot"
	"atelier/common/space"
)

const (
	mostListed = 8  // values of a number that stand alone in a heat map
	mostBins   = 6  // else: even stretches of its axis, fewer with few trials
	mostChosen = 16 // choices of one axis of a heat map
)

// heatmaps shows the median value over two parameters at a time.
func (v *view) heatmaps() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ranked) < 2 {
		return f, nil, "fewer than two trials have a value"
	}
	// Pairs among the n most important parameters are tried until enough show
	// something: a pair whose second is active only where the first has one
	// value shows nothing.
	able := v.chief(len(v.Space.Params), func(k int) bool { return v.varied(k) && len(v.Space.Params[k].Choices) <= mostChosen })
	if len(able) < 2 {
		return f, nil, fmt.Sprintf("it takes two parameters that vary; there is %d", len(able))
	}
	_, low, high, _ := v.values()
	left := 0
	for j := 1; j < len(able); j++ {
		for i := range j {
			if len(panels) == max(mostPairs/max(len(v.Objectives), 1), 1) {
				left++
				continue
			}
			if p := v.heatmap(able[i], able[j], low, high); p != nil {
				panels = append(panels, p)
			}
		}
	}
	if len(panels) == 0 {
		return f, nil, "no two parameters vary together"
	}
	title := fmt.Sprintf("median of %s, best darkest, with the number of trials", v.named())
	if left > 0 {
		title += fmt.Sprintf("; %s left out", plural(left, "less important pair"))
	}
	return plot.Figure{Title: v.title(title), Columns: min(mostColumns, len(panels))}, panels, ""
}

// heatmap is one pair; nil where it would have a single row or column.
func (v *view) heatmap(a, b int, low, high float64) *plot.Panel {
	ax, bx := v.cells(a), v.cells(b)
	if len(ax.names) < 2 || len(bx.names) < 2 {
		return nil
	}
	held := make([][][]float64, len(bx.names))
	for i := range held {
		held[i] = make([][]float64, len(ax.names))
	}
	rows, columns := map[int]bool{}, map[int]bool{}
	for _, t := range v.ranked {
		i, k := bx.of(v.at(t, b)), ax.of(v.at(t, a))
		if i >= 0 && k >= 0 {
			held[i][k] = append(held[i][k], t.Value)
			rows[i], columns[k] = true, true
		}
	}
	if len(rows) < 2 || len(columns) < 2 {
		return nil
	}
	var all []float64
	for i := range held {
		for _, xs := range held[i] {
			if len(xs) > 0 {
				all = append(all, median(xs))
			}
		}
	}
	forms := plot.Numbers(all)
	written := func(x float64) string { return forms[slices.Index(all, x)] }
	m := plot.Cells{Rows: bx.names, Columns: ax.names, Low: plot.At(low), High: plot.At(high), LowIsBest: !v.Maximize}
	for i := range held {
		values, labels := make([]float64, len(ax.names)), make([]string, len(ax.names))
		for k, xs := range held[i] {
			values[k] = math.NaN()
			if len(xs) > 0 {
				values[k] = median(xs)
				labels[k] = fmt.Sprintf("%s\n%d", written(values[k]), len(xs))
			}
		}
		m.Values, m.Labels = append(m.Values, values), append(m.Labels, labels)
	}
	pa, pb := v.Space.Params[a].Name, v.Space.Params[b].Name
	// Numbers grow upwards, as on any chart, and choices with them.
	slices.Reverse(m.Rows)
	slices.Reverse(m.Values)
	slices.Reverse(m.Labels)
	return plot.Matrix(plot.Axes{Title: pb + " and " + pa + v.of(), X: pa, Y: pb}, m)
}

func median(xs []float64) float64 {
	sorted := slices.Sorted(slices.Values(xs))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// cellAxis cuts a parameter into cells.
type cellAxis struct {
	names []string
	of    func(x float64) int // -1: in none
}

func (v *view) cells(k int) cellAxis {
	p := &v.Space.Params[k]
	if p.Kind == space.KindCategorical {
		return cellAxis{choices(p), func(x float64) int {
			if math.IsNaN(x) {
				return -1
			}
			return int(x)
		}}
	}
	var seen []float64
	used := 0 // by so many trials
	for _, t := range v.ranked {
		x := v.at(t, k)
		if finite(x) {
			used++
		}
		if finite(x) && !slices.Contains(seen, x) {
			seen = append(seen, x)
		}
	}
	sort.Float64s(seen)
	// A few values stand each for itself, unless nearly every trial that uses it has its own:
	// then a cell would hold a single trial.
	if len(seen) <= mostListed && (p.Kind == space.KindInt || 2*len(seen) <= used) {
		var names []string
		for _, x := range seen {
			names = append(names, plot.Number(x))
		}
		return cellAxis{names, func(x float64) int { return slices.Index(seen, x) }}
	}
	bins := min(mostBins, max(2, used/4))
	// Over what was tried, not over the whole axis: a search narrows.
	low, high := seen[0], seen[len(seen)-1]
	edge := func(i int) float64 { return low + (high-low)*float64(i)/float64(bins) }
	place := func(x float64) float64 { return (x - low) / (high - low) }
	if p.Log && low > 0 {
		edge = func(i int) float64 { return low * math.Pow(high/low, float64(i)/float64(bins)) }
		place = func(x float64) float64 { return math.Log(x/low) / math.Log(high/low) }
	}
	var names []string
	for i := range bins {
		names = append(names, short(edge(i))+" to "+short(edge(i+1)))
	}
	return cellAxis{names, func(x float64) int {
		if !finite(x) {
			return -1
		}
		return min(max(int(place(x)*float64(bins)), 0), bins-1)
	}}
}

// short is an end of a cell, in two figures or as a whole number.
func short(x float64) string {
	if math.Abs(x) >= 100 && math.Abs(x) < 1e6 {
		return plot.Number(math.Round(x))
	}
	if x == 0 {
		return "0"
	}
	power := math.Pow(10, 1-math.Floor(math.Log10(math.Abs(x))))
	return plot.Number(math.Round(x*power) / power)
}
