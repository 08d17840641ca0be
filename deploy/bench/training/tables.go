package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// What the tables are held to.
const (
	barSame      = 1.0  // ours over PyTorch, same layout and precision, each
	barOwn       = 1.05 // own default over PyTorch's, each
	barOwnFP32   = 1.2  // geometric mean of those in fp32
	barOwnBF16   = 1.5  // and in bf16
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
func throughputTables(j *journal) string {
	var found []measured
	for _, key := range j.keys("steps") {
		var m measured
		if parseKey(key, &m.point) && j.newest(key, &m.steps) {
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
	return out.String() + j.conditions("steps")
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
	var out strings.Builder
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
	fmt.Fprintf(&out, "### %d %s, batch %d: images a second, ours / PyTorch = ratio\n\n", threads, unit, rows[0].Batch)
	out.WriteString("| model | px | fp32, default layout | fp32, channels_last | bf16, default layout | bf16, channels_last |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s | %d |", r.Model, r.Size)
		for _, precision := range precisions {
			for _, layout := range layouts {
				s, ok := r.by[precision]
				if !ok {
					out.WriteString(" - |")
					continue
				}
				ours, theirs := median(s.Rates["ours "+layout]), median(s.Rates["pytorch "+layout])
				if why := s.Fault["pytorch "+layout]; why != "" {
					cannot = append(cannot, fmt.Sprintf("%s in %s, %s (%s)", r.Model, precision, layout, why))
					fmt.Fprintf(&out, " %s / - |", figure(ours))
					continue
				}
				q := s.same(layout)
				column := precision + " " + layout
				ratios[column] = append(ratios[column], q)
				if q < barSame {
					miss(r, column, q)
				}
				fmt.Fprintf(&out, " %s / %s = %s |", figure(ours), figure(theirs), bold(q, barSame))
			}
		}
		out.WriteString("\n")
	}
	var columns []string
	for _, precision := range precisions {
		for _, layout := range layouts {
			columns = append(columns, precision+" "+layout)
		}
	}
	summary(&out, "| geometric mean | |", columns, ratios, geometricMean)
	summary(&out, "| least | |", columns, ratios, least)

	out.WriteString("\nOur default over PyTorch's default (layout and precision as each has them unless told), and peak resident memory, MiB, ours / PyTorch:\n\n")
	out.WriteString("| model | px | default, fp32 | default, bf16 | memory, fp32 default layout | fp32 channels_last | bf16 default layout | bf16 channels_last |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s | %d |", r.Model, r.Size)
		for _, precision := range precisions {
			s, ok := r.by[precision]
			if !ok || s.Fault["pytorch default"] != "" {
				out.WriteString(" - |")
				continue
			}
			q := s.own()
			ratios["own "+precision] = append(ratios["own "+precision], q)
			if q < barOwn {
				miss(r, precision+" own default", q)
			}
			fmt.Fprintf(&out, " %s |", bold(q, barOwn))
		}
		for _, precision := range precisions {
			for _, layout := range layouts {
				s, ok := r.by[precision]
				if !ok || s.Fault["pytorch "+layout] != "" {
					out.WriteString(" - |")
					continue
				}
				ours, theirs := s.Peak["ours "+layout], s.Peak["pytorch "+layout]
				q := ours / theirs
				ratios["memory "+precision+" "+layout] = append(ratios["memory "+precision+" "+layout], q)
				if q > memoryFactor {
					miss(r, "memory "+precision+" "+layout, q)
				}
				fmt.Fprintf(&out, " %.0f / %.0f = %.2f |", ours, theirs, q)
			}
		}
		out.WriteString("\n")
	}
	columns = []string{"own fp32", "own bf16", "memory fp32 default", "memory fp32 channels_last", "memory bf16 default", "memory bf16 channels_last"}
	summary(&out, "| geometric mean | |", columns, ratios, geometricMean)
	summary(&out, "| least | |", columns[:2], ratios, least)
	summary(&out, "| most | | | |", columns[2:], ratios, most)
	for i, bar := range []float64{barOwnFP32, barOwnBF16} {
		if g := geometricMean(ratios["own "+precisions[i]]); g < bar {
			misses = append(misses, fmt.Sprintf("geometric mean of our %s default %.2f (bar %.1f)", precisions[i], g, bar))
		}
	}
	if len(misses) == 0 {
		out.WriteString("\nNo bar missed.\n\n")
	} else {
		fmt.Fprintf(&out, "\nBars missed: %s.\n\n", strings.Join(misses, "; "))
	}
	if len(cannot) > 0 {
		fmt.Fprintf(&out, "PyTorch cannot train %s.\n\n", strings.Join(cannot, "; "))
	}
	return out.String()
}

// summary is a last row over the columns.
func summary(out *strings.Builder, head string, columns []string, ratios map[string][]float64, of func([]float64) float64) {
	out.WriteString(head)
	for _, c := range columns {
		if len(ratios[c]) == 0 {
			out.WriteString(" - |")
		} else {
			fmt.Fprintf(out, " **%.2f** |", of(ratios[c]))
		}
	}
	out.WriteString("\n")
}

func least(values []float64) float64 { return slices.Min(values) }

func most(values []float64) float64 { return slices.Max(values) }

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
