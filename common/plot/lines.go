package plot

import (
	"image/color"
	"math"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Series is a line through points, or the points alone. X may be nil: then it
// is 1, 2, 3, ... Points that are not finite are gaps.
type Series struct {
	Name   string
	X, Y   []float64
	Points bool      // the points, without a line
	Faint  bool      // one of many: thin and grey, without a place in the legend
	Level  []float64 // shares in [0, 1] that colour the points; nil = the series' colour
}

func (s Series) x(i int) float64 {
	if s.X == nil {
		return float64(i + 1)
	}
	return s.X[i]
}

func (s Series) len() int {
	if s.X == nil {
		return len(s.Y)
	}
	return min(len(s.X), len(s.Y))
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Lines draws series over one another.
func Lines(a Axes, series ...Series) *Panel {
	p := a.axes()
	points := 0
	usable := func(x, y float64) bool {
		return finite(x) && finite(y) && (!a.LogX || x > 0) && (!a.LogY || y > 0)
	}
	for _, s := range series {
		for i := range s.len() {
			if usable(s.x(i), s.Y[i]) {
				span(p, s.x(i), s.Y[i])
				points++
			}
		}
	}
	if points == 0 {
		return empty(a.Title)
	}
	p.Add(plotterFunc(grid))
	var entries []entry
	color := 0
	for _, s := range series {
		style := line(color, 1.6)
		if s.Faint {
			style.Color, style.Width, style.Dashes = shade, 0.5, nil
		} else {
			color++
		}
		p.Add(plotterFunc(func(c draw.Canvas, p *gonum.Plot) { s.draw(c, p, style, usable) }))
		if !s.Faint {
			entries = append(entries, entry{s.Name, func(c draw.Canvas, left, y vg.Length) {
				if s.Points {
					dot(c, style.Color, left+9, y, 2.4)
					return
				}
				c.StrokeLine2(style, left, y, left+16, y)
			}})
		}
	}
	return a.chart(360, 250, p, entries)
}

func dot(c draw.Canvas, clr color.Color, x, y, r vg.Length) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: clr, Radius: r, Shape: draw.CircleGlyph{}}, vg.Point{X: x, Y: y})
}

func (s Series) draw(c draw.Canvas, p *gonum.Plot, style draw.LineStyle, usable func(x, y float64) bool) {
	tx, ty := p.Transforms(&c)
	var run []vg.Point
	flush := func() {
		if len(run) > 1 && !s.Points {
			c.StrokeLines(style, c.ClipLinesXY(run)...)
		}
		run = run[:0:0]
	}
	for i := range s.len() {
		if !usable(s.x(i), s.Y[i]) {
			flush()
			continue
		}
		at := vg.Point{X: tx(s.x(i)), Y: ty(s.Y[i])}
		run = append(run, at)
		if s.Faint || !c.Contains(at) {
			continue
		}
		switch {
		case s.Points && s.Level != nil:
			dot(c, viridis.at(s.Level[i]), at.X, at.Y, 2.4)
		case s.Points:
			dot(c, style.Color, at.X, at.Y, 2.4)
		case s.len() <= 60:
			dot(c, style.Color, at.X, at.Y, 1.6)
		}
	}
	flush()
}
