package plot

import (
	"image"
	"math"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Span is a stretch of time in a row of a timeline. Start and End are in the
// unit of the horizontal axis, Kind is an index into the kinds' names.
type Span struct {
	Row        string
	Start, End float64
	Kind       int
	Label      string
}

// Timeline draws what each row (a slot) did when. Rows stand in the order given.
func Timeline(a Axes, rows, kinds []string, spans []Span) *Panel {
	index := map[string]int{}
	for i, r := range rows {
		index[r] = i
	}
	p := a.axes()
	for _, s := range spans {
		span(p, s.Start, 0)
		span(p, s.End, 0)
	}
	if len(rows) == 0 || p.X.Min > p.X.Max {
		return empty(a.Title)
	}
	p.Y.Min, p.Y.Max = -0.5, float64(len(rows))-0.5
	a.bound(p)
	ticks := make([]gonum.Tick, len(rows))
	for i, r := range rows {
		ticks[i] = gonum.Tick{Value: float64(len(rows) - 1 - i), Label: fit(r, p.Y.Tick.Label, 140)}
	}
	p.Y.Tick.Marker = gonum.ConstantTicks(ticks)
	p.Add(plotterFunc(func(c draw.Canvas, p *gonum.Plot) {
		tx, ty := p.Transforms(&c)
		style := letters(7, false)
		style.XAlign = text.XCenter
		for _, s := range spans {
			i, ok := index[s.Row]
			if !ok || !finite(s.Start) || !finite(s.End) {
				continue
			}
			y := float64(len(rows) - 1 - i)
			x0, x1 := tx(s.Start), tx(math.Max(s.End, s.Start))
			y0, y1 := ty(y-0.4), ty(y+0.4)
			fill(c, Color(s.Kind), x0, y0, max(x1-0.5, x0+0.5), y1)
			style.Color = on(okabeIto[s.Kind%len(okabeIto)])
			if style.Width(s.Label) < x1-x0-2 && y1-y0 > 7 {
				c.FillText(style, vg.Point{X: (x0 + x1) / 2, Y: (y0 + y1) / 2}, s.Label)
			}
		}
	}))
	var entries []entry
	for k, name := range kinds {
		entries = append(entries, entry{name, func(c draw.Canvas, left, y vg.Length) { fill(c, Color(k), left+2, y-4, left+16, y+4) }})
	}
	return &Panel{width: 560, height: max(vg.Length(len(rows))*20+80, 140), draw: func(c draw.Canvas) {
		p.Draw(draw.Crop(legend(title(c, a.Title), entries), 0, -6, 0, 0))
	}}
}

// Image shows an image at its own proportions, as large as width points allow.
func Image(heading string, img image.Image, width float64) *Panel {
	b := img.Bounds()
	if b.Dx() == 0 || b.Dy() == 0 {
		return empty(heading)
	}
	ratio := vg.Length(b.Dy()) / vg.Length(b.Dx())
	return &Panel{width: vg.Length(width), height: vg.Length(width)*ratio + 18, draw: func(c draw.Canvas) {
		c = title(c, heading)
		w, h := c.Max.X-c.Min.X, c.Max.Y-c.Min.Y
		if w*ratio > h {
			w = h / ratio
		}
		h = w * ratio
		left := c.Center().X - w/2
		c.DrawImage(vg.Rectangle{Min: vg.Point{X: left, Y: c.Max.Y - h}, Max: vg.Point{X: left + w, Y: c.Max.Y}}, img)
	}}
}
