package plot

import (
	"image/color"
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Series is a line through points, or the points alone. X may be nil: then it
// is 1, 2, 3, ... Points that are not finite are gaps.
type Series struct {
	Name   string
	X, Y   []float64
	Points bool      // the points, without a line
	Steps  bool      // a line that goes on at its height until the next point
	Guide  bool      // no data, a line to compare with: grey dashes
	Faint  bool      // one of many: thin and grey, behind the others; lines have no place in the legend
	Level  []float64 // shares in [0, 1] that colour the points; nil = the series' colour
	Labels []string  // beside the points, as far as there is room
	Fill   *Fill     // of bars, where the colour has a meaning
	Best   int       // the point that gets a star, counted from 1; 0 = none
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
	g := a.grid(370, 260)
	points := 0
	usable := func(x, y float64) bool {
		return finite(x) && finite(y) && (!a.LogX || x > 0) && (!a.LogY || y > 0)
	}
	for _, s := range series {
		for i := range s.len() {
			if usable(s.x(i), s.Y[i]) {
				g.x.take(s.x(i))
				g.y.take(s.Y[i])
				points++
			}
		}
	}
	if points == 0 {
		return empty(a.Title)
	}
	for _, m := range a.Marks {
		g.x.take(m.X)
	}
	type drawn struct {
		Series
		style draw.LineStyle
		shape int
	}
	var all []drawn
	color, stars := 0, false
	for _, s := range series {
		d := drawn{s, line(color, 1.6), color}
		switch {
		case s.Faint:
			d.style.Color, d.style.Width, d.style.Dashes = shade, 0.6, nil
			if s.Points {
				g.entries = append(g.entries, entry{s.Name, func(c draw.Canvas, left, y vg.Length) { shape(c, 1, shade, left+8, y, 2.4) }})
				d.shape = 1
			}
		case s.Guide:
			d.style = draw.LineStyle{Color: quiet, Width: 1, Dashes: []vg.Length{4, 3}}
			g.entries = append(g.entries, entry{s.Name, func(c draw.Canvas, left, y vg.Length) { c.StrokeLine2(d.style, left, y, left+16, y) }})
		default:
			color++
			g.entries = append(g.entries, entry{s.Name, func(c draw.Canvas, left, y vg.Length) {
				if !s.Points {
					c.StrokeLine2(d.style, left, y, left+16, y)
				}
				if s.Points || !s.Steps {
					shape(c, d.shape, d.style.Color, left+8, y, 2.4)
				}
			}})
		}
		stars = stars || s.Best > 0
		all = append(all, d)
	}
	if stars {
		g.entries = append(g.entries, entry{"best", func(c draw.Canvas, left, y vg.Length) { star(c, left+8, y, 5) }})
	}
	g.draw = func(c draw.Canvas, g *grid) {
		for _, faint := range []bool{true, false} {
			for _, d := range all {
				if d.Faint == faint {
					d.draw(c, g, d.style, d.shape, usable)
				}
			}
		}
		for _, d := range all {
			if i := d.Best - 1; i >= 0 && i < d.len() && usable(d.x(i), d.Y[i]) {
				at := g.at(c, d.x(i), d.Y[i])
				star(c, at.X, min(max(at.Y, c.Min.Y), c.Max.Y), 5)
			}
		}
		labels(c, g, series, usable)
	}
	g.busy = func(c draw.Canvas, r vg.Rectangle) bool {
		inside := func(p vg.Point) bool {
			return p.X > r.Min.X-4 && p.X < r.Max.X+4 && p.Y > r.Min.Y-4 && p.Y < r.Max.Y+4
		}
		for _, s := range series {
			var last vg.Point
			for i, from := 0, false; i < s.len(); i++ {
				ok := usable(s.x(i), s.Y[i])
				if ok {
					p := g.at(c, s.x(i), s.Y[i])
					if inside(p) {
						return true
					}
					const steps = 16 // of the line to it
					for k := vg.Length(1); from && !s.Points && k < steps; k++ {
						if inside(vg.Point{X: last.X + (p.X-last.X)*k/steps, Y: last.Y + (p.Y-last.Y)*k/steps}) {
							return true
						}
					}
					last = p
				}
				from = ok
			}
		}
		return false
	}
	return g.panel()
}

// pointSize is the radius of one of so many points: many would hide one another.
func pointSize(n int) vg.Length {
	return vg.Length(min(max(2.6-float64(n-100)/200, 1.6), 2.6))
}

func (s Series) draw(c draw.Canvas, g *grid, style draw.LineStyle, form int, usable func(x, y float64) bool) {
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
		at := g.at(c, s.x(i), s.Y[i])
		if s.Steps && len(run) > 0 {
			run = append(run, vg.Point{X: at.X, Y: run[len(run)-1].Y})
		}
		run = append(run, at)
		if (s.Faint || s.Guide) && !s.Points {
			continue
		}
		clr := color.Color(style.Color)
		if s.Points && s.Level != nil {
			clr = rising.at(s.Level[i])
		}
		switch {
		case at.Y > c.Max.Y:
			beyond(c, clr, at.X, c.Max.Y-2, true)
		case at.Y < c.Min.Y:
			beyond(c, clr, at.X, c.Min.Y+2, false)
		case s.Points:
			shape(c, form, clr, at.X, at.Y, pointSize(s.len()))
		case s.len() <= 40 && !s.Steps:
			shape(c, form, clr, at.X, at.Y, 1.8)
		}
	}
	flush()
}

