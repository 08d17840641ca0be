package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"atelier/common/plot"
	"atelier/common/space"
	"atelier/tuner/search"
)

// plane is two numeric parameters and the trials that use both.
type plane struct {
	x, y   *space.Parameter
	trials []*Trial // the best first
	xs, ys []float64
	values []float64
}

// planes are pairs of the most important numeric parameters that vary.
func (v *view) planes() (out []plane, reason string) {
	if len(v.ranked) < 2 {
		return nil, "fewer than two trials have a value"
	}
	able := v.chief(len(v.Space.Params), func(k int) bool { return v.varied(k) && v.Space.Params[k].Kind != space.KindCategorical })
	if len(able) < 2 {
		return nil, fmt.Sprintf("it takes two numeric parameters that vary; there is %d", len(able))
	}
	most := max(mostPlanes/max(len(v.Objectives), 1), 1)
	for j := 1; j < len(able); j++ {
		for i := range j {
			p := plane{x: &v.Space.Params[able[i]], y: &v.Space.Params[able[j]]}
			differ := false
			for _, t := range v.ranked {
				if x, y := v.at(t, able[i]), v.at(t, able[j]); finite(x) && finite(y) {
					p.trials = append(p.trials, t)
					p.xs, p.ys, p.values = append(p.xs, x), append(p.ys, y), append(p.values, t.Value)
					differ = differ || x != p.xs[0] && slices.ContainsFunc(p.ys, func(o float64) bool { return o != y })
				}
			}
			if differ && len(out) < most {
				out = append(out, p)
			}
		}
	}
	if len(out) == 0 {
		return nil, "no two numeric parameters vary together"
	}
	return out, ""
}

func (p plane) axes(metric string) plot.Axes {
	return plot.Axes{Title: p.y.Name + " and " + p.x.Name + metric, X: p.x.Name, Y: p.y.Name, LogX: p.x.Log, LogY: p.y.Log,
		WholeX: p.x.Kind == space.KindInt, WholeY: p.y.Kind == space.KindInt}
}

// of is the objective in a panel's title, where there are several.
func (v *view) of() string {
	if len(v.Objectives) < 2 {
		return ""
	}
	return ": " + v.Metric
}

// named is what a figure of all objectives shows.
func (v *view) named() string {
	if len(v.Objectives) < 2 {
		return v.Metric
	}
	return "each objective"
}

// contour shows the value over two parameters.
func (v *view) contour() (f plot.Figure, panels []*plot.Panel, reason string) {
	planes, reason := v.planes()
	if reason != "" {
		return f, nil, reason
	}
	_, low, high, _ := v.values()
	for _, p := range planes {
		s := plot.Surface{X: p.xs, Y: p.ys, Value: p.values, Low: low, High: high, LowIsBest: !v.Maximize}
		s.Best = 1 + slices.Index(p.trials, v.ranked[0])
		panels = append(panels, plot.Contour(p.axes(v.of()), s))
	}
	return plot.Figure{Title: v.title(fmt.Sprintf("%s over two parameters, best darkest", v.named())), Columns: mostColumns}, panels, ""
}

// ranks shows where the best and the worst trials lie.
func (v *view) ranks() (f plot.Figure, panels []*plot.Panel, reason string) {
	planes, reason := v.planes()
	if reason != "" {
		return f, nil, reason
	}
	for i, p := range planes {
		var level []float64
		for _, t := range p.trials {
			level = append(level, 1-float64(v.rank[t.Number]-1)/float64(max(len(v.ranked)-1, 1)))
		}
		a := p.axes(v.of())
		if i == len(planes)-1 {
			a.Levels = [2]string{"worst", "best"}
		}
		panels = append(panels, plot.Lines(a, plot.Series{X: p.xs, Y: p.ys, Points: true, Level: level, Best: 1 + slices.Index(p.trials, v.ranked[0])}))
	}
	return plot.Figure{Title: v.title("rank by " + v.named()), Columns: mostColumns}, panels, ""
}

