package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"atelier/deploy/bench/harness"
)

// What the tables are held to.
const (
	barSame      = 1.0  // ours over PyTorch, same layout and precision, each
	barOwn       = 1.05 // own default over PyTorch's, each
	barOwnFP32   = 1.2  // geometric mean of those in fp32
	barOwnBF16   = 1.5  // and in bf16
	barBuild     = 0.97 // this build over the one before
	memoryFactor = 1.0  // peak memory over PyTorch's
)

// measured is a point with what was found there.
type measured struct {
	point
	steps
}

// row gathers a model and size in both precisions.
type row struct {
	point
	by map[string]steps
}

// throughputTables is Markdown: for each number of threads images a second,
// the own defaults, and memory. Points that were not measured are dashes.
func throughputTables(j *harness.Journal) string {
	var found []measured
	for _, key := range j.Keys("steps") {
		var m measured
		if parseKey(key, &m.point) && j.Newest(key, &m.steps) {
			found = append(found, m)
		}
	}
	var out strings.Builder
	type place struct {
		threads int
		device  string
	}
	told := map[place]bool{}
	for _, m := range found {
		at := place{m.Threads, m.Device}
		if !told[at] {
			told[at] = true
			out.WriteString(threadTables(m.Threads, rowsOf(found, m.Threads, m.Device)))
		}
	}
	return out.String() + j.Conditions("steps")
}

// parseKey reads what point.key wrote.
func parseKey(key string, p *point) bool {
	before, device, elsewhere := strings.Cut(key, " device=")
	n, err := fmt.Sscanf(before, "steps model=%s size=%d batch=%d threads=%d precision=%s", &p.Model, &p.Size, &p.Batch, &p.Threads, &p.Precision)
	p.Device = ""
	if elsewhere {
		p.Device = device
	}
	return err == nil && n == 5 && p.key() == key
}

// rowsOf keeps the order in which points were measured, small images first.
func rowsOf(found []measured, threads int, device string) (rows []row) {
	for _, m := range found {
		if m.Threads != threads || m.Device != device {
			continue
		}
		p := m.point
		p.Precision = ""
		i := slices.IndexFunc(rows, func(r row) bool { return r.point == p })
		if i < 0 {
			i = len(rows)
			rows = append(rows, row{p, map[string]steps{}})
		}
		rows[i].by[m.Precision] = m.steps
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.Size - b.Size })
	return rows
}

var precisions = []string{"fp32", "bf16"}

