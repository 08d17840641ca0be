package synth

import (
	"math"
	"math/rand/v2"
)

// top is the upper end of a window or door.
type top uint8

const (
	square top = iota
	round
	pointed
)

// surface is what a wall is made of.
type surface uint8

const (
	stucco surface = iota
	clapboard
	brick
	stone
	shingle
)

// house is the façade being drawn: its materials and what all its parts share.
type house struct {
	c *canvas
	r *rand.Rand

	wall, trim, roof, door, accent, glass rgb
	surface                               surface
	lit                                   float64 // share of windows with light behind them
	sun                                   float64 // -1 light from the left, 1 from the right
	width, height                         float64 // metres, without what overhangs; set by the style
	dirt                                  float64 // how worn the surfaces are
}

// outline lists the corners of an opening, counter-clockwise from the lower left.
func outline(x, y, w, h float64, t top) []point {
	switch t {
	case round:
		pts := []point{{x, y}, {x + w, y}}
		return append(pts, arc(x+w/2, y+h-w/2, w/2, w/2, 0, math.Pi, 10)...)
	case pointed:
		spring := y + h - 0.85*w
		pts := []point{{x, y}, {x + w, y}}
		pts = append(pts, arc(x, spring, w, 0.98*w, 0, math.Pi/3, 5)...)
		return append(pts, arc(x+w, spring, w, 0.98*w, math.Pi-math.Pi/3, math.Pi, 5)...)
	}
	return []point{{x, y}, {x + w, y}, {x + w, y + h}, {x, y + h}}
}

// panel is a wall with its material.
func (h *house) panel(x, y, w, ht float64) { h.panelOf(x, y, w, ht, h.wall, h.surface) }

func (h *house) panelOf(x, y, w, ht float64, col rgb, s surface) {
	h.c.rect(x, y, w, ht, col)
	h.texture(x, y, w, ht, col, s)
	// Light falls off along the wall.
	h.c.rectAlpha(x+w*(0.25-0.25*h.sun), y, w/2, ht, hex(0), 0.05)
	if h.dirt > 0.3 {
		h.c.rectAlpha(x, y, w, ht*0.18, hex(0x302818), 0.25*h.dirt)
	}
}

func (h *house) texture(x, y, w, ht float64, col rgb, s surface) {
	dark := col.times(0.72)
	switch s {
	case clapboard:
		for v := y + 0.28; v < y+ht; v += 0.28 {
			h.c.rectAlpha(x, v, w, 0.07, dark, 0.7)
		}
	case brick:
		for row, v := 0, y; v < y+ht-0.05; row, v = row+1, v+0.24 {
			h.c.rectAlpha(x, v, w, 0.05, mix(col, hex(0xd8d0c4), 0.6), 0.55)
			for u := x + 0.3*float64(row%2); u < x+w-0.5; u += 0.6 {
				if h.r.IntN(3) == 0 {
					h.c.rectAlpha(u, v+0.05, min(0.55, x+w-u), min(0.19, y+ht-v-0.05), col.times(0.75+0.4*h.r.Float64()), 0.6)
				}
			}
		}
	case stone:
		for row, v := 0, y; v < y+ht-0.1; row, v = row+1, v+0.5 {
			u := x - 0.4*float64(row%2)
			for u < x+w {
				bw := between(h.r, 0.6, 1.1)
				l, r := max(u, x), min(u+bw-0.06, x+w)
				if r > l {
					h.c.rectAlpha(l, v, r-l, min(0.44, y+ht-v), col.times(0.8+0.36*h.r.Float64()), 0.8)
				}
				u += bw
			}
		}
	case shingle:
		for row, v := 0, y; v < y+ht; row, v = row+1, v+0.3 {
			h.c.rectAlpha(x, v, w, 0.06, dark, 0.6)
			for u := x + 0.25*float64(row%2); u < x+w-0.1; u += 0.5 {
				h.c.rectAlpha(u, v, 0.06, min(0.3, y+ht-v), dark, 0.5)
			}
		}
	default:
		for range int(w * ht / 6) {
			px, py := x+w*h.r.Float64()*0.85, y+ht*h.r.Float64()*0.85
			h.c.rectAlpha(px, py, min(w*0.15, 1), min(ht*0.15, 0.5), col.times(0.94+0.12*h.r.Float64()), 0.5)
		}
	}
}

