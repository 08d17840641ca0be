package plot

import (
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// filling is a series' own, or that of its place.
func (s Series) filling(k int) Fill {
	if s.Fill != nil {
		return *s.Fill
	}
	return Fill{Color(k), []Hatch{Plain, Rising, Dotted, Falling}[k%4]}
}

const widestBar = 70

// Bars draws groups of upright bars, one group a category, one bar a series.
// Series use Y alone. Values are written above the bars where there is room.
func Bars(a Axes, categories []string, series ...Series) *Panel {
	n := len(categories)
	if n == 0 || len(series) == 0 {
		return empty(a.Title)
	}
	perBar := vg.Length(16)
	if len(series) == 1 {
		perBar = 26
	}
	width := min(max(vg.Length(n*len(series))*perBar+vg.Length(n)*10+60, 360), 1100)
	a.Choices = categories
	g := a.grid(width, 250)
	g.y.take(0)
	g.y.base = true
	for _, s := range series {
		for i := range min(len(s.Y), n) {
			g.y.take(s.Y[i])
		}
	}
	var entries []entry
	for k, s := range series {
		entries = append(entries, swatch(s.Name, s.filling(k)))
	}
	g.entries = entries
	g.draw = func(c draw.Canvas, g *grid) {
		style := letters(7.5, false)
		style.XAlign, style.YAlign = text.XCenter, text.YBottom
		step := 0.8 / float64(len(series))
		x := func(v float64) vg.Length { return g.at(c, v, g.y.low).X }
		written := labelsOf(series, n, a.Percent, func(label string) bool { return style.Width(label) <= x(step*0.94)-x(0)+3 })
		zero := min(max(g.at(c, 0, 0).Y, c.Min.Y), c.Max.Y)
		for k, s := range series {
			for i := range min(len(s.Y), n) {
				if !finite(s.Y[i]) {
					continue
				}
				left := float64(i) - 0.4 + float64(k)*step
				x0, x1 := x(left+step*0.06), x(left+step*0.94)
				if spare := x1 - x0 - widestBar; spare > 0 { // one bar is not a wall
					x0, x1 = x0+spare/2, x1-spare/2
				}
				top := min(max(g.at(c, 0, s.Y[i]).Y, c.Min.Y), c.Max.Y)
				s.filling(k).paint(c, x0, zero, x1, top)
				if written != nil {
					c.FillText(style, vg.Point{X: (x0 + x1) / 2, Y: top + 1.5}, written[k][i])
				}
			}
		}
		if zero > c.Min.Y {
			c.StrokeLine2(draw.LineStyle{Color: frame, Width: 0.8}, c.Min.X, zero, c.Max.X, zero)
		}
	}
	return g.panel()
}

// labelsOf writes the numbers above bars, all with the same decimals; nil where
// not all of them fit: some bars with a number and some without would read as
// if those had none.
func labelsOf(series []Series, categories int, percent bool, fits func(string) bool) [][]string {
	var all []float64
	for _, s := range series {
		all = append(all, s.Y[:min(len(s.Y), categories)]...)
	}
	forms := [][]string{numbers(all, percent)}
	if percent {
		short := make([]string, len(all))
		for i, v := range all {
			short[i] = decimals(100*v, 0)
		}
		forms = append(forms, short)
	}
	for _, labels := range forms {
		ok := true
		for _, l := range labels {
			ok = ok && fits(l)
		}
		if !ok {
			continue
		}
		var out [][]string
		for _, s := range series {
			n := min(len(s.Y), categories)
			out, labels = append(out, labels[:n]), labels[n:]
		}
		return out
	}
	return nil
}

// numbers writes values that stand side by side, all in one form.
func numbers(values []float64, percent bool) []string {
	if !percent {
		return Numbers(values)
	}
	out := make([]string, len(values))
	for i, v := range values {
		if out[i] = "none"; finite(v) {
			out[i] = decimals(100*v, 1) + " %"
		}
	}
	return out
}

// lying is a chart of rows with names on the left and a value axis below.
func lying(a Axes, names []string, values [][]float64, width, row vg.Length, entries []entry, mark func(c draw.Canvas, i int, y, row vg.Length, x func(v float64) vg.Length)) *Panel {
	small := letters(8, false)
	side := min(widest(names, small), 180) + 8
	scale := axis{name: a.X, low: 0, high: 0, percent: a.Percent}
	for _, row := range values {
		for _, v := range row {
			scale.take(v)
		}
	}
	if a.High != nil {
		scale.high = *a.High
	}
	if scale.high <= 0 {
		scale.high = 1
	}
	bottom := vg.Length(tickGap + labelsHigh)
	if a.X != "" {
		bottom += nameHigh
	}
	return &Panel{width: side + width, height: vg.Length(len(names))*row + 26 + bottom, draw: func(c draw.Canvas) {
		c = title(c, a.Title)
		// A panel may be given more room than it needs: rows do not drift apart, and
		// the legend stays below them.
		need := vg.Length(len(names))*row*1.3 + bottom
		if len(entries) > 0 {
			need += legendHigh
		}
		c = legend(draw.Crop(c, 0, 0, max(0, c.Max.Y-c.Min.Y-need), 0), entries)
		body := draw.Crop(c, side, -46, bottom, 0)
		step := min((body.Max.Y-body.Min.Y)/vg.Length(len(names)), row*1.3)
		body.Min.Y = body.Max.Y - step*vg.Length(len(names))
		x := func(v float64) vg.Length {
			return body.Min.X + vg.Length(min(max(scale.share(v), 0), 1))*(body.Max.X-body.Min.X)
		}
		label := letters(8, false)
		label.XAlign, label.YAlign = text.XCenter, text.YTop
		for _, t := range scale.ticks(body.Max.X-body.Min.X, 44) {
			body.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.6}, x(t.at), body.Min.Y, x(t.at), body.Max.Y)
			c.FillText(label, vg.Point{X: x(t.at), Y: body.Min.Y - tickGap}, t.label)
		}
		name := small
		name.XAlign = text.XRight
		for i, n := range names {
			y := body.Max.Y - (vg.Length(i)+0.5)*step
			c.FillText(name, vg.Point{X: body.Min.X - 5, Y: y}, fit(n, small, side-8))
			mark(body, i, y, step, x)
		}
		c.StrokeLine2(draw.LineStyle{Color: frame, Width: 0.8}, body.Min.X, body.Min.Y, body.Min.X, body.Max.Y)
		style := letters(9, false)
		style.XAlign, style.YAlign = text.XCenter, text.YTop
		c.FillText(style, vg.Point{X: (body.Min.X + body.Max.X) / 2, Y: body.Min.Y - tickGap - labelsHigh - 2}, a.X)
	}}
}

