package synth

import (
	"image"
	"math"
	"math/rand/v2"
)

// scene draws one image: sky, what stands behind, the house, what stands in front, then light and camera.
type scene struct {
	c          *canvas
	r          *rand.Rand
	size       float64
	difficulty float64
	dusk       bool
	leaf       rgb
}

// render draws a façade of a style. All of it follows from r: same stream, same image. Difficulty acts by its
// square, which spreads the usable middle of the scale.
func render(s style, size int, difficulty float64, r *rand.Rand) *image.RGBA {
	sc := &scene{c: newCanvas(size), r: r, size: float64(size), difficulty: difficulty * difficulty}
	sc.leaf = pick(r, hex(0x4f6b34), hex(0x3f5a30), hex(0x6b7d3a), hex(0x2f4a2c), hex(0x9a7a34), hex(0xa8602c)).jitter(r, 0.2)
	h := &house{c: sc.c, r: r, sun: pick(r, -1.0, 1.0)}
	h.paint(s.palette, r, 0.15+0.45*sc.difficulty)

	// A style says how large its house is only while drawing it, so it is drawn twice from one random stream of
	// its own: once to measure, once to be seen.
	a, b := r.Uint64(), r.Uint64()
	rough := *h
	rough.r, rough.c = rand.New(rand.NewPCG(a, b)), newCanvas(1)
	rough.c.view = view{scale: 1e-6, size: 1}
	s.draw(&rough)
	h.r = rand.New(rand.NewPCG(a, b))
	sc.frame(rough)
	sc.backdrop()
	s.draw(h)
	sc.foreground(h)
	sc.develop()
	return sc.c.img
}

// frame sets the camera so that the house fills most of the image, from somewhere in front of it.
func (sc *scene) frame(h house) {
	r, d := sc.r, sc.difficulty
	fill := between(r, 0.98-0.36*d, 1.06)
	scale := min(sc.size*fill/(h.width+1), sc.size*fill*0.9/(h.height+0.6))
	base := sc.size * between(r, 0.80, 0.93)
	if rest := base - h.height*scale; rest > sc.size*0.1 {
		base -= (rest - sc.size*0.1) * between(r, 0, 0.6)
	}
	sc.c.view = view{
		scale:   scale,
		centerX: sc.size * (0.5 + (0.06+0.16*d)*(r.Float64()-0.5)),
		base:    base,
		horizon: base - 1.6*scale,
		recede:  (0.15 + 0.75*d) * (r.Float64() - 0.5),
		tilt:    (0.02 + 0.08*d) * (r.Float64() - 0.5),
		mirror:  chance(r, 0.5),
		size:    sc.size,
	}
}

// pixels runs a drawing function in pixel coordinates, y down.
func (sc *scene) pixels(draw func()) {
	sc.c.flat = true
	draw()
	sc.c.flat = false
}

func (sc *scene) backdrop() {
	r, n := sc.r, sc.size
	upper := pick(r, hex(0x5a8fc9), hex(0x7fa8d0), hex(0x9fb0bc), hex(0xc4ccd0), hex(0x4a6fa8), hex(0x8a8f98))
	lower := mix(upper, hex(0xf4f0e8), between(r, 0.3, 0.8))
	if chance(r, 0.14) {
		sc.dusk = true
		upper, lower = pick(r, hex(0x2c3456), hex(0x3f3a5a), hex(0x5a4a6a)), pick(r, hex(0xd98a5a), hex(0x8a6a7a), hex(0xe0a870))
	}
	ground := mix(pick(r, hex(0x6b7d3a), hex(0x55702f), hex(0x8a8450), hex(0x9a958a), hex(0xa89c80)), sc.leaf, 0.3)
	base := sc.c.view.base
	sc.pixels(func() {
		const bands = 24
		for i := range bands {
			t := float64(i) / bands
			sc.c.rect(0, n*t, n, n/bands+1, mix(upper, lower, t))
		}
		for range r.IntN(5) {
			cx, cy := n*r.Float64(), n*0.4*r.Float64()
			for range 3 {
				sc.c.blob(r, cx+n*0.1*(r.Float64()-0.5), cy, n*between(r, 0.06, 0.16), n*between(r, 0.02, 0.05), 0.2, hex(0xf8f8f8), 0.35)
			}
		}
		sc.c.rect(0, base-n*0.02, n, n, ground)
	})
	sc.behind()
	sc.pixels(func() {
		for i := range 8 { // the lawn's unevenness, a path, a road
			y := base + (n-base)*float64(i)/8
			sc.c.rectAlpha(0, y, n, (n-base)/8, ground.times(between(r, 0.85, 1.12)), 0.7)
		}
		if chance(r, 0.5) {
			sc.c.rect(0, base+(n-base)*between(r, 0.45, 0.75), n, n, hex(0x6a6a6c).jitter(r, 0.2))
		}
	})
	if chance(r, 0.6) {
		x, w := between(r, -2, 2), between(r, 0.6, 1.2)
		sc.c.fill(hex(0xb5aea2).jitter(r, 0.15), point{x - w, 0}, point{x + w, 0}, point{x + 3*w, -6}, point{x - 2*w, -6})
	}
}

