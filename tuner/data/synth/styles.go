package synth

import "math/rand/v2"

// palette lists the colours a style likes. They overlap on purpose: colour alone must not give a style away.
type palette struct {
	walls, trims, roofs, doors []uint32
	surfaces                   []surface
}

// style is one way to build.
type style struct {
	name    string
	palette palette
	draw    func(h *house)
}

// common is the pool that every style draws from now and then, the more often the higher the difficulty.
var common = palette{
	walls:    []uint32{0xe8e2d4, 0xd9cdb4, 0xc7b594, 0xb5b0a6, 0xa8583f, 0xf0ece4, 0x9fb0a8, 0xc9a77e, 0x8d8478, 0xdcc7a0},
	trims:    []uint32{0xf4f1ea, 0xe9e2d0, 0x5a4632, 0xd8d2c4, 0x3f3a34},
	roofs:    []uint32{0x4a4744, 0x6b4a3a, 0x8a4b35, 0x5d5f63, 0x75695c, 0x3d4248},
	doors:    []uint32{0x6e2f25, 0x2f4a3a, 0x3a2c20, 0x27364a, 0x80502c, 0x161616},
	surfaces: []surface{stucco, clapboard, brick, stone, shingle},
}

// styles in code point order of their names.
var styles = []style{
	{"american_craftsman", palette{
		walls: []uint32{0x8a8a5c, 0x7d6b4f, 0xa08a60, 0x6f7d6a, 0xb39b74, 0x8c5b3f}, trims: []uint32{0xe9e2d0, 0x5a4632, 0xd9c9a3, 0x6b4a2f},
		roofs: []uint32{0x5b4a3c, 0x6b5846, 0x4f4a42, 0x6b4a3a}, doors: []uint32{0x6b3d1f, 0x80502c, 0x4a2c1a}, surfaces: []surface{shingle, clapboard, shingle},
	}, craftsman},
	{"art_deco", palette{
		walls: []uint32{0xf0ddc8, 0xf2e6d0, 0xcfe0dc, 0xf0c9b8, 0xe6e6e0, 0xd8cfa8}, trims: []uint32{0x2f8a86, 0xd98c6a, 0x3a3f52, 0xc9a24a, 0xf4f1ea},
		roofs: []uint32{0xd8d2c4, 0xb8b4aa}, doors: []uint32{0x1e4a52, 0x2b2b33, 0x7a4a2a}, surfaces: []surface{stucco},
	}, artDeco},
	{"colonial", palette{
		walls: []uint32{0xf0ece4, 0xf4f1ea, 0xe8dfb8, 0xa8583f, 0x9c4a38, 0xb9c4c9, 0xe8e2d4}, trims: []uint32{0xf8f6f0, 0xf4f1ea, 0xe9e2d0},
		roofs: []uint32{0x4a4744, 0x5d5f63, 0x3d4248, 0x6b4a3a}, doors: []uint32{0x6e1f1c, 0x161616, 0x1f3a2c, 0x27364a}, surfaces: []surface{clapboard, clapboard, brick},
	}, colonial},
	{"gothic", palette{
		walls: []uint32{0xb5b0a6, 0x9c968a, 0xc7b594, 0x8d8478, 0xa89a84, 0xd4ccbc}, trims: []uint32{0xd8d2c4, 0xe3dccb, 0xb8ad98, 0x6a6258},
		roofs: []uint32{0x4d5158, 0x3d4248, 0x5d5f63, 0x5a4f48}, doors: []uint32{0x4a2c1a, 0x3a2c20, 0x5a1f1a}, surfaces: []surface{stone, stone, brick},
	}, gothic},
	{"mediterranean", palette{
		walls: []uint32{0xf2e8d4, 0xe8cf9c, 0xf0ece4, 0xe0b884, 0xeccfae, 0xd9b48c}, trims: []uint32{0xe9dcc0, 0xf4f1ea, 0x8a5a34, 0xc9b08a},
		roofs: []uint32{0xb5573a, 0xa84a32, 0xc46a45, 0x9c5a40}, doors: []uint32{0x6b3d1f, 0x2a5a7a, 0x3f6b4a, 0x80502c}, surfaces: []surface{stucco},
	}, mediterranean},
	{"modernist", palette{
		walls: []uint32{0xf0f0ee, 0xd8d8d4, 0xb5b5b0, 0xc9a77e, 0xe8e2d4, 0x8c8c88}, trims: []uint32{0x2b2b2b, 0x3f3a34, 0xe6e6e4, 0x55504a},
		roofs: []uint32{0x4a4a4a, 0xe0e0dc, 0x6b6b68}, doors: []uint32{0xb5642c, 0x2b2b2b, 0x6e2f25}, surfaces: []surface{stucco, stucco, clapboard},
	}, modernist},
	{"tudor", palette{
		walls: []uint32{0xe8dcc0, 0xf0e8d4, 0xdcc7a0, 0xe0d4bc}, trims: []uint32{0x3a2a1e, 0x4a3524, 0x2f261f, 0x5a4632},
		roofs: []uint32{0x5a4238, 0x6b4a3a, 0x4f4a42, 0x6f5a48}, doors: []uint32{0x4a2c1a, 0x5a3a20, 0x2f4a3a}, surfaces: []surface{brick, stucco, stone},
	}, tudor},
	{"victorian", palette{
		walls: []uint32{0x9a7aa0, 0x6f95a0, 0xc98a8a, 0x8fae8a, 0xd9b45c, 0xa8583f, 0xb9c4c9, 0x7d8fb0}, trims: []uint32{0xf4f1ea, 0xe8d9a8, 0xf8f6f0, 0x6a3a4a},
		roofs: []uint32{0x4a4a5a, 0x5a3f48, 0x4a4744, 0x5d5f63}, doors: []uint32{0x6e1f3c, 0x2c3f6a, 0x80502c, 0x1f4a3a}, surfaces: []surface{clapboard, shingle, clapboard},
	}, victorian},
}

func findStyle(name string) (style, bool) {
	for _, s := range styles {
		if s.name == name {
			return s, true
		}
	}
	return style{}, false
}

// Styles are the names of all styles there are, in order.
func Styles() []string {
	names := make([]string, len(styles))
	for i, s := range styles {
		names[i] = s.name
	}
	return names
}

// paint chooses the house's colours: its style's own, or with probability borrow those of the common pool.
func (h *house) paint(p palette, r *rand.Rand, borrow float64) {
	colour := func(own, pool []uint32, amount float64) rgb {
		from := own
		if chance(r, borrow) {
			from = pool
		}
		return hex(from[r.IntN(len(from))]).jitter(r, amount)
	}
	h.wall = colour(p.walls, common.walls, 0.14)
	h.trim = colour(p.trims, common.trims, 0.08)
	h.roof = colour(p.roofs, common.roofs, 0.16)
	h.door = colour(p.doors, common.doors, 0.12)
	h.accent = colour(p.walls, common.walls, 0.14)
	h.surface = pick(r, p.surfaces...)
	if chance(r, borrow*0.7) {
		h.surface = pick(r, common.surfaces...)
	}
	h.glass = pick(r, hex(0x2c3844), hex(0x3f4f5c), hex(0x6f8798), hex(0x1e262e), hex(0x8aa0ac)).jitter(r, 0.1)
	h.dirt = r.Float64()
	if chance(r, 0.2) {
		h.lit = between(r, 0.2, 0.9)
	}
}
