package synth

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
