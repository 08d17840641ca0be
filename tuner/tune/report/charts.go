package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/plot"
	"atelier/common/space"
)

// chart is one figure, a PNG and an SVG file. draw gives a reason instead of
// panels where it cannot be drawn.
type chart struct {
	name, about string
	draw        func(v *view) (f plot.Figure, panels []*plot.Panel, reason string)
	each        bool // drawn for each objective of a sweep
	several     bool // only of sweeps with several objectives
}

var charts = []chart{
	{name: "optimization_history.png", about: "value of every trial, and the best so far", draw: (*view).history, each: true},
	{name: "parameter_importance.png", about: "what sets the best trials apart (PED-ANOVA)", draw: (*view).importance, each: true},
	{name: "pareto_front.png", about: "the trials that no other improves upon in all objectives", draw: (*view).pareto, several: true},
	{name: "value_distribution.png", about: "share of trials up to a value (EDF)", draw: (*view).distribution, each: true},
	{name: "pairwise_heatmaps.png", about: "median value by two parameters at a time", draw: (*view).heatmaps, each: true},
	{name: "contour.png", about: "value over two numeric parameters at a time", draw: (*view).contour, each: true},
	{name: "rank_plot.png", about: "trials in the plane of two parameters, coloured by rank", draw: (*view).ranks, each: true},
	{name: "parallel_coordinates.png", about: "one line per trial through all parameters", draw: (*view).parallel, each: true},
	{name: "slice_plots.png", about: "value against each parameter", draw: (*view).slices, each: true},
	{name: "learning_curves.png", about: "metrics by epoch, the best five trials marked", draw: (*view).curves},
	{name: "slot_timeline.png", about: "which slot trained which trial when", draw: (*view).timeline},
}

// figure draws a chart of a sweep, of several objectives a panel or more for
// each of them.
func (v *view) figure(c chart) (f plot.Figure, panels []*plot.Panel, reason string) {
	if !c.each || len(v.Objectives) < 2 {
		f, panels, reason = c.draw(v)
		f.About = v.about()
		return f, panels, reason
	}
	for k := range v.Objectives {
		own, more, why := c.draw(v.objective(k))
		if why != "" {
			reason = v.Objectives[k].Metric + ": " + why
			continue
		}
		if f.Title == "" {
			f = own
		}
		f.Columns = max(f.Columns, own.Columns)
		// Each objective begins a row of its own.
		for f.Columns > 1 && len(panels)%f.Columns > 0 {
			panels = append(panels, plot.Space())
		}
		panels = append(panels, more...)
	}
	if len(panels) > 0 {
		reason = ""
	}
	f.About = v.about()
	return f, panels, reason
}

// objective is the same sweep ranked by its k-th objective.
func (v *view) objective(k int) *view {
	if k == 0 {
		return v
	}
	s := *v.Sweep
	s.Metric, s.Maximize = v.Objectives[k].Metric, v.Objectives[k].Maximize
	s.Trials = slices.Clone(v.Trials)
	for i := range s.Trials {
		s.Trials[i].Value, s.Trials[i].HasValue = v.Trials[i].objective(s.Metric)
	}
	return newView(&s)
}

// objective is a metric at the epoch of the trial's value.
func (t *Trial) objective(metric string) (float64, bool) {
	for _, e := range t.Curve {
		if int(e.Epoch) == t.ValueEpoch {
			x, ok := e.Metrics.Get(metric)
			return x, ok && t.HasValue && finite(x)
		}
	}
	return 0, false
}

// about is the line below each title: model, data set, search and date.
func (v *view) about() string {
	method := v.SearchMethod
	if v.Algorithm != "" {
		method += " (" + v.Algorithm + ")"
	}
	var t struct {
		Nested struct {
			Train string `json:"train"`
		} `json:"data"`
		Train string `json:"data.train"`
	}
	data := v.Data
	if data == "" && json.Unmarshal(v.Training, &t) == nil {
		data = cmp.Or(t.Train, t.Nested.Train)
	}
	if data != "" {
		if data = filepath.ToSlash(filepath.Clean(data)); filepath.Base(data) == "train" {
			data = filepath.Dir(data)
		}
		data = filepath.Base(data)
	}
	a := plot.About{Model: v.Model, Data: data}
	if ms := cmp.Or(v.EndedMS, v.CreatedMS); ms > 0 {
		a.When = time.UnixMilli(ms)
	}
	return strings.TrimSpace(strings.Join(slices.DeleteFunc([]string{a.String(), method, plural(len(v.Trials), "trial"), v.ID}, func(s string) bool { return s == "" }), "  ·  "))
}

