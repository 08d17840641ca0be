package synth

import (
	"math"
	"math/rand/v2"
)

// develop is the camera: light, colour cast, shadow of something out of sight, focus, vignette, sensor noise.
func (sc *scene) develop() {
	r, d, n := sc.r, sc.difficulty, int(sc.size)
	exposure := between(r, 1-0.38*d, 1+0.22*d)
	if sc.dusk {
		exposure *= 0.82
	}
	contrast := between(r, 1-0.4*d, 1+0.2*d)
	warmth := 0.16 * d * (2*r.Float64() - 1)
	haze := 0.0
	if chance(r, 0.25*d) {
		haze = between(r, 0.1, 0.35)
	}
	if chance(r, 0.3) { // a shadow across the image
		a, w := between(r, 0, sc.size), between(r, 0.2, 0.6)*sc.size
		lean := between(r, -0.5, 0.5) * sc.size
		sc.pixels(func() {
			sc.c.fillAlpha(hex(0x101018), 0.3, point{a, 0}, point{a + w, 0}, point{a + w + lean, sc.size}, point{a + lean, sc.size})
		})
	}
	vignette := 0.4 * d * r.Float64()
	noise := (2 + 13*r.Float64()) * d
	blur := 0
	if chance(r, 0.35*d) {
		blur = 1
	}
	pix := sc.c.img.Pix
	if blur > 0 {
		sc.soften()
	}
	for y := range n {
		for x := range n {
			i := sc.c.img.PixOffset(x, y)
			dx, dy := float64(x)/sc.size-0.5, float64(y)/sc.size-0.5
			f := exposure * (1 - vignette*2*(dx*dx+dy*dy))
			g := normal(r) * noise
			for k := range 3 {
				v := float64(pix[i+k])
				v = v*(1-haze) + 210*haze
				v = (v-118)*contrast + 118
				v *= f * (1 + warmth*float64(1-k))
				v += g + 0.5*noise*(r.Float64()-0.5)
				pix[i+k] = uint8(math.Round(min(max(v, 0), 255)))
			}
			pix[i+3] = 255
		}
	}
}

// soften averages 3 x 3 pixels, the middle one counting most.
func (sc *scene) soften() {
	n := int(sc.size)
	src := append([]uint8(nil), sc.c.img.Pix...)
	for y := range n {
		for x := range n {
			for k := range 3 {
				sum, weight := 0, 0
				for oy := -1; oy <= 1; oy++ {
					for ox := -1; ox <= 1; ox++ {
						if u, v := x+ox, y+oy; u >= 0 && u < n && v >= 0 && v < n {
							w := (2 - ox*ox) * (2 - oy*oy)
							sum += w * int(src[4*(v*n+u)+k])
							weight += w
						}
					}
				}
				sc.c.img.Pix[4*(y*n+x)+k] = uint8((sum + weight/2) / weight)
			}
		}
	}
}

// normal is roughly a standard normal number, from four uniform ones: only additions, so that every machine
// gets the same bits.
func normal(r *rand.Rand) float64 {
	a := r.Uint64()
	sum := int64(a&0xffff) + int64(a>>16&0xffff) + int64(a>>32&0xffff) + int64(a>>48&0xffff)
	return float64(sum-2*65535) / 65535 * math.Sqrt2 * 1.224744871
}
