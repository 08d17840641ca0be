package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"atelier/common/plot"
	"atelier/common/space"
)

// chart is one file. draw gives a reason instead of panels where it cannot
// be drawn.
type chart struct {
	name, about string
	draw        func(v *view) (f plot.Figure, panels []*plot.Panel, reason string)
}

var charts = []chart{
	{"optimization_history.png", "value of every trial, and the best so far", (*view).history},
	{"parameter_importance.png", "what sets the best trials apart (PED-ANOVA)", (*view).importance},
	{"pairwise_heatmaps.png", "median value by two parameters at a time", (*view).heatmaps},
	{"parallel_coordinates.png", "one line a trial through all parameters", (*view).parallel},
	{"slice_plots.png", "value against each parameter", (*view).slices},
	{"learning_curves.png", "metrics by epoch, the best five trials marked", (*view).curves},
	{"slot_timeline.png", "which slot trained which trial when", (*view).timeline},
}

const (
	mostSlices = 12
	mostPairs  = 6
	mostAxes   = 9 // of parallel coordinates, the value not counted
	mostSlots  = 40
	mostCurves = 4 // panels
	marked     = 5 // trials with a colour of their own among the curves
)

func (v *view) title(what string) string {
	name := v.Name
	if name == "" {
		name = v.ID
	}
	return strings.TrimPrefix(name+": "+what, ": ")
}

func (v *view) direction() string {
	if v.Maximize {
		return "higher is better"
	}
	return "lower is better"
}

// values of the trials that ended with one, the best first, and the range that
// charts show of them.
func (v *view) values() (xs []float64, low, high float64, note string) {
	for _, t := range v.ranked {
		xs = append(xs, t.Value)
	}
	low, high, outside := fence(xs)
	if outside > 0 {
		note = fmt.Sprintf(" (%s far off, at the edge)", plural(outside, "value"))
	}
	return xs, low, high, note
}

// airy keeps points off the ends of the upright axis.
func airy(a *plot.Axes, low, high float64) {
	if air := 0.04 * (high - low); air > 0 {
		a.Low, a.High = plot.At(low-air), plot.At(high+air)
	}
}

func (v *view) history() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ended) == 0 {
		return f, nil, "no trial has a value"
	}
	_, low, high, note := v.values()
	var xs, each, best []float64
	for i, t := range v.ended {
		xs = append(xs, float64(i+1))
		each = append(each, clamp(t.Value, low, high))
		if i == 0 || v.better(t.Value, best[i-1]) {
			best = append(best, t.Value)
		} else {
			best = append(best, best[i-1])
		}
	}
	a := plot.Axes{Title: v.Metric + ", " + v.direction() + note, X: "trials ended with a value", Y: v.Metric}
	airy(&a, low, high)
	return plot.Figure{Title: v.title("optimisation history")}, []*plot.Panel{plot.Wide(plot.Lines(a,
		plot.Series{Name: "trial", X: xs, Y: each, Points: true}, plot.Series{Name: "best so far", X: xs, Y: best}), 1.5)}, ""
}

func (v *view) importance() (f plot.Figure, panels []*plot.Panel, reason string) {
	if v.scores == nil {
		return f, nil, v.unsaid
	}
	const most = 30
	var names []string
	var shares []float64
	for _, s := range v.scores {
		names, shares = append(names, s.Parameter), append(shares, s.Share)
	}
	title := "share of what sets the best trials apart"
	if len(names) > most {
		title += fmt.Sprintf(" (the first %d of %d)", most, len(names))
		names, shares = names[:most], shares[:most]
	}
	return plot.Figure{Title: v.title("importance for " + v.Metric)}, []*plot.Panel{plot.Ranked(plot.Axes{Title: title, X: "share (PED-ANOVA)"}, names, shares)}, ""
}

func (v *view) parallel() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ranked) < 2 {
		return f, nil, "fewer than two trials have a value"
	}
	shown := v.chief(mostAxes, func(int) bool { return true })
	left := len(v.Space.Params) - len(shown)
	slices.Sort(shown)
	_, low, high, note := v.values()
	var axes []plot.Axis
	for _, k := range shown {
		p := &v.Space.Params[k]
		axes = append(axes, plot.Axis{Name: p.Name, Log: p.Log, Choices: choices(p)})
	}
	axes = append(axes, plot.Axis{Name: v.Metric})
	var rows [][]float64
	var level []float64
	for i, t := range v.ranked {
		var row []float64
		for _, k := range shown {
			row = append(row, v.at(t, k))
		}
		rows = append(rows, append(row, clamp(t.Value, low, high)))
		level = append(level, 1-float64(i)/float64(max(len(v.ranked)-1, 1)))
	}
	title := fmt.Sprintf("%s, coloured by rank%s", plural(len(rows), "trial"), note)
	if left > 0 {
		title += fmt.Sprintf("; %s left out", plural(left, "less important parameter"))
	}
	return plot.Figure{Title: v.title("parallel coordinates")}, []*plot.Panel{plot.Parallel(plot.Axes{Title: title}, axes, rows, level)}, ""
}

func (v *view) slices() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ranked) < 2 {
		return f, nil, "fewer than two trials have a value"
	}
	shown := v.chief(mostSlices, v.varied)
	if len(shown) == 0 {
		return f, nil, "no parameter took two values"
	}
	_, low, high, note := v.values()
	last := v.Trials[len(v.Trials)-1].Number
	for _, k := range shown {
		p := &v.Space.Params[k]
		var xs, ys, level []float64
		seen := map[[2]float64]int{}
		for _, t := range v.ranked {
			x, y := v.at(t, k), clamp(t.Value, low, high)
			if math.IsNaN(x) {
				continue
			}
			if p.Kind == space.KindCategorical {
				// Points of one choice stand side by side, the same way every time.
				at := [2]float64{x, 0}
				x += 0.25 * math.Sin(float64(seen[at])*2.4)
				seen[at]++
			}
			xs, ys = append(xs, x), append(ys, y)
			level = append(level, 0.92*float64(t.Number)/float64(max(last, 1)))
		}
		a := plot.Axes{Title: p.Name, X: p.Name, Y: v.Metric, LogX: p.Log, Choices: choices(p), Levels: [2]string{"first", "last"}}
		if len(xs) < len(v.ranked) {
			a.Title += fmt.Sprintf(" (active in %d of %d)", len(xs), len(v.ranked))
		}
		airy(&a, low, high)
		panels = append(panels, plot.Lines(a, plot.Series{X: xs, Y: ys, Points: true, Level: level}))
	}
	title := fmt.Sprintf("%s by parameter, coloured by the trial's number%s", v.Metric, note)
	if all := v.chief(len(v.Space.Params), v.varied); len(all) > len(shown) {
		title += fmt.Sprintf("; %s left out", plural(len(all)-len(shown), "less important parameter"))
	}
	return plot.Figure{Title: v.title(title), Columns: min(3, len(panels))}, panels, ""
}
