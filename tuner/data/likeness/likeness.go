// Package likeness tells which images are the same image: byte for byte,
// encoded anew, at another size, mirrored, or a little cropped. Perceptual
// hashes find candidates, small images decide; a hash alone calls different
// houses under the same sky duplicates. It moves nothing.
package likeness

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"atelier/common/dataset"
)

// side of the small grey image that decides.
const side = 48

// small is the side of the image in colour.
const small = 24

// tints is a small image in colour, row by row.
type tints [small * small * 3]uint8

// Print is what is kept of an image, about 4 KiB.
type Print struct {
	SHA           [32]byte // of the file
	Width, Height int
	Format        string
	hash, mirror  uint64             // of the image and of its mirror image
	grey          [side * side]uint8 // stretched to a square
	tint          tints              // the same in colour, smaller
	mean          [3]int             // of tint
}

// Of decodes a file's bytes. The error says what is wrong with the image.
func Of(b []byte, maxPixels int) (*Print, error) {
	img, full, format, err := dataset.DecodeReduced(b, maxPixels, 2*side)
	if err != nil {
		return nil, err
	}
	p := &Print{SHA: sha256.Sum256(b), Width: full.X, Height: full.Y, Format: format}
	var rgb [3 * side * side]byte
	dataset.Square(rgb[:], img, format, side, side, dataset.Stretch, dataset.Bilinear)
	dataset.Free(img)
	for i := range side * side {
		r, g, b := rgb[3*i], rgb[3*i+1], rgb[3*i+2]
		p.grey[i] = uint8((299*int(r) + 587*int(g) + 114*int(b) + 500) / 1000)
	}
	for y := range small {
		for x := range small {
			at := 3 * (2*y*side + 2*x)
			for c := range 3 {
				p.tint[3*(y*small+x)+c] = uint8((int(rgb[at+c]) + int(rgb[at+3+c]) + int(rgb[at+3*side+c]) + int(rgb[at+3*side+3+c]) + 2) / 4)
			}
		}
	}
	p.mean = p.tint.mean()
	p.hash, p.mirror = hashes(&p.grey)
	return p, nil
}

// basis holds, for each of side samples, the cosines of the 8 lowest frequencies above 0.
var basis = func() (c [side][8]float64) {
	for i := range c {
		for k := 1; k < 9; k++ {
			c[i][k-1] = math.Cos(math.Pi * float64(k) * (2*float64(i) + 1) / (2 * side))
		}
	}
	return c
}()

// hashes is the perceptual hash by the discrete cosine transform (Zauner 2010,
// "Implementation and Benchmarking of Perceptual Image Hash Functions"): 8 x 8
// low frequencies against their median. Mirroring an image flips the sign of
// its odd horizontal frequencies, so the mirror's hash costs nothing more.
func hashes(grey *[side * side]uint8) (plain, mirror uint64) {
	var f, flipped [64]float64
	for y := range side {
		var row [8]float64
		for x, v := range grey[y*side:][:side] {
			g, c := float64(v), &basis[x]
			for k := range row {
				row[k] += c[k] * g
			}
		}
		for v, c := range basis[y] {
			for u, r := range row {
				f[8*v+u] += c * r
			}
		}
	}
	for i, v := range f {
		flipped[i] = v
		if i%2 == 0 { // frequencies count from 1: those at even places are odd
			flipped[i] = -v
		}
	}
	return bitsOf(f), bitsOf(flipped)
}

func bitsOf(f [64]float64) (h uint64) {
	sorted := f
	slices.Sort(sorted[:])
	median := (sorted[31] + sorted[32]) / 2
	for i, v := range f {
		if v > median {
			h |= 1 << i
		}
	}
	return h
}

// Kind of likeness.
type Kind string

// Kinds, the surest first.
const (
	Copy     Kind = "byte copy"
	Same     Kind = "same image" // encoded anew, or at another size
	Mirrored Kind = "mirrored"
	Cropped  Kind = "cropped"
)

// Pair is two images that are one; A < B.
type Pair struct {
	A, B  int
	Kind  Kind
	Score float64 // correlation of the small images, 1 for copies
}

const (
	nearBits   = 10    // of 64, between images that may be the same
	cropBits   = 24    // that may be crops of one another
	sameScore  = 0.985 // correlation from which they are
	cropScore  = 0.975
	walkScore  = cropScore - 0.12 // from which the fine walk may get there
	sameTint   = 13               // largest difference of a colour anywhere, of 255: houses that differ in their roof alone are two
	sharpScore = 0.992            // correlation from which colours may be smeared
	smear      = 12               // percent of the contrast by which they may be
	smearTint  = 50               // as sameTint, where they are
	cropGain   = 0.01             // over frame on frame
	nearColor  = 14               // largest difference of mean colours
	cropTint   = 40               // where the place of the crop is known to a pixel or so
)