// behind are trees, hills and neighbours' houses, which have no style.
func (sc *scene) behind() {
	r, v := sc.r, &sc.c.view
	half := sc.size / v.scale / 2
	for range r.IntN(4) {
		x := between(r, -half, half)
		if chance(r, 0.45) { // beside the house rather than on top of it
			x = half * between(r, 0.45, 1) * pick(r, -1.0, 1.0)
			if x < 0 {
				x -= 4
			}
			w, ht := between(r, 4, 8), between(r, 3, 9)
			col := pick(r, common.walls...)
			sc.c.rect(x, -0.2, w, ht, mix(hex(col), hex(0xa8b0b8), 0.3).jitter(r, 0.15))
			if chance(r, 0.6) {
				sc.c.fill(mix(hex(pick(r, common.roofs...)), hex(0xa8b0b8), 0.25), point{x - 0.4, ht - 0.2}, point{x + w + 0.4, ht - 0.2}, point{x + w*between(r, 0.3, 0.7), ht + between(r, 1, 3)})
			}
			for u := x + 0.7; u < x+w-1; u += 1.7 {
				for y := 1.0; y < ht-1.5; y += 2.4 {
					sc.c.rect(u, y, 0.8, 1.2, hex(0x3f4a56))
				}
			}
		} else {
			sc.tree(x, between(r, 5, 10), 0.85)
		}
	}
	for x := -half; x < half; x += between(r, 1, 4) {
		if chance(r, 0.4) {
			sc.c.blob(r, x, 0.4, between(r, 1, 2.5), between(r, 0.8, 2.2), 0.2, sc.leaf.times(between(r, 0.6, 0.95)), 1)
		}
	}
}

func (sc *scene) tree(x, ht, shade float64) {
	r := sc.r
	trunk := hex(0x4a3a2c).jitter(r, 0.2)
	leaf := sc.leaf.jitter(r, 0.2).times(shade)
	sc.c.rect(x-0.16, -0.3, 0.32, ht*0.6, trunk)
	switch kind := r.IntN(10); {
	case kind < 3: // a conifer
		for i := range 4 {
			t := float64(i) / 4
			w := ht * 0.24 * (1.1 - t)
			sc.c.fill(leaf.times(0.75+0.2*t), point{x - w, ht * (0.15 + 0.7*t)}, point{x + w, ht * (0.15 + 0.7*t)}, point{x, ht * (0.5 + 0.55*t)})
		}
	case kind < 5: // bare branches
		for range 9 {
			a := between(r, 0.5, 2.6)
			l := ht * between(r, 0.25, 0.5)
			sc.c.line(point{x, ht * between(r, 0.3, 0.6)}, point{x + l*math.Cos(a), ht*0.5 + l*math.Sin(a)}, 0.12, trunk, 1)
		}
	default:
		for range 7 {
			sc.c.blob(r, x+ht*0.22*(2*r.Float64()-1), ht*between(r, 0.5, 0.95), ht*between(r, 0.1, 0.2), ht*between(r, 0.1, 0.17), 0.25, leaf.times(between(r, 0.75, 1.2)), 0.95)
		}
	}
}

