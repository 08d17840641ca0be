package plot

import (
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Surface is a value over two numbers, known at some points.
type Surface struct {
	X, Y, Value []float64
	Low, High   float64 // the colours' range
	LowIsBest   bool
	Best        int // the point with a star, counted from 1; 0 = none
}

const (
	manyPoints = 24  // from here on a surface is drawn between the points; with fewer it would be guessed
	bands      = 10  // of colour
	fineCells  = 110 // along each axis
	fewCells   = 6
)

// Contour draws bands of equal value between the points. A surface through few
// points would be a guess: then the plane is cut into cells, each with the
// median of its points. The points themselves are marked.
func Contour(a Axes, s Surface) *Panel {
	g := a.grid(380, 300)
	g.Levels = [2]string{"worst", "best"}
	type point struct{ x, y, value float64 }
	var known []point
	for i := range min(len(s.X), len(s.Y), len(s.Value)) {
		if finite(s.X[i]) && finite(s.Y[i]) && finite(s.Value[i]) && (!a.LogX || s.X[i] > 0) && (!a.LogY || s.Y[i] > 0) {
			known = append(known, point{s.X[i], s.Y[i], s.Value[i]})
			g.x.take(s.X[i])
			g.y.take(s.Y[i])
		}
	}
	if len(known) == 0 {
		return empty(a.Title)
	}
	if ends := Numbers([]float64{s.Low, s.High}); s.LowIsBest {
		g.Levels = [2]string{ends[1], ends[0]}
	} else {
		g.Levels = [2]string{ends[0], ends[1]}
	}
	level := func(v float64) float64 {
		l := 0.5
		if s.High > s.Low {
			l = min(max((v-s.Low)/(s.High-s.Low), 0), 1)
		}
		if s.LowIsBest {
			l = 1 - l
		}
		return l
	}
	points := known
	g.draw = func(c draw.Canvas, g *grid) {
		known := make([]point, len(points)) // in shares of the axes, so that neither counts more
		for i, p := range points {
			known[i] = point{g.x.share(p.x), g.y.share(p.y), p.value}
		}
		w, h := c.Max.X-c.Min.X, c.Max.Y-c.Min.Y
		// What is painted later covers a cell more than it has of its neighbours
		// above and on the right: no paper is seen between two of them.
		cell := func(x0, y0, x1, y1 vg.Length, l float64) {
			fill(c, rising.at(l), c.Min.X+x0*w, c.Min.Y+y0*h, min(c.Min.X+x1*w, c.Max.X), min(c.Min.Y+y1*h, c.Max.Y))
		}
		if len(known) < manyPoints {
			for i := range fewCells {
				for k := range fewCells {
					var held []float64
					for _, p := range known {
						if min(int(p.x*fewCells), fewCells-1) == k && min(int(p.y*fewCells), fewCells-1) == i {
							held = append(held, p.value)
						}
					}
					if len(held) > 0 {
						slices.Sort(held)
						n := len(held)
						x, y := vg.Length(k)/fewCells, vg.Length(i)/fewCells
						cell(x, y, x+1./fewCells, y+1./fewCells, level((held[(n-1)/2]+held[n/2])/2))
					}
				}
			}
		} else {
			for i := range fineCells {
				y := (float64(i) + 0.5) / fineCells
				for k := 0; k < fineCells; {
					// Cells of one band beside one another are one rectangle.
					band := func(k int) float64 {
						x := (float64(k) + 0.5) / fineCells
						sum, weight := 0.0, 0.0
						for _, p := range known { // Shepard, 1968
							d := (p.x-x)*(p.x-x) + (p.y-y)*(p.y-y) + 4e-4
							f := 1 / (d * d)
							sum, weight = sum+f*p.value, weight+f
						}
						return math.Min(math.Floor(level(sum/weight)*bands), bands-1)
					}
					from, b := k, band(k)
					for k++; k < fineCells && band(k) == b; k++ {
					}
					cell(vg.Length(from)/fineCells, vg.Length(i)/fineCells, vg.Length(k+1)/fineCells, vg.Length(i+2)/fineCells, (b+0.5)/bands)
				}
			}
		}
		for _, p := range known {
			x, y := c.Min.X+vg.Length(p.x)*w, c.Min.Y+vg.Length(p.y)*h
			r := pointSize(len(known))
			dot(c, paper, x, y, r+0.3)
			dot(c, rising.at(level(p.value)), x, y, r-0.4)
		}
		if i := s.Best - 1; i >= 0 && i < len(known) {
			star(c, c.Min.X+vg.Length(known[i].x)*w, c.Min.Y+vg.Length(known[i].y)*h, 5.5)
		}
	}
	return g.panel()
}
