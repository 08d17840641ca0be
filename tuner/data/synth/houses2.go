package synth

import "math"

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

// artDeco: a stepped, symmetric front with vertical piers, bands in a second colour, zigzags and a sunburst.
func artDeco(h *house) {
	r := h.r
	w := between(r, 9, 12.5)
	wall := between(r, 5.6, 7)
	h.width = w
	x := -w / 2
	step := between(r, 0.5, 0.9)
	mid := w * between(r, 0.26, 0.36)
	h.height = wall + 2.2*step + 1
	h.panel(x, 0, w, wall)
	h.panel(-mid*0.95, 0, mid*1.9, wall+step)
	h.panel(-mid/2, 0, mid, wall+2.2*step)
	for _, b := range []struct{ x, y, w float64 }{{x, wall, w}, {-mid * 0.95, wall + step, mid * 1.9}, {-mid / 2, wall + 2.2*step, mid}} {
		h.c.rect(b.x-0.1, b.y-0.28, b.w+0.2, 0.28, h.trim)
	}
	for i := range pick(r, 2, 3) {
		h.c.rect(x, wall-0.75-0.38*float64(i), w, 0.16, h.trim)
	}
	// piers of the middle
	for i := range 4 {
		u := -mid/2 + mid*float64(i)/3
		h.c.rect(u-0.14, 2.9, 0.28, wall+2.2*step-2.9+between(r, 0.1, 0.7), h.trim)
	}
	for i := range 3 {
		h.pane(-mid/2+mid*float64(i)/3+0.25, 3.2, mid/3-0.5, wall-4, square)
	}
	h.entrance(-0.9, 0.1, 1.8, 2.3, square)
	h.c.rect(-1.6, 2.5, 3.2, 0.32, h.trim)
	if chance(r, 0.6) {
		for a := 0.3; a < math.Pi; a += 0.42 { // sunburst
			h.c.line(point{0, wall + 0.7*step}, point{math.Cos(a) * mid * 0.4, wall + 0.7*step + math.Sin(a)*mid*0.4}, 0.12, h.trim, 1)
		}
	}
	side := (w - mid*1.9) / 2
	porthole := chance(r, 0.4)
	for row := range 2 {
		v := 0.9 + 2.7*float64(row)
		for _, u := range []float64{x + side*0.5, -x - side*0.5} {
			if row == 1 && porthole {
				h.c.ellipse(u, v+0.7, 0.75, 0.75, h.trim, 1)
				h.c.ellipse(u, v+0.7, 0.58, 0.58, h.glass, 1)
				continue
			}
			ww := min(side*0.8, 2)
			h.window(u-ww/2, v, ww, 1.4, square, 1, 4)
		}
	}
	for u := x; u < x+w-0.3 && chance(r, 0.97); u += 0.6 { // zigzag
		h.c.line(point{u, 0.25}, point{u + 0.3, 0.6}, 0.1, h.trim, 1)
		h.c.line(point{u + 0.3, 0.6}, point{u + 0.6, 0.25}, 0.1, h.trim, 1)
	}
}

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

