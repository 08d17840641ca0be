package synth

import "math"

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