// Compare tells how two images are one; an empty Kind is that they are not.
func Compare(a, b *Print) (Kind, float64) { return compare(a, b, true, true) }

// compare is Compare where it may be known that b is no part of a, or a none of b.
func compare(a, b *Print, bInA, aInB bool) (Kind, float64) {
	if a.SHA == b.SHA {
		return Copy, 1
	}
	plain, mirrored := bits.OnesCount64(a.hash^b.hash), bits.OnesCount64(a.hash^b.mirror)
	if plain > cropBits && mirrored > nearBits {
		return "", 0
	}
	if a.meanApart(b) > nearColor {
		return "", 0
	}
	if plain <= nearBits {
		if s := correlation(&a.grey, &b.grey); s >= sameScore && sameColours(&a.tint, &b.tint, s) {
			return Same, s
		}
	}
	if mirrored <= nearBits {
		m := flip(&b.grey)
		if s := correlation(&a.grey, &m); s >= sameScore && sameColours(&a.tint, b.tint.flipped(), s) {
			return Mirrored, s
		}
	}
	if plain <= cropBits {
		var s float64
		if bInA {
			s = inside(a, b)
		}
		if aInB {
			s = max(s, inside(b, a))
		}
		// Different houses in one setting fit best frame on frame; a crop fits better inside.
		if s >= cropScore && s > correlation(&a.grey, &b.grey)+cropGain {
			return Cropped, s
		}
	}
	return "", 0
}

func flip(g *[side * side]uint8) (out [side * side]uint8) {
	for y := range side {
		for x := range side {
			out[y*side+x] = g[y*side+side-1-x]
		}
	}
	return out
}

// correlation of two grey images; flat ones correlate with nothing but their like.
func correlation(a, b *[side * side]uint8) float64 {
	var sa, sb, saa, sbb, sab int64
	for i := range a {
		x, y := int64(a[i]), int64(b[i])
		sa, sb, saa, sbb, sab = sa+x, sb+y, saa+x*x, sbb+y*y, sab+x*y
	}
	const n = side * side
	va, vb := n*saa-sa*sa, n*sbb-sb*sb
	if va < 4*n*n || vb < 4*n*n { // a deviation below 2 of 255: one flat colour
		if d := sa - sb; va < 4*n*n && vb < 4*n*n && d < 2*n && d > -2*n {
			return 1
		}
		return 0
	}
	return float64(n*sab-sa*sb) / math.Sqrt(float64(va)*float64(vb))
}

// apart is the largest difference between two small images over a block of 2 x 2.
func apart(a, b *tints) (worst int) {
	for y := 0; y < small; y += 2 {
		for x := 0; x < small; x += 2 {
			for c := range 3 {
				d := 0
				for _, i := range [4]int{y*small + x, y*small + x + 1, (y+1)*small + x, (y+1)*small + x + 1} {
					d += int(a[3*i+c]) - int(b[3*i+c])
				}
				worst = max(worst, d/4, -d/4)
			}
		}
	}
	return worst
}

// sameColours reports whether the colours of two images, whose greys correlate
// by so much, differ by no more than encoding and resampling make them.
func sameColours(a, b *tints, score float64) bool {
	worst := apart(a, b)
	return worst <= sameTint || score >= sharpScore && worst <= smearTint && smeared(a, b)
}

// smeared reports whether two small images differ as one does from itself when
// its colours were smeared: JPEG keeps colours at half the size, resampling
// softens edges. That moves colours across edges, a share of what lies on either
// side, and leaves the mean over a larger part. So means over 4 x 4 are compared,
// and may differ by a share of the contrast that both images have thereabouts: where
// one is flat, the other has a detail that this one has not.
func smeared(a, b *tints) bool {
	const n, around = 4, 2
	for y := range small - n + 1 {
		for x := range small - n + 1 {
			for c := range 3 {
				d := 0
				lowA, highA, lowB, highB := 255, 0, 255, 0
				for i := max(y-around, 0); i < min(y+n+around, small); i++ {
					for k := max(x-around, 0); k < min(x+n+around, small); k++ {
						at := 3*(i*small+k) + c
						v, w := int(a[at]), int(b[at])
						if i >= y && i < y+n && k >= x && k < x+n {
							d += v - w
						}
						lowA, highA, lowB, highB = min(lowA, v), max(highA, v), min(lowB, w), max(highB, w)
					}
				}
				if max(d, -d) > n*n*(sameTint+smear*min(highA-lowA, highB-lowB)/100) {
					return false
				}
			}
		}
	}
	return true
}

// mean is the mean colour.
func (t *tints) mean() (m [3]int) {
	for i, v := range t {
		m[i%3] += int(v)
	}
	for c := range m {
		m[c] /= small * small
	}
	return m
}