// Ranked draws lying bars in the order given: importance, accuracy by class.
// Values are written at their ends.
func Ranked(a Axes, names []string, values []float64) *Panel {
	n := min(len(names), len(values))
	if n == 0 {
		return empty(a.Title)
	}
	written := numbers(values[:n], a.Percent)
	small := letters(8, false)
	return lying(a, names[:n], [][]float64{values[:n]}, 300, 18, nil, func(c draw.Canvas, i int, y, row vg.Length, x func(v float64) vg.Length) {
		if !finite(values[i]) {
			c.FillText(small, vg.Point{X: c.Min.X + 4, Y: y}, "none")
			return
		}
		fill(c, Color(0), c.Min.X, y-row*0.34, x(values[i]), y+row*0.34)
		fill(c, veil, x(values[i])+2, y-4.5, x(values[i])+6+small.Width(written[i]), y+4.5)
		c.FillText(small, vg.Point{X: x(values[i]) + 4, Y: y}, written[i])
	})
}

// Dots draws a row for each name with one mark for each series, in the order
// given: many classes beside one another, where bars would be too thin. Where
// marks fall on one another the first series is seen above the others.
func Dots(a Axes, names []string, series ...Series) *Panel {
	if len(names) == 0 || len(series) == 0 {
		return empty(a.Title)
	}
	var values [][]float64
	var entries []entry
	for k, s := range series {
		values = append(values, s.Y[:min(len(s.Y), len(names))])
		entries = append(entries, entry{s.Name, func(c draw.Canvas, left, y vg.Length) { shape(c, k, Color(k), left+8, y, 3.2) }})
	}
	p := lying(a, names, values, 380, 15, entries, func(c draw.Canvas, i int, y, row vg.Length, x func(v float64) vg.Length) {
		low, high := math.Inf(1), math.Inf(-1)
		for _, v := range values {
			if i < len(v) && finite(v[i]) {
				low, high = math.Min(low, v[i]), math.Max(high, v[i])
			}
		}
		if low > high {
			c.FillText(letters(8, false), vg.Point{X: c.Min.X + 4, Y: y}, "none")
			return
		}
		c.StrokeLine2(draw.LineStyle{Color: shade, Width: 1.2}, x(low), y, x(high), y)
		for k := len(series) - 1; k >= 0; k-- {
			if i < len(values[k]) && finite(values[k][i]) {
				shape(c, k, Color(k), x(values[k][i]), y, 3.2)
			}
		}
	})
	p.height += 18
	return p
}
