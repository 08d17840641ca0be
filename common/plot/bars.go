package plot

import (
	"image/color"
	"math"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Bars draws groups of upright bars, one group a category, one bar a series.
// Series use Y alone. Values are written above the bars where there is room.
func Bars(a Axes, categories []string, series ...Series) *Panel {
	p := a.axes()
	if len(categories) == 0 || len(series) == 0 {
		return empty(a.Title)
	}
	p.X.Min, p.X.Max = -0.5, float64(len(categories))-0.5
	span(p, 0, 0)
	for _, s := range series {
		for i := range min(len(s.Y), len(categories)) {
			span(p, float64(i), s.Y[i])
		}
	}
	p.X.Min, p.X.Max = -0.5, float64(len(categories))-0.5
	if p.Y.Max > 0 {
		p.Y.Max *= 1.08 // room for the numbers
	}
	a.bound(p)
	perBar := vg.Length(16)
	if len(series) == 1 {
		perBar = 26
	}
	width := min(max(vg.Length(len(categories)*len(series))*perBar+vg.Length(len(categories))*10+60, 360), 1400)
	below, left := nominal(&p.X, categories, (width-60)/vg.Length(len(categories)))
	p.Add(plotterFunc(grid), plotterFunc(func(c draw.Canvas, p *gonum.Plot) {
		tx, ty := p.Transforms(&c)
		style := letters(7, false)
		style.XAlign, style.YAlign = text.XCenter, text.YBottom
		step := 0.8 / float64(len(series))
		written := labelsOf(series, len(categories), func(label string) bool { return style.Width(label) <= tx(step*0.88)-tx(0)+1 })
		for k, s := range series {
			for i := range min(len(s.Y), len(categories)) {
				if !finite(s.Y[i]) {
					continue
				}
				left := float64(i) - 0.4 + float64(k)*step
				x0, x1 := tx(left+step*0.06), tx(left+step*0.94)
				top := min(max(ty(s.Y[i]), c.Min.Y), c.Max.Y)
				fill(c, Color(k), x0, min(max(ty(math.Max(0, p.Y.Min)), c.Min.Y), c.Max.Y), x1, top)
				if written != nil {
					c.FillText(style, vg.Point{X: (x0 + x1) / 2, Y: top + 1.5}, written(s.Y[i]))
				}
			}
		}
	}))
	var entries []entry
	for k, s := range series {
		entries = append(entries, entry{s.Name, func(c draw.Canvas, left, y vg.Length) { fill(c, Color(k), left+2, y-4, left+16, y+4) }})
	}
	const above = 6 // a bar that ends at the bound has its number over it
	return &Panel{width: width + left, height: 220 + above + below + a.below(), draw: func(c draw.Canvas) {
		if spare := c.Max.X - c.Min.X - 2*(width+left); spare > 0 { // a column's width is its widest panel's
			c = draw.Crop(c, spare/2, -spare/2, 0, 0)
		}
		p.Draw(draw.Crop(legend(title(c, a.Title), entries), left, -4, 0, -above))
	}}
}

// nominal names the whole numbers of a horizontal axis, room apart and turned
// where they would touch. It returns the height they take, and how far a turned
// one reaches out on the left, beyond the vertical axis' own labels.
func nominal(axis *gonum.Axis, names []string, room vg.Length) (below, left vg.Length) {
	style := axis.Tick.Label
	turned := widest(names, style) > room-4
	ticks := make([]gonum.Tick, len(names))
	for i, n := range names {
		ticks[i] = gonum.Tick{Value: float64(i), Label: fit(n, style, 130)}
	}
	axis.Tick.Marker = gonum.ConstantTicks(ticks)
	axis.Tick.LineStyle.Color = color.Transparent // the marks only keep the labels off the axis
	axis.Tick.Length = 2
	if !turned {
		return 14, 0
	}
	axis.Tick.Label.Rotation = math.Pi / 4
	axis.Tick.Length = 6
	axis.Tick.Label.XAlign, axis.Tick.Label.YAlign = text.XRight, text.YCenter
	const beside = 20 // the vertical axis' labels
	for i, t := range ticks {
		left = max(left, style.Width(t.Label)*0.72-(vg.Length(i)+0.5)*room-beside)
	}
	return min(widest(names, style), 130)*0.72 + 10, left
}

// labelsOf chooses how numbers are written above bars, so that all of them fit;
// nil where they cannot: some bars with a number and some without would read as
// if those had none.
func labelsOf(series []Series, categories int, fits func(string) bool) func(float64) string {
	for _, scale := range []float64{1000, 100} {
		label := func(v float64) string { return Number(math.Round(v*scale) / scale) }
		all := true
		for _, s := range series {
			for _, v := range s.Y[:min(len(s.Y), categories)] {
				all = all && (!finite(v) || fits(label(v)))
			}
		}
		if all {
			return label
		}
	}
	return nil
}

// Ranked draws lying bars, longest name first read: importance, accuracy by
// class. Values are written at their ends.
func Ranked(a Axes, names []string, values []float64) *Panel {
	n := min(len(names), len(values))
	if n == 0 {
		return empty(a.Title)
	}
	small := letters(8, false)
	side := min(widest(names, small), 180) + 8
	below := vg.Length(2)
	if a.X != "" {
		below = 16
	}
	return &Panel{width: side + 280, height: vg.Length(n)*18 + 34 + below, draw: func(c draw.Canvas) {
		c = title(c, a.Title)
		body := draw.Crop(c, side, -44, below, 0)
		high := 0.0
		for _, v := range values[:n] {
			if finite(v) {
				high = math.Max(high, v)
			}
		}
		if a.High != nil {
			high = *a.High
		}
		if high <= 0 {
			high = 1
		}
		row := (body.Max.Y - body.Min.Y) / vg.Length(n)
		name := small
		name.XAlign = text.XRight
		for i := range n {
			y := body.Max.Y - (vg.Length(i)+0.5)*row
			c.FillText(name, vg.Point{X: body.Min.X - 5, Y: y}, fit(names[i], small, side-8))
			v := values[i]
			if !finite(v) {
				c.FillText(small, vg.Point{X: body.Min.X + 4, Y: y}, "none")
				continue
			}
			x := body.Min.X + vg.Length(math.Min(math.Max(v/high, 0), 1))*(body.Max.X-body.Min.X)
			fill(c, Color(0), body.Min.X, y-row*0.36, x, y+row*0.36)
			c.FillText(small, vg.Point{X: x + 4, Y: y}, Number(math.Round(v*1e4)/1e4))
		}
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.6}, body.Min.X, body.Min.Y, body.Min.X, body.Max.Y)
		style := letters(9, false)
		style.XAlign, style.YAlign = text.XCenter, text.YBottom
		c.FillText(style, vg.Point{X: (body.Min.X + body.Max.X) / 2, Y: c.Min.Y}, a.X)
	}}
}
