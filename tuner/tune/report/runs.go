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

// curves shows metrics by epoch: the objective first, then what is reported
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
		var all []float64
		curve := func(t *Trial) (xs, ys []float64) {
			for _, e := range t.Curve {
				if y, ok := e.Metrics.Get(name); ok {
					xs, ys = append(xs, float64(e.Epoch)), append(ys, y)
				}
			}
			return xs, ys
		}
		for i := range v.Trials {
			_, ys := curve(&v.Trials[i])
			all = append(all, ys...)
		}
		low, high, outside := fence(all)
		var series []plot.Series
		add := func(t *Trial, title string) {
			xs, ys := curve(t)
			for i := range ys {
				ys[i] = clamp(ys[i], low, high)
			}
			if len(xs) > 0 {
				series = append(series, plot.Series{Name: title, X: xs, Y: ys, Faint: title == ""})
			}
		}
		for i := range v.Trials {
			if t := &v.Trials[i]; !isBest[t.Number] {
				add(t, "")
			}
		}
		for i, t := range best {
			add(t, fmt.Sprintf("%d. trial %d", i+1, t.Number))
		}
		title := name
		if outside > 0 {
			title += fmt.Sprintf(" (%s far off, at the edge)", plural(outside, "value"))
		}
		panels = append(panels, plot.Lines(plot.Axes{Title: title, X: "epoch", Y: name}, series...))
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

func (v *view) reporting() (n int) {
	for i := range v.Trials {
		if len(v.Trials[i].Curve) > 0 {
			n++
		}
	}
	return n
}

// metrics lists what trials reported, the objective first, in the order people
// look at them.
func (v *view) metrics() []string {
	order := []string{v.Metric, "val_loss", "val_acc", "train_loss", "train_acc"}
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

// timeline shows what each slot did.
func (v *view) timeline() (f plot.Figure, panels []*plot.Panel, reason string) {
	var rows, kinds []string
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
			kind, to := cmp.Or(r.Exit.String(), "running"), r.EndedMS
			if to == 0 {
				to = end
			}
			if !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
			spans = append(spans, plot.Span{Row: slotOf(r), Start: float64(r.StartedMS-begin) / per, End: float64(to-begin) / per,
				Kind: slices.Index(kinds, kind), Label: fmt.Sprint(t.Number)})
		}
	}
	title := "what the slots did, by trial"
	if dropped > 0 {
		title += fmt.Sprintf(" (the first %d slots; %d left out)", len(rows), dropped)
	}
	for i := range kinds {
		kinds[i] = strings.ReplaceAll(kinds[i], "_", " ")
	}
	return plot.Figure{Title: v.title("timeline of slots")}, []*plot.Panel{plot.Wide(plot.Timeline(plot.Axes{Title: title, X: unit + " since the sweep was made"}, rows, kinds, spans), 1.4)}, ""
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
