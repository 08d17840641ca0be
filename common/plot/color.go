package plot

import (
	"image/color"
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Okabe and Ito's palette, black last ("Color Universal Design", 2008).
var okabeIto = []color.NRGBA{
	{R: 0, G: 114, B: 178, A: 255}, {R: 213, G: 94, B: 0, A: 255}, {R: 0, G: 158, B: 115, A: 255}, {R: 204, G: 121, B: 167, A: 255},
	{R: 230, G: 159, B: 0, A: 255}, {R: 86, G: 180, B: 233, A: 255}, {R: 190, G: 175, B: 20, A: 255}, {R: 70, G: 70, B: 70, A: 255},
}

// Colours of the palette by name, for what has a fixed colour.
var (
	Blue       = okabeIto[0]
	Vermilion  = okabeIto[1]
	Green      = okabeIto[2]
	Purple     = okabeIto[3]
	Orange     = okabeIto[4]
	Sky        = okabeIto[5]
	Olive      = okabeIto[6]
	Black      = okabeIto[7]
	Grey       = color.NRGBA{R: 176, G: 181, B: 190, A: 255}
	bestColour = Vermilion
)

// Color is the i-th colour of a series; it repeats after 8, with other dashes.
func Color(i int) color.NRGBA { return okabeIto[i%len(okabeIto)] }

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
	// rising is viridis from its light end to its dark one, without the yellow
	// that is hardly seen on paper: what is best, or last, is darkest.
	rising = func() (s scale) {
		for i := range 9 {
			s = append(s, viridis.at(0.88*(1-float64(i)/8)))
		}
		return s
	}()
	// blues goes from paper, for counts and shares.
	blues = scale{paper, {222, 235, 247, 255}, {158, 202, 225, 255}, {66, 146, 198, 255}, {8, 81, 156, 255}, {8, 48, 107, 255}}
)

func (s scale) at(v float64) color.NRGBA {
	if math.IsNaN(v) {
		return paper
	}
	v = min(max(v, 0), 1) * float64(len(s)-1)
	i := min(int(v), len(s)-2)
	f := v - float64(i)
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a)*(1-f) + float64(b)*f)) }
	a, b := s[i], s[i+1]
	return color.NRGBA{R: mix(a.R, b.R), G: mix(a.G, b.G), B: mix(a.B, b.B), A: 255}
}

// light is a colour's part of the light that eyes see, 0 to 1 (WCAG 2.2,
// relative luminance).
func light(c color.NRGBA) float64 {
	linear := func(b uint8) float64 {
		v := float64(b) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

// on is a colour for letters that stays legible on another.
func on(c color.NRGBA) color.Color {
	if (1.05)/(light(c)+0.05) > (light(c)+0.05)/(light(ink)+0.05) {
		return color.White
	}
	return ink
}

func fill(c draw.Canvas, clr color.Color, x0, y0, x1, y1 vg.Length) {
	c.FillPolygon(clr, []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}})
}

func outline(c draw.Canvas, style draw.LineStyle, x0, y0, x1, y1 vg.Length) {
	c.StrokeLines(style, []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}, {X: x0, Y: y0}})
}

// bar draws a colour scale with its two ends' meanings, upright in c. Each step
// reaches to the top, below those that follow: between two of them nothing of
// the paper is seen.
func (s scale) bar(c draw.Canvas, low, high string) {
	style := letters(8, false)
	const steps = 128
	h := (c.Max.Y - c.Min.Y) / steps
	for i := range steps {
		fill(c, s.at((float64(i)+0.5)/steps), c.Min.X, c.Min.Y+vg.Length(i)*h, c.Min.X+10, c.Max.Y)
	}
	outline(c, draw.LineStyle{Color: frame, Width: 0.5}, c.Min.X, c.Min.Y, c.Min.X+10, c.Max.Y)
	style.YAlign = text.YBottom
	c.FillText(style, vg.Point{X: c.Min.X + 14, Y: c.Min.Y - 2}, low)
	style.YAlign = text.YTop
	c.FillText(style, vg.Point{X: c.Min.X + 14, Y: c.Max.Y + 2}, high)
}

// Hatch is the second sign of a filled area, for those who cannot tell its
// colour from another.
type Hatch int

// The hatches.
const (
	Plain Hatch = iota
	Rising
	Falling
	Crossed
	Upright
	Lying
	Dotted
)