// distribution is the share of trials up to each value: the empirical
// distribution function.
func (v *view) distribution() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ranked) < 2 {
		return f, nil, "fewer than two trials have a value"
	}
	values, low, high, outside := v.values()
	slices.Sort(values)
	var xs, ys []float64
	for i, x := range values {
		if x < low || x > high {
			continue
		}
		if xs == nil {
			xs, ys = append(xs, x), append(ys, float64(i)/float64(len(values)))
		}
		xs, ys = append(xs, x), append(ys, float64(i+1)/float64(len(values)))
	}
	a := plot.Axes{Title: fmt.Sprintf("%s, %s%s", v.Metric, v.direction(), farOff(outside, "not drawn")), X: v.Metric, Y: "trials up to this value", Percent: true, Low: plot.At(0), High: plot.At(1)}
	best := v.ranked[0]
	a.Marks = []plot.Mark{{X: best.Value, Name: fmt.Sprintf("best: %s, trial %d", plot.Number(best.Value), best.Number)}}
	return plot.Figure{Title: v.title("distribution of values"), Columns: 2}, []*plot.Panel{plot.Lines(a, plot.Series{X: xs, Y: ys, Steps: true})}, ""
}

// pareto shows two objectives at a time and the trials that no other improves
// upon in all of them.
func (v *view) pareto() (f plot.Figure, panels []*plot.Panel, reason string) {
	var history []search.Trial
	values := map[int64][]float64{}
	for _, t := range v.ranked {
		all := []float64{t.Value}
		for _, o := range v.Objectives[1:] {
			if x, ok := t.objective(o.Metric); ok {
				all = append(all, x)
			}
		}
		if len(all) == len(v.Objectives) {
			values[t.Number] = all
			history = append(history, search.Trial{Number: t.Number, Status: search.Complete, HasValue: true, Values: all})
		}
	}
	if len(history) == 0 {
		return f, nil, "no trial has a value of every objective"
	}
	front := search.Front(search.Problem{Space: &v.Space, Objectives: v.Objectives}, history)
	slices.SortFunc(history, func(a, b search.Trial) int { return cmp.Compare(a.Number, b.Number) })
	for j := 1; j < len(v.Objectives) && len(panels) < mostPlanes; j++ {
		for i := 0; i < j && len(panels) < mostPlanes; i++ {
			panels = append(panels, v.frontier(i, j, history, front, values))
		}
	}
	title := fmt.Sprintf("Pareto front, %d of %s", len(front), plural(len(history), "trial"))
	return plot.Figure{Title: v.title(title), Columns: min(2, len(panels))}, panels, ""
}

func (v *view) frontier(i, j int, history []search.Trial, front []int64, values map[int64][]float64) *plot.Panel {
	other := plot.Series{Name: "other trials", Points: true, Faint: true}
	best := plot.Series{Name: "Pareto front", Points: true}
	var ys []float64
	for _, t := range history {
		x, y := values[t.Number][i], values[t.Number][j]
		ys = append(ys, y)
		s := &other
		if slices.Contains(front, t.Number) {
			s = &best
			s.Labels = append(s.Labels, fmt.Sprint(t.Number))
		}
		s.X, s.Y = append(s.X, x), append(s.Y, y)
	}
	low, high, outside := fence(ys)
	for _, y := range best.Y { // the front is never beyond the axis
		low, high = math.Min(low, y), math.Max(high, y)
	}
	words := func(o int) string {
		if v.Objectives[o].Maximize {
			return v.Objectives[o].Metric + ", higher is better"
		}
		return v.Objectives[o].Metric + ", lower is better"
	}
	a := plot.Axes{Title: v.Objectives[i].Metric + " and " + v.Objectives[j].Metric, X: words(i), Y: words(j), Low: plot.At(low), High: plot.At(high)}
	if outside > 0 {
		a.Title += fmt.Sprintf("; %s far off", plural(outside, "value"))
	}
	series := []plot.Series{best, other}
	if len(v.Objectives) == 2 { // of more, the front is no line in a plane of two
		order := make([]int, len(best.X))
		for k := range order {
			order[k] = k
		}
		slices.SortFunc(order, func(p, q int) int { return cmp.Compare(best.X[p], best.X[q]) })
		// Steps keep their height until the next point: the region that the front
		// rules out lies beyond them, for an objective to be minimized.
		edge := plot.Series{Guide: true, Steps: v.Objectives[0].Maximize == v.Objectives[1].Maximize && !v.Objectives[0].Maximize}
		for _, k := range order {
			edge.X, edge.Y = append(edge.X, best.X[k]), append(edge.Y, best.Y[k])
		}
		series = append([]plot.Series{edge}, series...)
	}
	return plot.Wide(plot.Lines(a, series...), 1.2)
}