const (
	mostSlices  = 12
	mostPairs   = 6
	mostAxes    = 9 // of parallel coordinates, the value not counted
	mostSlots   = 40
	mostCurves  = 4 // panels
	mostColumns = 3
	mostPlanes  = 3 // of two parameters
	marked      = 5 // trials with a colour of their own among the curves
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
// charts show of them, the best always in it; outside counts those beyond.
func (v *view) values() (xs []float64, low, high float64, outside int) {
	for _, t := range v.ranked {
		xs = append(xs, t.Value)
	}
	low, high, _ = fence(xs)
	if len(xs) > 0 {
		low, high = math.Min(low, xs[0]), math.Max(high, xs[0])
	}
	for _, x := range xs {
		if x < low || x > high {
			outside++
		}
	}
	return xs, low, high, outside
}

// farOff is a part of a title about values beyond a chart's range: what the
// chart does with them.
func farOff(outside int, done string) string {
	if outside == 0 {
		return ""
	}
	return fmt.Sprintf("; %s far off, %s", plural(outside, "value"), done)
}

func (v *view) history() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ended) == 0 {
		return f, nil, "no trial has a value"
	}
	_, low, high, outside := v.values()
	note := farOff(outside, "marked at the edge")
	var xs, each, best []float64
	top := 0
	for i, t := range v.ended {
		xs = append(xs, float64(i+1))
		each = append(each, t.Value)
		if i == 0 || v.better(t.Value, best[i-1]) {
			best, top = append(best, t.Value), i+1
		} else {
			best = append(best, best[i-1])
		}
	}
	a := plot.Axes{Title: v.Metric + ", " + v.direction() + note, X: "trials ended with a value", Y: v.Metric, WholeX: true, Low: plot.At(low), High: plot.At(high)}
	return plot.Figure{Title: v.title("optimization history")}, []*plot.Panel{plot.Wide(plot.Lines(a,
		plot.Series{Name: "trial", X: xs, Y: each, Points: true, Best: top}, plot.Series{Name: "best so far", X: xs, Y: best, Steps: true}), 1.5)}, ""
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
	if len(v.Objectives) > 1 {
		title = v.Metric + ": " + title
	}
	if len(names) > most {
		title += fmt.Sprintf(" (the first %d of %d)", most, len(names))
		names, shares = names[:most], shares[:most]
	}
	return plot.Figure{Title: v.title("parameter importance")}, []*plot.Panel{plot.Ranked(plot.Axes{Title: title, X: "share (PED-ANOVA)", Percent: true}, names, shares)}, ""
}

func (v *view) parallel() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ranked) < 2 {
		return f, nil, "fewer than two trials have a value"
	}
	shown := v.chief(mostAxes, func(int) bool { return true })
	left := len(v.Space.Params) - len(shown)
	slices.Sort(shown)
	_, low, high, outside := v.values()
	note := farOff(outside, "drawn at the end of the axis")
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
	title := fmt.Sprintf("%s, coloured by rank in %s%s", plural(len(rows), "trial"), v.Metric, note)
	if left > 0 {
		title += fmt.Sprintf("; %s left out", plural(left, "less important parameter"))
	}
	return plot.Figure{Title: v.title("parallel coordinates")}, []*plot.Panel{plot.Parallel(plot.Axes{Title: title}, axes, rows, level)}, ""
}

func (v *view) slices() (f plot.Figure, panels []*plot.Panel, reason string) {
	if len(v.ranked) < 2 {
		return f, nil, "fewer than two trials have a value"
	}
	shown := v.chief(mostSlices/max(len(v.Objectives), 1), v.varied)
	if len(shown) == 0 {
		return f, nil, "no parameter took two values"
	}
	_, low, high, outside := v.values()
	note := farOff(outside, "marked at the edge")
	last := v.Trials[len(v.Trials)-1].Number
	for n, k := range shown {
		p := &v.Space.Params[k]
		var xs, ys, level []float64
		best := 0
		seen := map[[2]float64]int{}
		for _, t := range v.ranked {
			x, y := v.at(t, k), t.Value
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
			level = append(level, float64(t.Number)/float64(max(last, 1)))
			if t == v.ranked[0] {
				best = len(xs)
			}
		}
		a := plot.Axes{Title: p.Name + v.of(), X: p.Name, Y: v.Metric, LogX: p.Log, WholeX: p.Kind == space.KindInt, Choices: choices(p), Low: plot.At(low), High: plot.At(high)}
		// One colour bar explains all panels.
		if n == min(mostColumns, len(shown))-1 {
			a.Levels = [2]string{"trial 1", fmt.Sprintf("trial %d", last)}
		}
		if len(xs) < len(v.ranked) {
			a.Title += fmt.Sprintf(" (used by %d of %d)", len(xs), len(v.ranked))
		}
		panels = append(panels, plot.Lines(a, plot.Series{X: xs, Y: ys, Points: true, Level: level, Best: best}))
	}
	title := fmt.Sprintf("%s by parameter, later trials darker%s", v.named(), note)
	if all := v.chief(len(v.Space.Params), v.varied); len(all) > len(shown) {
		title += fmt.Sprintf("; %s left out", plural(len(all)-len(shown), "less important parameter"))
	}
	return plot.Figure{Title: v.title(title), Columns: min(mostColumns, len(panels))}, panels, ""
}