// victorian: nothing symmetric; a round tower with a cone, a porch with turned posts and fretwork, a bay, a
// decorated gable, several colours.
func victorian(h *house) {
	r := h.r
	w := between(r, 8.5, 11.5)
	storey := between(r, 2.9, 3.4)
	wall := 2 * storey
	h.width = w
	x := -w / 2
	rise := between(r, 2.6, 3.6)
	second := h.accent
	h.chimney(x+w*between(r, 0.3, 0.7), wall+rise*0.4, 0.9, rise*0.8+0.6, hex(0x8f4a38).jitter(r, 0.15))
	h.panel(x, 0, w, storey)
	h.panelOf(x, storey, w, storey, second, pick(r, shingle, clapboard))
	h.slope(x-0.3, wall, w+0.6, rise, pick(r, 0.3, 1.5))
	h.c.rect(x, storey-0.14, w, 0.28, h.trim)
	gw := w * between(r, 0.36, 0.46)
	gx := x + 0.2
	// the gabled bay
	h.panelOf(gx, 0, gw, wall, h.wall, h.surface)
	gr := gw * between(r, 0.6, 0.85)
	h.gable(gx, wall, gw, gr, 0.4, 0.2, second, shingle)
	h.bargeboard(gx, wall, gw, gr)
	h.c.fill(h.trim, arc(gx+gw/2, wall+gr*0.3, gw*0.16, gw*0.16, 0, math.Pi, 8)...)
	h.finial(gx+gw/2, wall+gr, 0.7)
	for row := range 2 {
		v := 0.8 + storey*float64(row)
		for i := range 3 {
			h.window(gx+gw*(0.1+0.3*float64(i)), v, gw*0.19, storey*0.6, pick(r, square, square, round), 1, 2)
		}
		h.c.rect(gx-0.1, v+storey*0.6+0.2, gw+0.2, 0.2, h.trim)
	}
	h.height = wall + max(rise, gr) + 1.2
	// the tower
	tw := between(r, 2.3, 3.1)
	tower := chance(r, 0.78)
	if tower {
		tx := x + w - tw*between(r, 0.6, 1)
		th := wall + between(r, 0.6, 2.2)
		h.panelOf(tx, 0, tw, th, h.wall, h.surface)
		h.c.rectAlpha(tx+tw*(0.35-0.35*h.sun), 0, tw*0.3, th, hex(0), 0.12)
		for v := 0.9; v < th-1.4; v += storey * 0.95 {
			for i := range 2 {
				h.window(tx+tw*(0.14+0.42*float64(i)), v, tw*0.26, storey*0.52, pick(r, square, round), 1, 2)
			}
			h.c.rect(tx-0.1, v+storey*0.52+0.25, tw+0.2, 0.18, h.trim)
		}
		cone := between(r, 2.6, 4.2)
		h.cone(tx, th, tw, cone, 0.4)
		h.height = max(h.height, th+cone+1)
		h.width = w + tw*0.3
	} else {
		h.window(x+w-2, storey+0.8, 1, storey*0.6, square, 1, 2)
	}
	end := x + w
	if tower {
		end -= tw * 0.5
	}
	h.fretPorch(gx+gw, storey, end-gx-gw)
}

func (h *house) fretPorch(x, storey, w float64) {
	r := h.r
	if w < 1.5 {
		return
	}
	top := storey - 0.35
	h.c.rectAlpha(x, 0.4, w, top-0.4, hex(0), 0.26)
	h.entrance(x+w*0.4, 0.45, 1, 2.1, square)
	h.window(x+w*0.5, storey+0.8, 0.9, storey*0.55, pick(r, square, round), 1, 2)
	h.c.rect(x-0.1, 0, w+0.2, 0.45, h.trim.times(0.75))
	n := max(3, int(w/1.1))
	for i := range n {
		u := x + 0.12 + (w-0.24)*float64(i)/float64(n-1)
		h.c.rect(u-0.09, 0.45, 0.18, top-0.45, h.trim)
		h.c.ellipse(u, 1.6, 0.15, 0.2, h.trim, 1)
		if i > 0 { // fretwork
			h.c.polyline(0.09, h.trim, arc(u-(w-0.24)/float64(n-1)/2, top-0.5, (w-0.24)/float64(n-1)/2, 0.45, 0, math.Pi, 6)...)
		}
	}
	for u := x; u < x+w; u += 0.24 {
		h.c.rect(u, 0.45, 0.07, 0.8, h.trim)
	}
	h.c.rect(x, 1.2, w, 0.1, h.trim)
	h.c.fill(h.roof, point{x - 0.2, top}, point{x + w + 0.3, top}, point{x + w, top + 0.8}, point{x, top + 0.8})
	h.c.rect(x-0.2, top-0.1, w+0.5, 0.2, h.trim)
	h.steps(x+w*0.35, 0, 1.3)
}
