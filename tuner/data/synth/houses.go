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

// gothic: steep gables with carved edges and finials, pointed windows with tracery, stone, buttresses, a spire.
func gothic(h *house) {
	r := h.r
	w := between(r, 8.5, 12)
	wall := between(r, 4.2, 5.8)
	h.width = w
	x := -w / 2
	gw := w * between(r, 0.42, 0.62)
	gx := x + (w-gw)*pick(r, 0, 0.5, 0.5, 1)
	rise := gw * between(r, 0.85, 1.25)
	h.height = wall + rise + 0.8
	spire := chance(r, 0.45)
	if spire {
		tw := between(r, 2, 2.8)
		tx := pick(r, x-tw*0.5, x+w-tw*0.5)
		th := wall + between(r, 1.5, 3.2)
		h.panel(tx, 0, tw, th)
		h.window(tx+tw/2-0.4, th-2.4, 0.8, 2, pointed, 2, 1)
		h.window(tx+tw/2-0.35, 1.2, 0.7, 1.8, pointed, 1, 1)
		h.battlements(tx, th, tw)
		sp := between(r, 3.5, 5.5)
		h.cone(tx+0.2, th+0.2, tw-0.4, sp, 0.1)
		h.height = max(h.height, th+sp+1)
		h.width += tw
	}
	h.panel(x, 0, w, wall)
	if chance(r, 0.7) {
		h.slope(x-0.2, wall, w+0.4, rise*0.7, 0.3)
	} else {
		h.battlements(x, wall, w)
	}
	// windows of the wings
	n := int((w - gw) / 1.9)
	for i := range n {
		u := x + 0.5 + 1.9*float64(i)
		if u > gx-1.2 {
			u += gw
		}
		if u+1 < x+w {
			h.window(u, 1.1, 0.95, between(r, 2.3, 2.9), pointed, 2, 1)
		}
	}
	h.panel(gx, 0, gw, wall)
	h.gable(gx, wall, gw, rise, 0.3, 0.22, h.wall.times(0.97), h.surface)
	h.bargeboard(gx, wall, gw, rise)
	h.finial(gx+gw/2, wall+rise+0.1, 1.1)
	if chance(r, 0.5) {
		h.rose(gx+gw/2, wall+rise*0.28, min(gw*0.18, 1.1))
	} else {
		h.window(gx+gw/2-0.5, wall, 1, min(rise*0.5, 2.4), pointed, 2, 1)
	}
	if chance(r, 0.55) {
		h.entrance(gx+gw/2-0.75, 0.2, 1.5, 3, pointed)
	} else {
		h.window(gx+gw/2-1, 1, 2, min(3.2, wall-1.2), pointed, 3, 2)
		h.entrance(pick(r, x+0.5, x+w-1.8), 0, 1.2, 2.5, pointed)
	}
	if chance(r, 0.65) {
		for _, u := range []float64{gx, gx + gw, x, x + w} {
			h.buttress(u, wall)
		}
	}
}

func (h *house) battlements(x, y, w float64) {
	h.c.rect(x-0.1, y-0.15, w+0.2, 0.3, h.trim)
	for u := x - 0.1; u < x+w-0.2; u += 0.75 {
		h.c.rect(u, y, 0.42, 0.55, h.wall.times(0.92))
	}
}

func (h *house) buttress(x, wall float64) {
	c := h.wall.times(0.85)
	h.c.fill(c, point{x - 0.42, 0}, point{x + 0.42, 0}, point{x + 0.28, wall * 0.62}, point{x + 0.2, wall * 0.85}, point{x, wall * 0.97}, point{x - 0.2, wall * 0.85}, point{x - 0.28, wall * 0.62})
	h.c.line(point{x - 0.36, wall * 0.6}, point{x + 0.36, wall * 0.6}, 0.12, h.trim, 1)
}

func (h *house) bargeboard(x, y, w, rise float64) {
	for i := 1; i < 9; i++ {
		t := float64(i) / 9
		d := 0.2
		h.c.ellipse(x+w/2*t, y+rise*t-0.35, d, d, h.trim, 1)
		h.c.ellipse(x+w-w/2*t, y+rise*t-0.35, d, d, h.trim, 1)
	}
}

func (h *house) rose(x, y, r float64) {
	h.c.ellipse(x, y, r+0.2, r+0.2, h.trim, 1)
	h.c.ellipse(x, y, r, r, h.glass, 1)
	for _, p := range arc(x, y, r*0.62, r*0.62, 0, 5.236, 5) {
		h.c.ellipse(p.x, p.y, r*0.26, r*0.26, mix(h.glass, hex(0x8a3a5a), 0.4), 1)
		h.c.line(point{x, y}, point{x + (p.x-x)*1.6, y + (p.y-y)*1.6}, 0.09, h.trim, 1)
	}
}
