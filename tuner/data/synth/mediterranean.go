package synth

// mediterranean: smooth walls, low roofs of red tiles, round arches, an arcade, iron balconies, perhaps a tower.
func mediterranean(h *house) {
	r := h.r
	w := between(r, 9.5, 13)
	storeys := pick(r, 1, 2, 2)
	storey := between(r, 3, 3.5)
	wall := storey * float64(storeys)
	rise := between(r, 1, 1.7)
	h.width, h.height = w, wall+rise+0.5
	x := -w / 2
	if chance(r, 0.45) { // a tower
		tw := between(r, 2.4, 3.2)
		tx := pick(r, x+0.2, x+w-tw-0.2, x+w*0.3)
		th := wall + between(r, 1.6, 2.6)
		h.panelOf(tx, wall-0.5, tw, th-wall+0.5, h.wall.times(0.95), h.surface)
		for i := range 2 {
			h.window(tx+tw*(0.2+0.38*float64(i)), th-1.5, tw*0.22, 1.1, round, 1, 1)
		}
		h.tiles(tx-0.4, th, tw+0.8, 0.9, 0.9)
		h.height = th + 1.4
	}
	if chance(r, 0.4) {
		h.chimney(x+w*between(r, 0.2, 0.8), wall+0.3, 0.8, rise+0.3, h.wall.times(0.93))
	}
	h.panel(x, 0, w, wall)
	h.tiles(x-0.5, wall, w+1, rise, pick(r, 0.3, 1.2, 1.8))
	arcade := chance(r, 0.65)
	n := 3 + r.IntN(3)
	pitch := w / float64(n)
	for i := range n {
		u := x + pitch*float64(i) + pitch/2
		switch {
		case arcade && i != n/2:
			aw := pitch * 0.68
			h.c.fill(h.trim, outline(u-aw/2-0.12, 0, aw+0.24, storey*0.82+0.12, round)...)
			h.c.fill(h.wall.times(0.45), outline(u-aw/2, 0, aw, storey*0.82, round)...)
			h.c.rectAlpha(u-aw/2, 0, aw, storey*0.3, h.wall.times(0.6), 0.7)
		case i == n/2:
			h.entrance(u-0.65, 0, 1.3, 2.5, round)
		default:
			h.window(u-0.5, 0.9, 1, 1.7, round, 2, 1)
		}
		if storeys == 2 {
			h.mediterraneanUpper(u, storey)
		}
	}
	if storeys == 2 && chance(r, 0.4) {
		h.c.rect(x, storey-0.08, w, 0.16, h.trim)
	}
}

func (h *house) mediterraneanUpper(u, storey float64) {
	r := h.r
	if chance(r, 0.3) { // a balcony of iron
		h.window(u-0.55, storey+0.25, 1.1, 2.1, round, 2, 1)
		h.c.rect(u-0.95, storey+0.15, 1.9, 0.12, hex(0x2b2622))
		h.c.rect(u-0.95, storey+1, 1.9, 0.08, hex(0x2b2622))
		for b := u - 0.9; b < u+0.95; b += 0.26 {
			h.c.rect(b, storey+0.2, 0.07, 0.85, hex(0x2b2622))
		}
		return
	}
	h.window(u-0.45, storey+0.8, 0.9, 1.5, pick(r, round, round, square), 2, 2)
	if chance(r, 0.3) {
		h.shutters(u-0.45, storey+0.8, 0.9, 1.4, h.door)
	}
}

// tiles is a low roof of barrel tiles: columns instead of rows, a scalloped edge.
func (h *house) tiles(x, y, w, rise, inset float64) {
	h.c.rectAlpha(x+0.4, y-0.6, w-0.8, 0.5, hex(0), 0.3)
	h.c.fill(h.roof, point{x, y}, point{x + w, y}, point{x + w - inset, y + rise}, point{x + inset, y + rise})
	n := int(w / 0.42)
	for i := range n {
		t := (float64(i) + 0.5) / float64(n)
		a := point{x + w*t, y}
		b := point{x + inset + (w-2*inset)*t, y + rise}
		h.c.line(a, b, 0.12, h.roof.times(0.68), 0.75)
		h.c.ellipse(a.x+w/float64(n)/2, y, 0.2, 0.16, h.roof.times(1.1), 1)
	}
	h.c.line(point{x + inset, y + rise}, point{x + w - inset, y + rise}, 0.2, h.roof.times(0.85), 1)
}