// Fill is how an area is filled.
type Fill struct {
	Color color.NRGBA
	Hatch Hatch
}

// paint fills a rectangle.
func (f Fill) paint(c draw.Canvas, x0, y0, x1, y1 vg.Length) {
	fill(c, f.Color, x0, y0, x1, y1)
	const step = 5
	style := draw.LineStyle{Color: color.NRGBA{R: 255, G: 255, B: 255, A: 190}, Width: 1}
	if on(f.Color) == ink {
		style.Color = color.NRGBA{R: 34, G: 34, B: 34, A: 110}
		style.Width = 0.8
	}
	w, h := x1-x0, y1-y0
	if w < 1.5 || h < 1.5 {
		return
	}
	diagonal := func(rising bool) {
		for d := -h + step/2; d < w; d += step {
			from, to := max(d, 0), min(d+h, w) // along x
			a, b := from-d, to-d               // the heights there
			if !rising {
				a, b = h-a, h-b
			}
			c.StrokeLine2(style, x0+from, y0+a, x0+to, y0+b)
		}
	}
	switch f.Hatch {
	case Rising:
		diagonal(true)
	case Falling:
		diagonal(false)
	case Crossed:
		diagonal(true)
		diagonal(false)
	case Upright:
		for x := vg.Length(step / 2.); x < w; x += step {
			c.StrokeLine2(style, x0+x, y0, x0+x, y1)
		}
	case Lying:
		for y := vg.Length(step / 2.); y < h; y += step - 1 {
			c.StrokeLine2(style, x0, y0+y, x1, y0+y)
		}
	case Dotted:
		for i, y := 0, vg.Length(2); y < h-1; i, y = i+1, y+4 {
			for x := 2 + vg.Length(i%2)*2.5; x < w-1; x += step {
				dot(c, style.Color, x0+x, y0+y, 0.8)
			}
		}
	}
}

func dot(c draw.Canvas, clr color.Color, x, y, r vg.Length) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: clr, Radius: r, Shape: draw.CircleGlyph{}}, vg.Point{X: x, Y: y})
}

// shape draws the i-th form of a series' points: circle, square, diamond,
// triangle. They tell series apart that look alike in grey.
func shape(c draw.Canvas, i int, clr color.Color, x, y, r vg.Length) {
	at := func(points ...[2]vg.Length) {
		p := make([]vg.Point, len(points))
		for i, d := range points {
			p[i] = vg.Point{X: x + d[0]*r, Y: y + d[1]*r}
		}
		c.FillPolygon(clr, p)
	}
	switch i % 4 {
	case 0:
		dot(c, clr, x, y, r)
	case 1:
		at([2]vg.Length{-0.9, -0.9}, [2]vg.Length{0.9, -0.9}, [2]vg.Length{0.9, 0.9}, [2]vg.Length{-0.9, 0.9})
	case 2:
		at([2]vg.Length{0, -1.3}, [2]vg.Length{1.3, 0}, [2]vg.Length{0, 1.3}, [2]vg.Length{-1.3, 0})
	case 3:
		at([2]vg.Length{-1.1, -0.9}, [2]vg.Length{1.1, -0.9}, [2]vg.Length{0, 1.2})
	}
}

// star marks the best of all.
func star(c draw.Canvas, x, y, r vg.Length) {
	points := func(r vg.Length) (p []vg.Point) {
		for i := range 10 {
			sin, cos := math.Sincos(math.Pi/2 + float64(i)*math.Pi/5)
			k := r
			if i%2 == 1 {
				k *= 0.45
			}
			p = append(p, vg.Point{X: x + k*vg.Length(cos), Y: y + k*vg.Length(sin)})
		}
		return p
	}
	c.FillPolygon(paper, points(r*1.45))
	c.FillPolygon(bestColour, points(r))
}

// beyond is the mark of a value outside the axis, at the edge that it is
// beyond.
func beyond(c draw.Canvas, clr color.Color, x, y vg.Length, above bool) {
	const r = 3.4
	tip := vg.Length(-r)
	if above {
		tip = r
	}
	c.FillPolygon(clr, []vg.Point{{X: x, Y: y + tip*0.6}, {X: x - r, Y: y - tip}, {X: x + r, Y: y - tip}})
}
