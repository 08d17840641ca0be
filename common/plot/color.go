package plot

import (
	"image/color"
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Okabe and Ito's palette, black last ("Color Universal Design", 2008).
var okabeIto = []color.NRGBA{
	{R: 0, G: 114, B: 178, A: 255}, {R: 213, G: 94, B: 0, A: 255}, {R: 0, G: 158, B: 115, A: 255}, {R: 204, G: 121, B: 167, A: 255},
	{R: 230, G: 159, B: 0, A: 255}, {R: 86, G: 180, B: 233, A: 255}, {R: 190, G: 175, B: 20, A: 255}, {R: 70, G: 70, B: 70, A: 255},
}

// Color is the i-th colour of a series; it repeats after 8, with other dashes.
func Color(i int) color.Color { return okabeIto[i%len(okabeIto)] }

func line(i int, width vg.Length) draw.LineStyle {
	dashes := [][]vg.Length{nil, {5, 2}, {1.5, 1.5}, {6, 2, 1.5, 2}}
	return draw.LineStyle{Color: Color(i), Width: width, Dashes: dashes[i/len(okabeIto)%len(dashes)]}
}

// scale is a colour scale over [0, 1], straight between anchors.
type scale []color.NRGBA

var (
	// viridis (van der Walt and Smith, 2015) at nine even steps.
	viridis = scale{{68, 1, 84, 255}, {71, 44, 122, 255}, {59, 81, 139, 255}, {44, 113, 142, 255}, {33, 144, 141, 255},
		{39, 173, 129, 255}, {92, 200, 99, 255}, {170, 220, 50, 255}, {253, 231, 37, 255}}
	// blues goes from white, for counts and shares.
	blues = scale{{255, 255, 255, 255}, {222, 235, 247, 255}, {158, 202, 225, 255}, {66, 146, 198, 255}, {8, 81, 156, 255}, {8, 48, 107, 255}}
)

func (s scale) at(v float64) color.NRGBA {
	if math.IsNaN(v) {
		return color.NRGBA{R: 200, G: 200, B: 200, A: 255}
	}
	v = min(max(v, 0), 1) * float64(len(s)-1)
	i := min(int(v), len(s)-2)
	f := v - float64(i)
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a)*(1-f) + float64(b)*f)) }
	a, b := s[i], s[i+1]
	return color.NRGBA{R: mix(a.R, b.R), G: mix(a.G, b.G), B: mix(a.B, b.B), A: 255}
}

// on is a colour for letters that stays legible on another.
func on(c color.NRGBA) color.Color {
	if 0.299*float64(c.R)+0.587*float64(c.G)+0.114*float64(c.B) < 140 {
		return color.White
	}
	return ink
}

func fill(c draw.Canvas, clr color.Color, x0, y0, x1, y1 vg.Length) {
	c.FillPolygon(clr, []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}})
}

// bar draws a colour scale with its two ends' values, upright in c.
func (s scale) bar(c draw.Canvas, low, high string) {
	style := letters(8, false)
	const steps = 64
	h := (c.Max.Y - c.Min.Y) / steps
	for i := range steps {
		y := c.Min.Y + vg.Length(i)*h
		fill(c, s.at((float64(i)+0.5)/steps), c.Min.X, y, c.Min.X+10, y+h+0.3)
	}
	c.FillText(style, vg.Point{X: c.Min.X + 14, Y: c.Min.Y + 4}, low)
	c.FillText(style, vg.Point{X: c.Min.X + 14, Y: c.Max.Y - 4}, high)
}
