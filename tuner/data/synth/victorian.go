package synth

import "math"

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