func threadTables(threads int, rows []row) string {
	var misses, cannot []string
	miss := func(r row, what string, got float64) {
		misses = append(misses, fmt.Sprintf("%s %d px %s %.2f", r.Model, r.Size, what, got))
	}
	ratios := map[string][]float64{} // column -> ratios
	unit := "threads"
	if threads == 1 {
		unit = "thread"
	}
	if d := rows[0].Device; d != "" {
		unit += " and " + d
	}
	var columns []string
	for _, precision := range precisions {
		for _, layout := range layouts {
			columns = append(columns, precision+" "+layout)
		}
	}

	speed := harness.NewTable("model", "px", "fp32, default layout", "fp32, channels_last", "bf16, default layout", "bf16, channels_last")
	for _, r := range rows {
		cells := []string{r.Model, strconv.Itoa(r.Size)}
		for _, precision := range precisions {
			for _, layout := range layouts {
				s := r.by[precision]
				if why := s.Fault["pytorch "+layout]; why != "" {
					cannot = append(cannot, fmt.Sprintf("%s in %s, %s (%s)", r.Model, precision, layout, why))
					cells = append(cells, figure(harness.Median(s.Rates["ours "+layout]))+" / -")
					continue
				}
				if q := s.same(layout); !math.IsNaN(q) {
					column := precision + " " + layout
					ratios[column] = append(ratios[column], q)
					if q < barSame {
						miss(r, column, q)
					}
				}
				cells = append(cells, beside(s.Rates["ours "+layout], s.Rates["pytorch "+layout], barSame))
			}
		}
		speed.Cells(cells...)
	}
	speed.Cells(summary("geometric mean", columns, ratios, harness.GeometricMean)...)
	speed.Cells(summary("least", columns, ratios, slices.Min)...)

	memory := harness.NewTable("model", "px", "default, fp32", "default, bf16", "memory, fp32 default layout", "fp32 channels_last", "bf16 default layout", "bf16 channels_last")
	for _, r := range rows {
		cells := []string{r.Model, strconv.Itoa(r.Size)}
		for _, precision := range precisions {
			s, ok := r.by[precision]
			if !ok || s.Fault["pytorch default"] != "" {
				cells = append(cells, "-")
				continue
			}
			q := s.own()
			ratios["own "+precision] = append(ratios["own "+precision], q)
			if q < barOwn {
				miss(r, precision+" own default", q)
			}
			cells = append(cells, bold(q, barOwn))
		}
		for _, precision := range precisions {
			for _, layout := range layouts {
				s, ok := r.by[precision]
				if !ok || s.Fault["pytorch "+layout] != "" {
					cells = append(cells, "-")
					continue
				}
				ours, theirs := s.Peak["ours "+layout], s.Peak["pytorch "+layout]
				q, column := ours/theirs, "memory "+precision+" "+layout
				ratios[column] = append(ratios[column], q)
				if q > memoryFactor {
					miss(r, column, q)
				}
				cells = append(cells, fmt.Sprintf("%.0f / %.0f = %.2f", ours, theirs, q))
			}
		}
		memory.Cells(cells...)
	}
	own, peaks := []string{"own fp32", "own bf16"}, []string{}
	for _, c := range columns {
		peaks = append(peaks, "memory "+c)
	}
	memory.Cells(summary("geometric mean", append(own, peaks...), ratios, harness.GeometricMean)...)
	memory.Cells(summary("least", own, ratios, slices.Min)...)
	memory.Cells(summary("most", append([]string{"", ""}, peaks...), ratios, slices.Max)...)
	for i, bar := range []float64{barOwnFP32, barOwnBF16} {
		if g := harness.GeometricMean(ratios[own[i]]); g < bar {
			misses = append(misses, fmt.Sprintf("geometric mean of our %s default %.2f (bar %.1f)", precisions[i], g, bar))
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "### %d %s, batch %d: images a second, ours / PyTorch = ratio\n\n%s\n", threads, unit, rows[0].Batch, speed)
	fmt.Fprintf(&out, "Our default over PyTorch's default (layout and precision as each has them by default), and peak resident memory, MiB, ours / PyTorch:\n\n%s\n", memory)
	if len(misses) == 0 {
		out.WriteString("No bar missed.\n\n")
	} else {
		fmt.Fprintf(&out, "Bars missed: %s.\n\n", strings.Join(misses, "; "))
	}
	if len(cannot) > 0 {
		fmt.Fprintf(&out, "PyTorch cannot train %s.\n\n", strings.Join(cannot, "; "))
	}
	return out.String()
}

// summary is a last row over the columns; one without a name stays empty.
func summary(head string, columns []string, ratios map[string][]float64, of func([]float64) float64) []string {
	cells := []string{head, ""}
	for _, c := range columns {
		switch {
		case c == "":
			cells = append(cells, "")
		case len(ratios[c]) == 0:
			cells = append(cells, "-")
		default:
			cells = append(cells, fmt.Sprintf("**%.2f**", of(ratios[c])))
		}
	}
	return cells
}

// beside is ours / theirs = ratio, of rates round by round; a dash of none.
func beside(ours, theirs []float64, bar float64) string {
	if len(ours) == 0 || len(theirs) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s = %s", figure(harness.Median(ours)), figure(harness.Median(theirs)), bold(harness.Ratio(ours, theirs), bar))
}

// each is values one by one.
func each(format string, values []float64) string {
	var words []string
	for _, v := range values {
		words = append(words, fmt.Sprintf(format, v))
	}
	return strings.Join(words, " ")
}

// figure keeps three digits.
func figure(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// bold marks a ratio that reaches its bar.
func bold(q, bar float64) string {
	if q >= bar {
		return fmt.Sprintf("**%.2f**", q)
	}
	return fmt.Sprintf("%.2f", q)
}
