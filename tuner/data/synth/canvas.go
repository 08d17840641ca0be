package synth

import (
	"image"
	"image/color"
	"math"
	"math/rand/v2"

	"golang.org/x/image/vector"
)

// point is a place in the world: metres, x to the right, y up from the ground at 0.
type point struct{ x, y float64 }

// rgb is a colour, 0 to 1 each.
type rgb struct{ r, g, b float64 }

func hex(v uint32) rgb {
	return rgb{float64(v>>16&0xff) / 255, float64(v>>8&0xff) / 255, float64(v&0xff) / 255}
}

func mix(a, b rgb, t float64) rgb {
	return rgb{a.r + (b.r-a.r)*t, a.g + (b.g-a.g)*t, a.b + (b.b-a.b)*t}
}

// times makes a colour darker (below 1) or lighter.
func (c rgb) times(f float64) rgb { return rgb{c.r * f, c.g * f, c.b * f} }

func (c rgb) jitter(r *rand.Rand, amount float64) rgb {
	l := 1 + amount*(2*r.Float64()-1)
	return rgb{c.r*l + amount*(r.Float64()-0.5)*0.4, c.g*l + amount*(r.Float64()-0.5)*0.4, c.b*l + amount*(r.Float64()-0.5)*0.4}
}

func (c rgb) nrgba(alpha float64) color.NRGBA {
	b := func(v float64) uint8 { return uint8(math.Round(255 * min(max(v, 0), 1))) }
	return color.NRGBA{b(c.r), b(c.g), b(c.b), b(alpha)}
}

// view maps the world to the image: scale, shift, mirror, a wall that recedes to one side, a tilted camera.
type view struct {
	scale   float64 // pixels a metre
	centerX float64 // pixel column of x = 0
	base    float64 // pixel row of the ground
	horizon float64 // pixel row of the horizon: lines above it fall, below it rise, towards the far side
	recede  float64 // 0 frontal; sign says which side is far
	tilt    float64 // radians
	mirror  bool
	size    float64 // pixels
}

func (v *view) at(p point) (float64, float64) {
	x := p.x
	if v.mirror {
		x = -x
	}
	dx := x * v.scale
	f := 1 / (1 + v.recede*dx/v.size)
	px := v.centerX + dx*f
	py := v.horizon + (v.base-p.y*v.scale-v.horizon)*f
	s, c := math.Sin(v.tilt), math.Cos(v.tilt)
	cx, cy := px-v.size/2, py-v.size/2
	return v.size/2 + cx*c - cy*s, v.size/2 + cx*s + cy*c
}

// canvas paints antialiased polygons.
type canvas struct {
	img  *image.RGBA
	ras  *vector.Rasterizer
	view view
	flat bool // coordinates are pixels already
	buf  []point
}

func newCanvas(size int) *canvas {
	return &canvas{img: image.NewRGBA(image.Rect(0, 0, size, size)), ras: vector.NewRasterizer(size, size)}
}

func (c *canvas) fill(col rgb, pts ...point) { c.fillAlpha(col, 1, pts...) }

// fillAlpha paints a closed polygon. Only its bounding box is rasterised.
func (c *canvas) fillAlpha(col rgb, alpha float64, pts ...point) {
	c.buf = c.buf[:0]
	minX, minY, maxX, maxY := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, p := range pts {
		x, y := p.x, p.y
		if !c.flat {
			x, y = c.view.at(p)
		}
		c.buf = append(c.buf, point{x, y})
		minX, maxX = min(minX, x), max(maxX, x)
		minY, maxY = min(minY, y), max(maxY, y)
	}
	box := image.Rect(int(math.Floor(minX)), int(math.Floor(minY)), int(math.Ceil(maxX)), int(math.Ceil(maxY)))
	part := box.Intersect(c.img.Rect)
	if part.Empty() {
		return
	}
	// The rasteriser clips at its own edges, so it may cover just the visible part.
	c.ras.Reset(part.Dx(), part.Dy())
	for i, p := range c.buf {
		x, y := float32(p.x-float64(part.Min.X)), float32(p.y-float64(part.Min.Y))
		if i == 0 {
			c.ras.MoveTo(x, y)
		} else {
			c.ras.LineTo(x, y)
		}
	}
	c.ras.ClosePath()
	c.ras.Draw(c.img, part, image.NewUniform(col.nrgba(alpha)), image.Point{})
}

func (c *canvas) rect(x, y, w, h float64, col rgb) {
	c.fill(col, point{x, y}, point{x + w, y}, point{x + w, y + h}, point{x, y + h})
}

func (c *canvas) rectAlpha(x, y, w, h float64, col rgb, alpha float64) {
	c.fillAlpha(col, alpha, point{x, y}, point{x + w, y}, point{x + w, y + h}, point{x, y + h})
}

func (c *canvas) line(a, b point, width float64, col rgb, alpha float64) {
	dx, dy := b.x-a.x, b.y-a.y
	l := math.Hypot(dx, dy)
	if l == 0 {
		return
	}
	nx, ny := -dy/l*width/2, dx/l*width/2
	c.fillAlpha(col, alpha, point{a.x + nx, a.y + ny}, point{b.x + nx, b.y + ny}, point{b.x - nx, b.y - ny}, point{a.x - nx, a.y - ny})
}

func (c *canvas) polyline(width float64, col rgb, pts ...point) {
	for i := 1; i < len(pts); i++ {
		c.line(pts[i-1], pts[i], width, col, 1)
	}
}

// arc lists the points of an ellipse's part from angle a to b (radians).
func arc(cx, cy, rx, ry, a, b float64, n int) []point {
	pts := make([]point, 0, n+1)
	for i := range n + 1 {
		t := a + (b-a)*float64(i)/float64(n)
		pts = append(pts, point{cx + rx*math.Cos(t), cy + ry*math.Sin(t)})
	}
	return pts
}

func (c *canvas) ellipse(cx, cy, rx, ry float64, col rgb, alpha float64) {
	c.fillAlpha(col, alpha, arc(cx, cy, rx, ry, 0, 2*math.Pi, 18)...)
}

// blob is a closed shape with a wavy edge: leaves, bushes, clouds.
func (c *canvas) blob(r *rand.Rand, cx, cy, rx, ry, rough float64, col rgb, alpha float64) {
	const n = 16
	pts := make([]point, n)
	for i := range pts {
		t := 2 * math.Pi * float64(i) / n
		f := 1 + rough*(2*r.Float64()-1)
		pts[i] = point{cx + rx*f*math.Cos(t), cy + ry*f*math.Sin(t)}
	}
	c.fillAlpha(col, alpha, pts...)
}

// Random draws. Each is one call of the stream, so that a figure changed elsewhere does not shift the rest.

func between(r *rand.Rand, lo, hi float64) float64 { return lo + (hi-lo)*r.Float64() }

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }
