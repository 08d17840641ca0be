package synth

// craftsman: one storey and a half under a low, wide roof; a deep porch on tapered columns over stone piers;
// brackets under the eaves; a low dormer; windows in groups, many panes over one.
func craftsman(h *house) {
	r := h.r
	w, wall := between(r, 10.5, 14), between(r, 2.8, 3.4)
	h.width = w
	x := -w / 2
	over := between(r, 0.9, 1.4)
	front := chance(r, 0.6) // the gable looks to the street
	rise := between(r, 1.7, 2.6)
	if front {
		rise = between(r, 2.0, 3.0)
	}
	h.height = wall + rise + 0.8
	if chance(r, 0.6) {
		h.chimney(x+w*between(r, 0.1, 0.9)-0.5, wall, 1, rise+between(r, 0.2, 0.9), hex(0x8a5a48).jitter(r, 0.15))
	}
	h.panel(x, 0, w, wall)
	pier := hex(0x8d8478).jitter(r, 0.2)
	h.panelOf(x, 0, w, 0.7, pier, stone)
	h.group(x+0.9, 1.1, 1.7)
	h.group(x+w-0.9-2.6, 1.1, 1.7)
	door := x + w*between(r, 0.42, 0.52)
	h.entrance(door, 0.6, 1.1, 2.1, square)
	if front {
		h.gable(x, wall, w, rise, over, 0.34, h.accent, pick(r, shingle, clapboard))
		h.window(x+w/2-0.9, wall+0.45, 0.8, 0.9, square, 2, 1)
		h.window(x+w/2+0.1, wall+0.45, 0.8, 0.9, square, 2, 1)
		slope := rise / (w / 2)
		for _, f := range []float64{-0.02, 0.25, 0.5, 0.75, 1.02} { // brackets
			d := min(f, 1-f)
			h.c.rect(x+w*f-0.13, wall+d*w*slope-0.55, 0.26, 0.6, h.trim.times(0.85))
		}
	} else {
		h.slope(x-over, wall, w+2*over, rise, 0.6)
		h.rafters(x-over, wall, w+2*over)
		dw := between(r, 3, 4.4)
		dx := x + w/2 - dw/2 + between(r, -1, 1)
		h.panelOf(dx, wall+0.6, dw, 0.95, h.accent, shingle)
		h.window(dx+0.4, wall+0.75, dw/2-0.6, 0.6, square, 2, 1)
		h.window(dx+dw/2+0.2, wall+0.75, dw/2-0.6, 0.6, square, 2, 1)
		h.gable(dx, wall+1.5, dw, 0.75, 0.6, 0.2, h.accent, shingle)
	}
	h.craftsmanPorch(x, w, wall, pier)
}

func (h *house) group(x, y, ht float64) {
	for i := range 3 {
		u := x + 0.92*float64(i)
		h.window(u, y, 0.72, ht, square, 1, 1)
		h.c.rect(u, y+ht*0.62, 0.72, 0.1, h.trim)
		h.c.rect(u+0.2, y+ht*0.62, 0.07, ht*0.38, h.trim)
		h.c.rect(u+0.45, y+ht*0.62, 0.07, ht*0.38, h.trim)
	}
}

func (h *house) rafters(x, y, w float64) {
	for u := x + 0.3; u < x+w-0.2; u += 0.75 {
		h.c.rect(u, y-0.45, 0.18, 0.3, h.trim.times(0.8))
	}
}

func (h *house) craftsmanPorch(x, w, wall float64, pier rgb) {
	r := h.r
	pw := w * between(r, 0.55, 1)
	px := x + (w-pw)*pick(r, 0, 0.5, 1)
	top := wall - 0.25
	h.c.rectAlpha(px, 0.5, pw, top-0.5, hex(0), 0.3) // shade
	h.c.rect(px-0.2, 0, pw+0.4, 0.45, pier.times(0.8))
	n := 2 + r.IntN(3)
	for i := range n {
		u := px + 0.5 + (pw-1)*float64(i)/float64(n-1)
		h.panelOf(u-0.5, 0, 1, 1.15, pier, stone)
		h.column(u, 1.15, top-1.15, 0.72, 0.42, h.trim)
	}
	h.c.rect(px-0.3, top, pw+0.6, 0.4, h.trim)
	if chance(r, 0.5) {
		h.gable(px, top+0.35, pw, pw*0.17, 0.7, 0.26, h.accent, shingle)
	} else {
		h.c.fill(h.roof, point{px - 0.7, top + 0.35}, point{px + pw + 0.7, top + 0.35}, point{px + pw + 0.1, top + 1}, point{px - 0.1, top + 1})
		h.rafters(px-0.6, top+0.4, pw+1.2)
	}
	h.steps(px+pw*0.45, 0, 1.6)
}
