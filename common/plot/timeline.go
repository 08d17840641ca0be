package plot

import (
	"image"
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Kind is what a stretch of time was spent on, with its own look.
type Kind struct {
	Name string
	Fill Fill
}

// Span is a stretch of time in a row of a timeline. Start and End are in the
// unit of the horizontal axis, Kind is an index into the kinds.
type Span struct {
	Row        string
	Start, End float64
	Kind       int
	Label      string
}

// Timeline draws what each row (a slot) did when. Rows are in the order given.
func Timeline(a Axes, rows []string, kinds []Kind, spans []Span) *Panel {
	index := map[string]int{}
	for i, r := range rows {
		index[r] = i
	}
	const row = 22
	g := a.grid(580, max(vg.Length(len(rows))*row+80, 140))
	for _, s := range spans {
		g.x.take(s.Start)
		g.x.take(s.End)
	}
	if len(rows) == 0 || g.x.low > g.x.high {
		return empty(a.Title)
	}
	g.y.names = make([]string, len(rows))
	style := letters(8, false)
	for i, r := range rows {
		g.y.names[len(rows)-1-i] = fit(r, style, 140)
	}
	for _, k := range kinds {
		g.entries = append(g.entries, swatch(k.Name, k.Fill))
	}
	g.draw = func(c draw.Canvas, g *grid) {
		style := letters(7.5, false)
		style.XAlign = text.XCenter
		for _, s := range spans {
			i, ok := index[s.Row]
			if !ok || !finite(s.Start) || !finite(s.End) {
				continue
			}
			y := float64(len(rows) - 1 - i)
			from, to := g.at(c, s.Start, y-0.38), g.at(c, math.Max(s.End, s.Start), y+0.38)
			kind := Fill{Color: Color(s.Kind)}
			if s.Kind < len(kinds) {
				kind = kinds[s.Kind].Fill
			}
			right := max(to.X-0.7, from.X+0.5)
			kind.paint(c, from.X, from.Y, right, to.Y)
			if w := style.Width(s.Label); w < right-from.X-4 && to.Y-from.Y > 8 {
				// Letters lie on plain colour, not on the hatch.
				mid := vg.Point{X: (from.X + right) / 2, Y: (from.Y + to.Y) / 2}
				if kind.Hatch != Plain {
					fill(c, kind.Color, mid.X-w/2-1.5, mid.Y-4.5, mid.X+w/2+1.5, mid.Y+4.5)
				}
				style.Color = on(kind.Color)
				c.FillText(style, mid, s.Label)
			}
		}
	}
	return g.panel()
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
