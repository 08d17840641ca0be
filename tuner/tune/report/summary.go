package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"atelier/common/space"
	"atelier/common/trial"
)

const (
	topListed    = 10
	topColumns   = 8 // parameters beside one another
	faultsListed = 10
)

// otherData lists the trials whose data was not that of the first.
func (v *view) otherData() (numbers []int64) {
	for _, t := range v.Trials {
		if t.OtherData {
			numbers = append(numbers, t.Number)
		}
	}
	return numbers
}

// summary is diagnostics_summary.txt.
func (v *view) summary(w *Written, o Options) string {
	var b strings.Builder
	line := func(format string, a ...any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf(format, a...), " ") + "\n")
	}
	head := func(s string) { line("\n%s\n%s", s, strings.Repeat("-", len(s))) }
	top := "Hyperparameter tuning"
	if v.Name != "" {
		top += ": " + v.Name
	}
	line("%s\n%s", top, strings.Repeat("=", len([]rune(top))))
	row := func(key, value string) {
		if value != "" {
			line("%-14s %s", key, value)
		}
	}
	status := v.Status.String()
	if v.Ending != "" {
		status += " (" + v.Ending + ")"
	}
	row("sweep", strings.TrimSpace(v.ID+"  "+status))
	row("model", v.Model)
	method := v.SearchMethod
	if v.Algorithm != "" {
		method += " (" + v.Algorithm + ")"
	}
	row("search method", fmt.Sprintf("%s, seed %d", method, v.Seed))
	row("objective", fmt.Sprintf("%s, %s", v.Metric, v.direction()))
	if n := len(v.Objectives); n > 1 {
		row("", fmt.Sprintf("the first of %d objectives: the others are in %s and the charts", n, ResultsFile))
	}
	row("trials", v.countsText())
	epochs := 0
	for _, t := range v.Trials {
		epochs += t.Epochs
	}
	row("epochs", fmt.Sprintf("%d by all trials together", epochs))
	if v.CreatedMS > 0 {
		row("began", time.UnixMilli(v.CreatedMS).UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if v.CreatedMS > 0 && v.EndedMS >= v.CreatedMS {
		row("took", (time.Duration(v.EndedMS-v.CreatedMS) * time.Millisecond).Round(time.Second/10).String())
	}
	row("slots", v.busy())

	if len(v.ranked) == 0 {
		head("No best configuration")
		line("No trial has a value.")
	} else {
		best := v.ranked[0]
		head(fmt.Sprintf("Best configuration: trial %d, epoch %d of %d", best.Number, best.ValueEpoch, best.Epochs))
		width := len(v.Metric)
		for _, p := range v.Space.Params {
			width = max(width, len(p.Name))
		}
		line("  %-*s  %.6g", width, v.Metric, best.Value)
		for k, p := range v.Space.Params {
			if k < len(best.Point) && !best.Point[k].IsAbsent() {
				line("  %-*s  %s", width, p.Name, whole(best.Point[k]))
			}
		}
		if best.Model != "" {
			line("  %-*s  %s", width, "model file", best.Model)
		}
		if v.Trainer == "torch" {
			line("\nTrain it at length:\n  %s", v.trainCommand(best))
		}
		head(fmt.Sprintf("The best %d of %d trials with a value", min(topListed, len(v.ranked)), len(v.ranked)))
		b.WriteString(v.topTable())
	}
	if text := trial.OtherDataText(v.otherData()); text != "" {
		head("Not comparable")
		line("%s", text)
	}

	head("Importance of parameters (PED-ANOVA)")
	if v.scores == nil {
		line("Not known: %s.", v.unsaid)
	}
	width := 0
	for _, s := range v.scores {
		width = max(width, len(s.Parameter))
	}
	for _, s := range v.scores {
		line("  %-*s %5.1f %%  %s", width, s.Parameter, 100*s.Share, strings.Repeat("#", int(math.Round(s.Share*40))))
	}
	if hints := v.hints(); len(hints) > 0 {
		head("Worth a look")
		for _, h := range hints {
			line("  - %s", h)
		}
	}
	if lines := v.faults(); len(lines) > 0 {
		head("Trials without a value")
		for _, l := range lines {
			line("  %s", l)
		}
	}
	head("Charts (PNG, and SVG beside each)")
	for _, p := range charts {
		for _, f := range w.Files {
			if f == p.name {
				line("  %-28s %s", p.name, p.about)
			}
		}
	}
	if o.NoPlots {
		line("  none: charts are switched off")
	} else {
		for _, x := range w.Omitted {
			line("  %-28s left out: %s", x.Name, x.Reason)
		}
	}
	return b.String()
}

func (v *view) countsText() string {
	n := v.counts()
	var parts []string
	for _, status := range []string{"finished", "stopped", "diverged", "failed", "cancelled", "open"} {
		if n[status] > 0 {
			name := status
			if status == "stopped" {
				name = "stopped early"
			}
			parts = append(parts, fmt.Sprintf("%d %s", n[status], name))
		}
	}
	text := fmt.Sprint(len(v.Trials))
	if v.Budget > 0 {
		text += fmt.Sprintf(" of %d", v.Budget)
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

// busy tells how well the slots were used between the sweep's beginning and
// its end.
func (v *view) busy() string {
	var slots []string
	used := 0.0
	for _, t := range v.Trials {
		for _, r := range t.Runs {
			if s := seconds(r.StartedMS, r.EndedMS); s != nil {
				used += float64(*s)
			}
			if slot := slotOf(r); !slices.Contains(slots, slot) {
				slots = append(slots, slot)
			}
		}
	}
	all := seconds(v.CreatedMS, v.EndedMS)
	if len(slots) == 0 || all == nil || *all == 0 {
		return ""
	}
	return fmt.Sprintf("%d, busy %.0f %% of the time", len(slots), min(100, 100*used/float64(*all)/float64(len(slots))))
}

func (v *view) topTable() string {
	shown := v.chief(topColumns, func(int) bool { return true })
	slices.Sort(shown)
	rows := [][]string{{"rank", "trial", v.Metric, "epoch"}}
	for _, k := range shown {
		rows[0] = append(rows[0], v.Space.Params[k].Name)
	}
	for i, t := range v.ranked[:min(topListed, len(v.ranked))] {
		row := []string{fmt.Sprint(i + 1), fmt.Sprint(t.Number), fmt.Sprintf("%.6g", t.Value), fmt.Sprint(t.ValueEpoch)}
		for _, k := range shown {
			cell := "-"
			if k < len(t.Point) {
				cell = text(t.Point[k])
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var l strings.Builder
		for i, c := range r {
			l.WriteString("  " + c + strings.Repeat(" ", widths[i]-len([]rune(c))))
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	if left := len(v.Space.Params) - len(shown); left > 0 {
		fmt.Fprintf(&b, "  (%s not shown: see %s)\n", plural(left, "parameter"), ResultsFile)
	}
	return b.String()
}

// edge is how near to an end of its axis a value counts as lying on it.
const edge = 0.03

// hints is what the results suggest to try next.
func (v *view) hints() (out []string) {
	n := min(5, len(v.ranked)/4)
	if n >= 2 {
		for k := range v.Space.Params {
			p := &v.Space.Params[k]
			if p.Kind == space.KindCategorical || !v.varied(k) {
				continue
			}
			low, high := 0, 0
			for _, t := range v.ranked[:n] {
				if k >= len(t.Point) || t.Point[k].IsAbsent() {
					continue
				}
				switch u := p.ToUnit(t.Point[k]); {
				case u <= edge:
					low++
				case u >= 1-edge:
					high++
				}
			}
			for _, x := range []struct {
				n     int
				end   string
				value float64
			}{{low, "lower", p.Low}, {high, "upper", p.High}} {
				if 2*x.n > n {
					out = append(out, fmt.Sprintf("%s: %d of the best %d trials are at the %s end of its range (%.4g): a wider range may have better ones", p.Name, x.n, n, x.end, x.value))
				}
			}
		}
	}
	late := 0
	for _, t := range v.ranked[:min(5, len(v.ranked))] {
		if t.Status == trial.Finished && t.Epochs > 1 && t.ValueEpoch == t.Epochs {
			late++
		}
	}
	if late >= 3 {
		out = append(out, fmt.Sprintf("%d of the best 5 trials were still getting better in their last epoch: more epochs may change the order", late))
	}
	if d := v.counts()["diverged"]; d*4 > len(v.Trials) && d > 1 {
		out = append(out, fmt.Sprintf("%d of %d trials diverged: a lower upper end of lr would save their time", d, len(v.Trials)))
	}
	return out
}

// faults tells of the trials that ended without a value.
func (v *view) faults() (out []string) {
	left := 0
	for _, t := range v.Trials {
		if _, ok := v.rank[t.Number]; ok || !t.Status.Over() {
			continue
		}
		if len(out) == faultsListed {
			left++
			continue
		}
		why := t.Failure
		if why == "" && t.Status == trial.Diverged {
			why = "the loss became NaN or infinite"
		}
		if why == "" {
			why = t.StopReason
		}
		text := fmt.Sprintf("trial %d %s", t.Number, t.Status)
		if why != "" {
			text += ": " + strings.Join(strings.Fields(why), " ")
		}
		if r := []rune(text); len(r) > 200 {
			text = string(r[:199]) + "…"
		}
		out = append(out, text)
	}
	if left > 0 {
		out = append(out, fmt.Sprintf("and %d more: see %s", left, ResultsFile))
	}
	return out
}