// meanApart is the largest difference of a mean colour.
func (p *Print) meanApart(o *Print) (worst int) {
	for c, v := range p.mean {
		d := v - o.mean[c]
		worst = max(worst, d, -d)
	}
	return worst
}

func (t *tints) flipped() *tints {
	var out tints
	for y := range small {
		for x := range small {
			copy(out[3*(y*small+x):][:3], t[3*(y*small+small-1-x):][:3])
		}
	}
	return &out
}

// part resamples a part of the image, given in shares of its side.
func (t *tints) part(left, top, share float64) *tints {
	var out tints
	for y := range small {
		ya, yb, v := tap(top, share, y, small)
		for x := range small {
			xa, xb, u := tap(left, share, x, small)
			for c := range 3 {
				at := func(y, x int) float64 { return float64(t[3*(y*small+x)+c]) }
				up, low := at(ya, xa)*(1-u)+at(ya, xb)*u, at(yb, xa)*(1-u)+at(yb, xb)*u
				out[3*(y*small+x)+c] = uint8(up*(1-v) + low*v + 0.5)
			}
		}
	}
	return &out
}

// tap is where the i-th of n samples of a part lies: two places, and the share of the second.
func tap(from, share float64, i, n int) (a, b int, second float64) {
	v := min(max((from+share*(float64(i)+0.5)/float64(n))*float64(n)-0.5, 0), float64(n-1))
	a = int(v)
	return a, min(a+1, n-1), v - float64(a)
}

// places are the parts of the coarse walk: left, top and side, in shares of the image's.
var places = func() (all [][3]float64) {
	for _, s := range []float64{0.975, 0.95, 0.925, 0.9} {
		for i := range 3 {
			for k := range 3 {
				all = append(all, [3]float64{(1 - s) * float64(i) / 2, (1 - s) * float64(k) / 2, s})
			}
		}
	}
	return all
}()

// inside is the best correlation of b with a part of a: 88 to 98 % of either
// side, anywhere; 0 if the colours there are others. A coarse walk finds the
// place, a fine one settles it.
func inside(a, b *Print) float64 {
	best, bx, by, bs := 0.0, 0.0, 0.0, 1.0
	try := func(x, y, s float64) {
		if x < -1e-9 || y < -1e-9 || x+s > 1+1e-9 || y+s > 1+1e-9 {
			return
		}
		part := window(&a.grey, x, y, s)
		if c := correlation(&part, &b.grey); c > best {
			best, bx, by, bs = c, x, y, s
		}
	}
	for _, p := range places {
		try(p[0], p[1], p[2])
	}
	if best < walkScore {
		return best
	}
	for _, step := range []float64{0.0125, 0.00625} {
		x, y, s := bx, by, bs
		for _, ds := range []float64{-step, 0, step} {
			for _, dx := range []float64{-step, 0, step} {
				for _, dy := range []float64{-step, 0, step} {
					try(x+dx, y+dy, s+ds)
				}
			}
		}
	}
	if apart(a.tint.part(bx, by, bs), &b.tint) > cropTint {
		return 0
	}
	return best
}

// window resamples a part of a grey image, given in shares of its side, to
// the full side.
func window(g *[side * side]uint8, left, top, share float64) (out [side * side]uint8) {
	var x0, x1 [side]int
	var fx [side]float64
	for i := range side {
		x0[i], x1[i], fx[i] = tap(left, share, i, side)
	}
	var row [2][side]float64 // rows of the image, resampled across
	in := [2]int{-1, -1}     // which
	across := func(y int) *[side]float64 {
		if in[y%2] != y {
			in[y%2] = y
			from, to := g[y*side:][:side], &row[y%2]
			for x := range to {
				to[x] = float64(from[x0[x]])*(1-fx[x]) + float64(from[x1[x]])*fx[x]
			}
		}
		return &row[y%2]
	}
	for y := range side {
		a, b, v := tap(top, share, y, side)
		up, low, line := across(a), across(b), out[y*side:][:side]
		for x := range line {
			line[x] = uint8(up[x]*(1-v) + low[x]*v + 0.5)
		}
	}
	return out
}

// Groups joins pairs into sets of images that are one; single images are
// left out. Each group is ascending, groups stand by their first.
func Groups(n int, pairs []Pair) [][]int {
	parent := make([]int, n)
	for i := range parent {
		parent[i] = i
	}
	find := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	for _, p := range pairs {
		a, b := find(p.A), find(p.B)
		parent[max(a, b)] = min(a, b)
	}
	members := map[int][]int{}
	for i := range n {
		members[find(i)] = append(members[find(i)], i)
	}
	var out [][]int
	for i := range n {
		if len(members[i]) > 1 {
			out = append(out, members[i])
		}
	}
	return out
}

// String is a print for people.
func (p *Print) String() string { return fmt.Sprintf("%s, %d x %d", p.Format, p.Width, p.Height) }