// labels writes names beside points where they touch neither the frame, nor a
// named point, nor one another.
func labels(c draw.Canvas, g *grid, series []Series, usable func(x, y float64) bool) {
	style := letters(7.5, false)
	var taken []vg.Rectangle
	free := func(r vg.Rectangle) bool {
		if r.Min.X < c.Min.X || r.Max.X > c.Max.X || r.Min.Y < c.Min.Y || r.Max.Y > c.Max.Y {
			return false
		}
		for _, t := range taken {
			if r.Min.X < t.Max.X && t.Min.X < r.Max.X && r.Min.Y < t.Max.Y && t.Min.Y < r.Max.Y {
				return false
			}
		}
		return true
	}
	named := func(s Series, i int) bool { return s.Labels[i] != "" && usable(s.x(i), s.Y[i]) }
	for _, s := range series {
		for i := range min(s.len(), len(s.Labels)) {
			if named(s, i) {
				at, half := g.at(c, s.x(i), s.Y[i]), pointSize(s.len())
				taken = append(taken, vg.Rectangle{Min: vg.Point{X: at.X - half, Y: at.Y - half}, Max: vg.Point{X: at.X + half, Y: at.Y + half}})
			}
		}
	}
	for _, s := range series {
		for i := range min(s.len(), len(s.Labels)) {
			if !named(s, i) {
				continue
			}
			at := g.at(c, s.x(i), s.Y[i])
			w := style.Width(s.Labels[i])
			for _, d := range []vg.Point{{X: 5, Y: 6}, {X: -5 - w, Y: 6}, {X: 5, Y: -6}, {X: -5 - w, Y: -6}, {X: 6, Y: 0}, {X: -6 - w, Y: 0}} {
				r := vg.Rectangle{Min: vg.Point{X: at.X + d.X, Y: at.Y + d.Y - 4}, Max: vg.Point{X: at.X + d.X + w, Y: at.Y + d.Y + 4}}
				if around := (vg.Rectangle{Min: vg.Point{X: r.Min.X - 1, Y: r.Min.Y}, Max: vg.Point{X: r.Max.X + 1, Y: r.Max.Y}}); free(around) {
					taken = append(taken, r)
					fill(c, veil, r.Min.X-1, r.Min.Y, r.Max.X+1, r.Max.Y)
					style.YAlign = text.YCenter
					c.FillText(style, vg.Point{X: r.Min.X, Y: (r.Min.Y + r.Max.Y) / 2}, s.Labels[i])
					break
				}
			}
		}
	}
}