// foreground stands before the house and hides parts of it, the more the harder.
func (sc *scene) foreground(h *house) {
	r, d := sc.r, sc.difficulty
	half := sc.size / sc.c.view.scale / 2
	for u := -h.width / 2; u < h.width/2; u += 1.3 { // planting along the wall
		if chance(r, 0.3) {
			sc.c.blob(r, u, 0.15, between(r, 0.5, 1.1), between(r, 0.4, 0.9), 0.25, sc.leaf.jitter(r, 0.25), 1)
		}
	}
	side := func() float64 { // mostly beside the house, sometimes before it
		x := between(r, 0.32, 0.6) * h.width
		if chance(r, 0.25*d) {
			x = between(r, 0, 0.4) * h.width
		}
		return x * pick(r, -1.0, 1.0)
	}
	for range r.IntN(2 + int(3*d)) {
		switch r.IntN(5) {
		case 0, 1:
			sc.tree(side(), between(r, 3, 8), 1)
		case 2:
			sc.car(side(), between(r, -1.6, -0.4))
		case 3:
			sc.person(between(r, -half, half), between(r, -1.5, -0.2))
		case 4:
			sc.fence(half)
		}
	}
	if chance(r, 0.25+0.25*d) {
		sc.wires(half)
	}
	if chance(r, 0.15*d+0.05) {
		// a branch that hangs into the image
		sc.pixels(func() {
			x := pick(r, 0, sc.size)
			for range 10 {
				sc.c.blob(r, x+sc.size*0.25*(r.Float64()-0.5), sc.size*0.2*r.Float64(), sc.size*0.06, sc.size*0.05, 0.3, sc.leaf.jitter(r, 0.3).times(0.7), 0.95)
			}
		})
	}
}

func (sc *scene) car(x, y float64) {
	r := sc.r
	col := pick(r, hex(0x9a2c2c), hex(0x2c4a7a), hex(0xd0d0d2), hex(0x2b2b2e), hex(0x6a7a6a), hex(0xc9a04a)).jitter(r, 0.1)
	sc.c.rectAlpha(x-2.2, y-0.1, 4.4, 0.3, hex(0), 0.35)
	sc.c.fill(col, point{x - 2.1, y + 0.3}, point{x + 2.1, y + 0.3}, point{x + 2.1, y + 0.8}, point{x + 1.2, y + 0.9}, point{x + 0.8, y + 1.4}, point{x - 0.9, y + 1.4}, point{x - 1.5, y + 0.9}, point{x - 2.1, y + 0.8})
	sc.c.fill(hex(0x2c3844), point{x - 1.2, y + 0.9}, point{x + 0.95, y + 0.9}, point{x + 0.65, y + 1.3}, point{x - 0.8, y + 1.3})
	for _, u := range []float64{x - 1.3, x + 1.3} {
		sc.c.ellipse(u, y+0.32, 0.36, 0.36, hex(0x1a1a1c), 1)
		sc.c.ellipse(u, y+0.32, 0.17, 0.17, hex(0x8a8a8c), 1)
	}
}

func (sc *scene) person(x, y float64) {
	r := sc.r
	coat := pick(r, hex(0xa83a3a), hex(0x2f4a6a), hex(0x3a3a3a), hex(0xd9b45c), hex(0x5a7a4a))
	sc.c.rect(x-0.2, y, 0.16, 0.8, hex(0x2b2b33))
	sc.c.rect(x+0.04, y, 0.16, 0.8, hex(0x2b2b33))
	sc.c.fill(coat, point{x - 0.27, y + 0.75}, point{x + 0.27, y + 0.75}, point{x + 0.22, y + 1.45}, point{x - 0.22, y + 1.45})
	sc.c.ellipse(x, y+1.62, 0.15, 0.18, pick(r, hex(0xd8a888), hex(0x8a5a3c), hex(0xf0c8a8)), 1)
}

func (sc *scene) fence(half float64) {
	r := sc.r
	col := pick(r, hex(0xf0ece4), hex(0x4a3a2c), hex(0x2b2b2b), hex(0x8a7a64))
	y, from, to := between(r, -1.8, -0.6), between(r, -half, 0), between(r, 0, half)
	sc.c.rect(from, y+0.25, to-from, 0.08, col)
	sc.c.rect(from, y+0.65, to-from, 0.08, col)
	for x := from; x < to; x += 0.4 {
		sc.c.rect(x, y, 0.13, 0.9, col)
	}
}

func (sc *scene) wires(half float64) {
	r := sc.r
	x := between(r, -half, half)
	sc.c.rect(x-0.1, -1, 0.2, 10, hex(0x4a4038))
	sc.c.rect(x-0.9, 8.2, 1.8, 0.14, hex(0x4a4038))
	for i := range 1 + r.IntN(3) {
		y, sag := 8.3-0.5*float64(i), between(r, 0.5, 1.5)
		pts := make([]point, 0, 13)
		for k := range 13 {
			t := float64(k)/6 - 1
			pts = append(pts, point{x + t*2*half, y - sag*(1-t*t)*4*math.Abs(t)*0.3 + 0.1*t})
		}
		sc.c.polyline(0.07, hex(0x2b2b2b), pts...)
	}
}
