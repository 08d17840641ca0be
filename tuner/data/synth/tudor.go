package synth

import "math"

// tudor: steep gables of unequal size, dark timbers on light plaster above brick, small leaded panes, a big
// chimney.
func tudor(h *house) {
	r := h.r
	w := between(r, 9.5, 13)
	ground, upper := between(r, 2.6, 3.1), between(r, 1.6, 2.6)
	wall := ground + upper
	h.width = w
	x := -w / 2
	plaster := h.wall
	base := plaster
	if h.surface != stucco {
		base = pick(r, hex(0x9c5a44), hex(0x8f4a38), hex(0xa89a84)).jitter(r, 0.12)
	}
	rise := between(r, 2.8, 3.8)
	h.height = wall + rise + 1
	h.chimney(pick(r, x+0.4, x+w*0.5, x+w-1.9), wall-1, 1.3, rise+between(r, 1.5, 2.2), hex(0x8f4a38).jitter(r, 0.15))
	h.panelOf(x, 0, w, ground, base, h.surface)
	h.panelOf(x, ground, w, upper, plaster, stucco)
	h.timbers(x, ground, w, upper)
	h.slope(x-0.3, wall, w+0.6, rise, pick(r, 0.2, 1))
	gables := pick(r, 1, 2, 2)
	gw := w * between(r, 0.36, 0.5)
	gx := pick(r, x, x+w-gw)
	h.tudorGable(gx, ground, gw, upper, plaster, base)
	if gables == 2 {
		small := w * between(r, 0.24, 0.32)
		sx := x + w - small - 0.3
		if gx > x {
			sx = x + 0.3
		}
		h.tudorGable(sx, ground, small, upper*between(r, 0.6, 1), plaster, base)
	}
	door := gx + gw + 0.5
	if door+1.5 > x+w {
		door = gx - 2
	}
	h.entrance(door, 0.1, 1.25, 2.2, pick(r, round, pointed, square))
	for u := x + 0.8; u < x+w-1.8; u += 2.6 {
		if math.Abs(u+0.7-door-0.6) > 1.5 && (u+1.5 < gx || u > gx+gw) {
			h.leaded(u, 0.9, 1.5, 1.3)
			h.leaded(u, ground+0.4, 1.5, upper-0.8)
		}
	}
}

func (h *house) tudorGable(x, ground, w, upper float64, plaster, base rgb) {
	r := h.r
	h.panelOf(x, 0, w, ground, base, h.surface)
	jut := 0.2
	x, w = x-jut, w+2*jut
	h.c.rectAlpha(x, ground-0.35, w, 0.35, hex(0), 0.3)
	h.c.rect(x, ground, w, upper, plaster)
	rise := w * between(r, 0.62, 0.85)
	h.gable(x, ground+upper, w, rise, 0.35, 0.3, plaster, stucco)
	h.timbers(x, ground, w, upper)
	top := ground + upper
	for i := 1; i < 6; i++ { // posts and braces of the gable
		u := x + w*float64(i)/6
		ht := rise * (1 - math.Abs(float64(i)/3-1))
		h.c.rect(u-0.11, top, 0.22, ht-0.3, h.trim)
	}
	h.c.line(point{x + w*0.2, top}, point{x + w/2, top + rise*0.55}, 0.22, h.trim, 1)
	h.c.line(point{x + w*0.8, top}, point{x + w/2, top + rise*0.55}, 0.22, h.trim, 1)
	h.c.rect(x, top-0.15, w, 0.28, h.trim)
	ww := w * 0.5
	h.leaded(x+w/2-ww/2, ground+upper*0.25, ww, upper*0.6)
	h.leaded(x+w/2-ww/2, 0.8, ww, ground*0.5)
}

func (h *house) timbers(x, y, w, ht float64) {
	h.c.rect(x, y-0.12, w, 0.28, h.trim)
	h.c.rect(x, y+ht-0.2, w, 0.24, h.trim)
	n := int(w / 1.05)
	for i := range n + 1 {
		u := x + w*float64(i)/float64(n)
		h.c.rect(min(u, x+w-0.1)-0.1, y, 0.22, ht, h.trim)
		if h.r.IntN(4) == 0 && i < n {
			v := x + w*float64(i+1)/float64(n)
			h.c.line(point{u, y}, point{v, y + ht}, 0.18, h.trim, 1)
		}
	}
}

// leaded is a window of small diamond panes.
func (h *house) leaded(x, y, w, ht float64) {
	if ht < 0.3 {
		return
	}
	h.c.rect(x-0.14, y-0.14, w+0.28, ht+0.28, h.trim)
	n := max(2, int(w/0.6))
	for i := range n {
		u, pw := x+w*float64(i)/float64(n)+0.04, w/float64(n)-0.08
		h.pane(u, y, pw, ht, square)
		for v := y; v < y+ht-0.2; v += 0.36 {
			h.c.line(point{u, v}, point{u + pw, min(v+0.36, y+ht)}, 0.05, h.trim, 0.8)
			h.c.line(point{u + pw, v}, point{u, min(v+0.36, y+ht)}, 0.05, h.trim, 0.8)
		}
	}
}