// window is an opening with frame, glass and nx by ny panes.
func (h *house) window(x, y, w, ht float64, t top, nx, ny int) {
	f := min(0.14, w/6)
	h.c.fill(h.trim, outline(x-f, y-f, w+2*f, ht+2*f, t)...)
	h.pane(x, y, w, ht, t)
	bar := min(0.09, w/12)
	for i := 1; i < nx; i++ {
		u := x + w*float64(i)/float64(nx)
		h.c.rect(u-bar/2, y, bar, ht*map[top]float64{square: 1, round: 0.93, pointed: 0.88}[t], h.trim)
	}
	for i := 1; i < ny; i++ {
		h.c.rect(x, y+ht*float64(i)/float64(ny)-bar/2, w, bar, h.trim)
	}
	h.c.rect(x-0.2, y-0.24, w+0.4, 0.14, h.trim.times(0.88)) // sill
}

// pane is the glass alone: dark, the sky in it, or light behind it.
func (h *house) pane(x, y, w, ht float64, t top) {
	g := h.glass.jitter(h.r, 0.15)
	if h.r.Float64() < h.lit {
		g = hex(0xf6cf7a).jitter(h.r, 0.1)
	}
	h.c.fill(g, outline(x, y, w, ht, t)...)
	if chance(h.r, 0.5) { // a reflection, or a curtain
		h.c.fillAlpha(hex(0xffffff), 0.22, point{x, y + ht*0.3}, point{x + w*0.6, y + ht*0.9}, point{x, y + ht*0.9})
	}
}

func (h *house) shutters(x, y, w, ht float64, col rgb) {
	sw := w * 0.42
	for _, u := range []float64{x - sw - 0.16, x + w + 0.16} {
		h.c.rect(u, y-0.1, sw, ht+0.2, col)
		h.c.rectAlpha(u+sw*0.2, y+ht*0.08, sw*0.6, ht*0.38, hex(0), 0.18)
		h.c.rectAlpha(u+sw*0.2, y+ht*0.54, sw*0.6, ht*0.38, hex(0), 0.18)
	}
}

func (h *house) entrance(x, y, w, ht float64, t top) {
	h.c.fill(h.trim, outline(x-0.18, y, w+0.36, ht+0.18, t)...)
	h.c.fill(h.door, outline(x, y, w, ht, t)...)
	h.c.rectAlpha(x+w*0.15, y+ht*0.1, w*0.28, ht*0.32, hex(0), 0.2)
	h.c.rectAlpha(x+w*0.57, y+ht*0.1, w*0.28, ht*0.32, hex(0), 0.2)
	h.c.rect(x+w*0.8, y+ht*0.45, 0.1, 0.1, hex(0xd8b860))
}

// courses are the rows of shingles or tiles of a roof whose lower edge runs from a to b and upper edge from d
// to e.
func (h *house) courses(a, b, d, e point, step float64) {
	rows := int(max(math.Hypot(d.x-a.x, d.y-a.y), d.y-a.y) / step)
	for i := 1; i < rows; i++ {
		t := float64(i) / float64(rows)
		h.c.line(point{a.x + (d.x-a.x)*t, a.y + (d.y-a.y)*t}, point{b.x + (e.x-b.x)*t, b.y + (e.y-b.y)*t}, 0.08, h.roof.times(0.7), 0.7)
	}
}

// slope is a roof seen from its long side: a trapezoid, its top shorter by inset at each end.
func (h *house) slope(x, y, w, rise, inset float64) {
	a, b := point{x, y}, point{x + w, y}
	d, e := point{x + inset, y + rise}, point{x + w - inset, y + rise}
	h.c.fill(h.roof, a, b, e, d)
	h.courses(a, b, d, e, 0.42)
	h.c.rect(x, y-0.22, w, 0.24, h.trim)
	h.c.rectAlpha(x+0.2, y-0.75, w-0.4, 0.55, hex(0), 0.28) // shade under the eaves
}

