package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"atelier/common/plot"
	"atelier/common/trial"
)

// curves shows metrics by epoch: the objectives first, then what is reported
// beside it.
func (v *view) curves() (f plot.Figure, panels []*plot.Panel, reason string) {
	metrics := v.metrics()
	if len(metrics) == 0 {
		return f, nil, "no trial reported an epoch"
	}
	best := v.ranked[:min(marked, len(v.ranked))]
	isBest := map[int64]bool{}
	for _, t := range best {
		isBest[t.Number] = true
	}
	for _, name := range metrics[:min(mostCurves, len(metrics))] {
		curve := func(t *Trial) (xs, ys []float64) {
			for _, e := range t.Curve {
				if y, ok := e.Metrics.Get(name); ok {
					xs, ys = append(xs, float64(e.Epoch)), append(ys, y)
				}
			}
			return xs, ys
		}
		var series []plot.Series
		var all, top []float64
		for i := range v.Trials {
			if t := &v.Trials[i]; !isBest[t.Number] {
				if xs, ys := curve(t); len(xs) > 0 {
					series, all = append(series, plot.Series{X: xs, Y: ys, Faint: true}), append(all, ys...)
				}
			}
		}
		for i, t := range best {
			if xs, ys := curve(t); len(xs) > 0 {
				series = append(series, plot.Series{Name: fmt.Sprintf("%d. trial %d", i+1, t.Number), X: xs, Y: ys})
				all, top = append(all, ys...), append(top, ys...)
			}
		}
		a := plot.Axes{Title: name, X: "epoch", Y: name, WholeX: true}
		if low, high, wide := zoom(top, all, v.good(name)); low < high {
			a.Low, a.High = plot.At(low), plot.At(high)
			if a.LogY = wide; wide {
				a.Y += ", logarithmic"
			}
			if slices.ContainsFunc(all, func(y float64) bool { return finite(y) && (y < low || y > high) }) {
				a.Title += ", zoomed"
				if v.reporting() > len(best) {
					a.Title += fmt.Sprintf(" on the best %d", len(best))
				}
			}
		}
		panels = append(panels, plot.Lines(a, series...))
	}
	title := "learning curves"
	if n := v.reporting(); n > len(best) {
		title += fmt.Sprintf(" of %d trials, the best %d in colour", n, len(best))
	}
	if n := len(metrics) - mostCurves; n > 0 {
		title += fmt.Sprintf("; %s left out", plural(n, "metric"))
	}
	return plot.Figure{Title: v.title(title), Columns: 2}, panels, ""
}

// good is the end of a metric's axis where better values are.
func (v *view) good(metric string) end {
	maximize, known := v.Maximize, metric == v.Metric
	for _, o := range v.Objectives {
		if o.Metric == metric {
			maximize, known = o.Maximize, true
		}
	}
	switch {
	case known && maximize, !known && strings.Contains(metric, "acc"):
		return upper
	case known, strings.Contains(metric, "loss"):
		return lower
	}
	return either
}

// end is an end of an axis.
type end int

const (
	either end = iota // which is better is not known
	lower
	upper
)

// zoom is the range of an axis for the best curves, top: theirs where all
// curves' would be more than twice as wide, logarithmic where even theirs spans
// more than a power and a half of ten. The good end of the best curves is
// always in it.
func zoom(top, all []float64, good end) (low, high float64, logarithmic bool) {
	low, high, _ = fence(all)
	if len(top) > 0 {
		l, h, _ := fence(top)
		for _, y := range top {
			if finite(y) && good != upper {
				l = math.Min(l, y)
			}
			if finite(y) && good != lower {
				h = math.Max(h, y)
			}
		}
		if high-low > 2*(h-l) && h > l {
			air := 0.1 * (h - l)
			if low, high = l-air, h+air; l > 0 {
				low = math.Max(low, l/2)
			}
		} else {
			if good != upper {
				low = math.Min(low, l)
			}
			if good != lower {
				high = math.Max(high, h)
			}
		}
	}
	return low, high, low > 0 && high > 30*low
}

func (v *view) reporting() (n int) {
	for i := range v.Trials {
		if len(v.Trials[i].Curve) > 0 {
			n++
		}
	}
	return n
}

// metrics lists what trials reported, the objectives first, in the order people
// look at them.
func (v *view) metrics() []string {
	order := []string{v.Metric}
	for _, o := range v.Objectives {
		order = append(order, o.Metric)
	}
	order = append(order, "val_loss", "val_acc", "train_loss", "train_acc")
	var names []string
	for i := range v.Trials {
		for _, e := range v.Trials[i].Curve {
			for _, m := range e.Metrics {
				if !slices.Contains(names, m.Name) {
					names = append(names, m.Name)
				}
			}
		}
	}
	place := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b)) })
	return names
}

const running = "running"

