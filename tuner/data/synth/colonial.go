package synth

// colonial: a symmetric box of two storeys and five bays under a roof seen from its long side; windows of many
// panes with shutters; a door in the middle with pilasters and a pediment; chimneys at the ends.
func colonial(h *house) {
	r := h.r
	bays := pick(r, 5, 5, 5, 3, 7)
	w := float64(bays)*between(r, 2.0, 2.4) + 0.8
	storey := between(r, 2.8, 3.2)
	wall := 2 * storey
	rise := between(r, 2, 3)
	h.width, h.height = w, wall+rise+1.2
	x := -w / 2
	brickwork := hex(0x8f4a38).jitter(r, 0.15)
	ends := pick(r, 1, 2, 2, 3)
	if ends&1 != 0 {
		h.chimney(x+0.3, wall, 1.1, rise+1, brickwork)
	}
	if ends&2 != 0 {
		h.chimney(x+w-1.4, wall, 1.1, rise+1, brickwork)
	}
	h.panel(x, 0, w, wall)
	h.c.rect(x, 0, w, 0.4, hex(0x9a948a))
	h.c.rect(x, 0, 0.28, wall, h.trim)
	h.c.rect(x+w-0.28, 0, 0.28, wall, h.trim)
	if chance(r, 0.4) {
		h.c.rect(x, storey-0.1, w, 0.22, h.trim)
	}
	h.slope(x-0.3, wall, w+0.6, rise, pick(r, 0.15, 0.4, rise*0.9))
	for u := x; u < x+w; u += 0.5 { // dentils
		h.c.rect(u, wall-0.38, 0.22, 0.2, h.trim)
	}
	shutters, colour := chance(r, 0.75), hex(pick(r, uint32(0x1f3a2c), 0x161616, 0x27364a, 0x6e1f1c, 0x4a5a52))
	ny := pick(r, 3, 4)
	pitch := (w - 0.8) / float64(bays)
	for row := range 2 {
		for i := range bays {
			if row == 0 && i == bays/2 {
				continue
			}
			u, v := x+0.4+pitch*(float64(i)+0.5)-0.5, 0.95+storey*float64(row)
			h.window(u, v, 1, storey*0.52, square, 2, ny)
			if shutters {
				h.shutters(u, v, 1, storey*0.52, colour)
			}
		}
	}
	for i := range pick(r, 0, 0, 3) { // dormers
		u := x + w*(0.22+0.28*float64(i))
		h.c.rect(u-0.1, wall+0.5, 1.3, 1, h.trim)
		h.window(u+0.2, wall+0.6, 0.7, 0.8, square, 2, 2)
		h.gable(u-0.15, wall+1.5, 1.4, 0.7, 0.15, 0.14, h.trim, stucco)
	}
	h.pediment(storey)
}

func (h *house) pediment(storey float64) {
	r := h.r
	if chance(r, 0.35) { // a portico on columns
		pw := between(r, 3, 4.2)
		h.c.rectAlpha(-pw/2, 0.4, pw, storey-0.4, hex(0), 0.22)
		h.entrance(-0.6, 0.4, 1.2, 2.2, square)
		for _, u := range []float64{-pw/2 + 0.2, pw/2 - 0.2} {
			h.column(u, 0.4, storey-0.7, 0.4, 0.34, h.trim)
		}
		h.c.rect(-pw/2-0.15, storey-0.35, pw+0.3, 0.35, h.trim)
		h.gable(-pw/2-0.1, storey, pw+0.2, pw*0.26, 0.2, 0.16, h.trim, stucco)
	} else {
		h.c.rect(-1.05, 0.4, 2.1, 2.75, h.trim)
		h.entrance(-0.55, 0.4, 1.1, 2.15, square)
		h.c.rect(-1.2, 2.75, 2.4, 0.3, h.trim.times(0.92))
		h.c.fill(h.trim, point{-1.25, 3.05}, point{1.25, 3.05}, point{0, 3.75})
		h.c.fillAlpha(hex(0), 0.15, point{-0.85, 3.1}, point{0.85, 3.1}, point{0, 3.6})
	}
	h.steps(-0.9, 0, 1.8)
}