// gable is a wall's triangle with its roof seen from the end.
func (h *house) gable(x, y, w, rise, overhang, thick float64, col rgb, s surface) {
	apex := point{x + w/2, y + rise}
	h.c.fill(col, point{x, y}, point{x + w, y}, apex)
	if s == clapboard || s == shingle || s == brick {
		for v := 0.3; v < rise-0.2; v += 0.3 {
			half := w / 2 * (1 - v/rise)
			h.c.rectAlpha(x+w/2-half, y+v, 2*half, 0.07, col.times(0.72), 0.6)
		}
	}
	h.verge(x, y, w, rise, overhang, thick)
}

// verge is the edge of a roof over a gable: two sloping boards with the roof above them.
func (h *house) verge(x, y, w, rise, overhang, thick float64) {
	slope := rise / (w / 2)
	left, right := point{x - overhang, y - overhang*slope}, point{x + w + overhang, y - overhang*slope}
	apex := point{x + w/2, y + rise}
	up := thick * math.Sqrt(1+slope*slope)
	for i, end := range []point{left, right} {
		shade := 1 + 0.12*h.sun*float64(2*i-1)
		h.c.fillAlpha(hex(0), 0.25, end, apex, point{apex.x, apex.y - 0.8*up}, point{end.x, end.y - 0.8*up})
		h.c.fill(h.roof.times(shade), end, apex, point{apex.x, apex.y + up}, point{end.x, end.y + up})
		h.c.fill(h.trim.times(shade), end, apex, point{apex.x, apex.y - 0.3*up}, point{end.x, end.y - 0.3*up})
	}
}

func (h *house) chimney(x, y, w, ht float64, col rgb) {
	h.panelOf(x, y, w, ht, col, brick)
	h.c.rect(x-0.12, y+ht-0.25, w+0.24, 0.25, col.times(0.7))
}

func (h *house) column(x, y, ht, foot, head float64, col rgb) {
	h.c.fill(col, point{x - foot/2, y}, point{x + foot/2, y}, point{x + head/2, y + ht}, point{x - head/2, y + ht})
	h.c.fillAlpha(hex(0), 0.16, point{x - 0.5*h.sun*foot/2, y}, point{x - h.sun*foot/2, y}, point{x - h.sun*head/2, y + ht}, point{x - 0.5*h.sun*head/2, y + ht})
	h.c.rect(x-foot*0.65, y, foot*1.3, 0.15, col.times(0.9))
	h.c.rect(x-head*0.7, y+ht-0.15, head*1.4, 0.15, col.times(0.9))
}

// cone is a pointed roof over a tower.
func (h *house) cone(x, y, w, rise, overhang float64) {
	apex := point{x + w/2, y + rise}
	l, r := point{x - overhang, y}, point{x + w + overhang, y}
	mid := point{x + w*(0.5-0.2*h.sun), y - 0.05*w}
	h.c.fill(h.roof.times(1-0.15*h.sun), l, mid, apex)
	h.c.fill(h.roof.times(1+0.15*h.sun), mid, r, apex)
	for t := 0.15; t < 0.9; t += 0.15 {
		half := (w/2 + overhang) * (1 - t)
		h.c.line(point{apex.x - half, y + rise*t}, point{apex.x + half, y + rise*t}, 0.07, h.roof.times(0.65), 0.6)
	}
	h.c.rect(x-overhang, y-0.15, w+2*overhang, 0.2, h.trim)
	h.finial(apex.x, apex.y-0.1, 0.9)
}

func (h *house) finial(x, y, ht float64) {
	h.c.rect(x-0.06, y, 0.12, ht, h.trim.times(0.6))
	h.c.ellipse(x, y+ht*0.6, 0.15, 0.15, h.trim.times(0.6), 1)
}

func (h *house) steps(x, y, w float64) {
	for i := range 3 {
		f := float64(i)
		h.c.rect(x-0.25*(2-f), y+0.15*f, w+0.5*(2-f), 0.16, hex(0xb0aca4).times(0.85+0.08*f))
	}
}