// looks are the states of runs, each with a colour and a hatch of its own in
// every report; the last is that of a state which is new.
var looks = []look{
	{trial.ExitFinished.String(), plot.Fill{Color: plot.Blue}},
	{running, plot.Fill{Color: plot.Sky, Hatch: plot.Dotted}},
	{trial.ExitPaused.String(), plot.Fill{Color: plot.Olive, Hatch: plot.Upright}},
	{trial.ExitStopped.String(), plot.Fill{Color: plot.Orange, Hatch: plot.Rising}},
	{trial.ExitReleased.String(), plot.Fill{Color: plot.Grey, Hatch: plot.Upright}},
	{trial.ExitDiverged.String(), plot.Fill{Color: plot.Purple, Hatch: plot.Falling}},
	{trial.ExitLost.String(), plot.Fill{Color: plot.Black, Hatch: plot.Dotted}},
	{trial.ExitOutOfMemory.String(), plot.Fill{Color: plot.Vermilion, Hatch: plot.Crossed}},
	{trial.ExitCrashed.String(), plot.Fill{Color: plot.Vermilion, Hatch: plot.Falling}},
	{trial.ExitKilled.String(), plot.Fill{Color: plot.Vermilion, Hatch: plot.Lying}},
	{trial.ExitBadSpec.String(), plot.Fill{Color: plot.Vermilion}},
	{trial.ExitDataMissing.String(), plot.Fill{Color: plot.Vermilion, Hatch: plot.Rising}},
	{trial.ExitDeviceFault.String(), plot.Fill{Color: plot.Vermilion, Hatch: plot.Upright}},
	{trial.ExitDiskFull.String(), plot.Fill{Color: plot.Vermilion, Hatch: plot.Dotted}},
	{"", plot.Fill{Color: plot.Grey, Hatch: plot.Crossed}},
}

type look struct {
	state string
	fill  plot.Fill
}

// place is a state's place in looks.
func place(state string) int {
	if i := slices.IndexFunc(looks, func(l look) bool { return l.state == state }); i >= 0 {
		return i
	}
	return len(looks) - 1
}

// timeline shows what each slot did.
func (v *view) timeline() (f plot.Figure, panels []*plot.Panel, reason string) {
	var rows []string
	var kinds []plot.Kind
	var states []string
	var spans []plot.Span
	begin, end := int64(math.MaxInt64), int64(0)
	for _, t := range v.Trials {
		for _, r := range t.Runs {
			if r.StartedMS > 0 {
				begin, end = min(begin, r.StartedMS), max(end, r.StartedMS, r.EndedMS)
			}
		}
	}
	if end == 0 {
		return f, nil, "no trial was started"
	}
	if v.CreatedMS > 0 {
		begin = min(begin, v.CreatedMS)
	}
	end = max(end, v.EndedMS)
	unit, per := "seconds", 1e3
	switch s := float64(end-begin) / 1e3; {
	case s > 3*3600:
		unit, per = "hours", 3.6e6
	case s > 180:
		unit, per = "minutes", 6e4
	}
	for _, t := range v.Trials {
		for _, r := range t.Runs {
			if row := slotOf(r); r.StartedMS > 0 && !slices.Contains(rows, row) {
				rows = append(rows, row)
			}
		}
	}
	slices.SortFunc(rows, natural)
	dropped := max(0, len(rows)-mostSlots)
	rows = rows[:len(rows)-dropped]
	for _, t := range v.Trials {
		for _, r := range t.Runs {
			if r.StartedMS == 0 {
				continue
			}
			state, to := cmp.Or(r.Exit.String(), running), r.EndedMS
			if to == 0 {
				to = end
			}
			if !slices.Contains(states, state) {
				states = append(states, state)
			}
			spans = append(spans, plot.Span{Row: slotOf(r), Start: float64(r.StartedMS-begin) / per, End: float64(to-begin) / per,
				Label: fmt.Sprint(t.Number), Kind: place(state)})
		}
	}
	// The legend has the states that occur, in the order of the table.
	slices.SortFunc(states, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	for i := range spans {
		spans[i].Kind = slices.IndexFunc(states, func(s string) bool { return place(s) == spans[i].Kind })
	}
	for _, s := range states {
		kinds = append(kinds, plot.Kind{Name: strings.ReplaceAll(s, "_", " "), Fill: looks[place(s)].fill})
	}
	title := "what the slots did, by trial"
	if dropped > 0 {
		title += fmt.Sprintf(" (the first %d slots; %d left out)", len(rows), dropped)
	}
	return plot.Figure{Title: v.title("timeline of slots")}, []*plot.Panel{plot.Wide(plot.Timeline(plot.Axes{Title: title, X: unit + " since the sweep was submitted"}, rows, kinds, spans), 1.4)}, ""
}

func slotOf(r trial.Run) string { return strings.TrimSuffix(r.Worker+"/"+r.Slot, "/") }

// natural orders w2 before w10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x != "" && y != "" {
			p, q := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(p), len(q)), cmp.Compare(p, q)); c != 0 {
				return c
			}
			a, b = a[len(x):], b[len(y):]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) string {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n]
}
