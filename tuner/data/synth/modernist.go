package synth

// modernist: boxes set on and against one another, flat roofs, long bands of glass, thin posts.
func modernist(h *house) {
	r := h.r
	w := between(r, 11, 14.5)
	storey := between(r, 2.8, 3.3)
	h.width = w
	x := -w / 2
	lower := w * between(r, 0.6, 1)
	lx := x + (w-lower)*r.Float64()
	h.box(lx, 0, lower, storey, h.wall, h.surface)
	h.glazing(lx+0.5, 0.3, lower*between(r, 0.45, 0.75), storey-0.9)
	h.entrance(lx+lower-1.7, 0, 1.2, 2.3, square)
	h.height = storey + 0.5
	if chance(r, 0.8) {
		upper := w * between(r, 0.5, 0.95)
		ux := x + (w-upper)*r.Float64()
		h.c.rectAlpha(ux, storey-0.7, upper, 0.7, hex(0), 0.35)
		h.box(ux, storey, upper, storey*0.95, h.accent, pick(r, stucco, stucco, clapboard))
		h.glazing(ux+0.6, storey+0.7, upper-1.2-upper*between(r, 0, 0.35), storey*between(r, 0.3, 0.55))
		h.height = 2*storey + 0.4
		for _, u := range []float64{ux + 0.3, ux + upper - 0.3} {
			if u < lx || u > lx+lower {
				h.c.rect(u-0.1, 0, 0.2, storey, h.trim)
			}
		}
	}
	if chance(r, 0.5) { // a slab that reaches out
		sw := between(r, 3, 5)
		sx := pick(r, x-0.8, x+w-sw+0.8)
		h.c.rect(sx, storey-0.15, sw, 0.35, h.trim)
		h.c.rect(sx+sw/2-0.08, 0, 0.16, storey, h.trim)
	}
	if chance(r, 0.4) {
		h.panelOf(x+w*between(r, 0.1, 0.8), 0, 1.2, h.height+0.6, hex(0x8d8478).jitter(r, 0.2), stone)
	}
}

func (h *house) box(x, y, w, ht float64, col rgb, s surface) {
	h.panelOf(x, y, w, ht, col, s)
	h.c.rect(x-0.2, y+ht-0.1, w+0.4, 0.35, mix(h.roof, col, 0.3))
}

func (h *house) glazing(x, y, w, ht float64) {
	h.c.rect(x-0.1, y-0.1, w+0.2, ht+0.2, h.trim)
	n := max(2, int(w/1.3))
	for i := range n {
		h.pane(x+w*float64(i)/float64(n)+0.05, y, w/float64(n)-0.1, ht, square)
	}
}
