package likeness

import "math"

// Sides of sketches: of the one that every pair of near hash is asked by, and
// of the one for those that pass.
const (
	rough = 8
	fine  = 16
)

// squares is an image of n x n means, row by row.
type squares []float32

// sketch is an image in squares, less their mean and of length 1, to ask
// whether it may be a part of another: a part that correlates with it by
// cropScore in full does so by walkScore or more in squares, if squares hold a
// quarter of the image's variance: the squared distance of two images of
// length 1 is twice what their correlation lacks of 1, 0.05 in all, so 0.2 of a
// quarter, and 0.29 is allowed. The remainder is for the walk's steps, which are
// 3 % of a side or less. Of images with less in squares (fine patterns, flat
// colours) the sketch tells nothing.
type sketch struct {
	squares
	any bool // it tells nothing
}

// sketchOf makes the sketch of n x n squares in to.
func sketchOf(grey *[side * side]uint8, n int, to squares) sketch {
	var sum, square int
	for _, v := range grey {
		sum, square = sum+int(v), square+int(v)*int(v)
	}
	const of = side * side
	mean := float64(sum) / of
	variance := float64(square)/of - mean*mean
	sumsOf(grey).part(to, n, 0, 0, 1)
	return sketch{to, to.unit() < variance/4 || variance < 4.1}
}

// sums[y][x] is the sum of all greys above and left of a corner of pixels.
type sums [side + 1][side + 1]float32

func sumsOf(grey *[side * side]uint8) *sums {
	var s sums
	for y := range side {
		var row float32 // whole numbers below 2^24 are exact
		for x := range side {
			row += float32(grey[y*side+x])
			s[y+1][x+1] = s[y][x+1] + row
		}
	}
	return &s
}

// part fills out with the mean grey of each of n x n squares, n being fine or
// less, of a part given in shares of the side.
func (s *sums) part(out squares, n int, left, top, share float64) {
	var at [2][fine + 1]int // the lines between squares, across and down
	var rest [2][fine + 1]float32
	for d, from := range []float64{left, top} {
		for i := range n + 1 {
			v := min(max((from+share*float64(i)/float64(n))*side, 0), side)
			at[d][i] = min(int(v), side-1)
			rest[d][i] = float32(v - float64(at[d][i]))
		}
	}
	area := float32(share * side / float64(n))
	area *= area
	var above [fine + 1]float32
	for y := range n + 1 {
		up, low, v := &s[at[1][y]], &s[at[1][y]+1], rest[1][y]
		var line [fine + 1]float32
		for x := range n + 1 {
			k, u := at[0][x], rest[0][x]
			line[x] = (up[k]*(1-u)+up[k+1]*u)*(1-v) + (low[k]*(1-u)+low[k+1]*u)*v
			if x > 0 && y > 0 {
				out[(y-1)*n+x-1] = (line[x] - line[x-1] - above[x] + above[x-1]) / area
			}
		}
		above = line
	}
}

// unit takes the mean off and brings the length to 1; variance is what there was.
func (s squares) unit() (variance float64) {
	var sum, square float32
	for _, v := range s {
		sum += v
	}
	mean := sum / float32(len(s))
	for i := range s {
		s[i] -= mean
		square += s[i] * s[i]
	}
	if square > 0 {
		by := float32(1 / math.Sqrt(float64(square)))
		for i := range s {
			s[i] *= by
		}
	}
	return float64(square) / float64(len(s))
}

// dot is the correlation of two that are of length 1.
func (s squares) dot(o squares) float32 {
	var a, b, c, d float32
	for ; len(s) >= 4 && len(o) >= 4; s, o = s[4:], o[4:] {
		a += s[0] * o[0]
		b += s[1] * o[1]
		c += s[2] * o[2]
		d += s[3] * o[3]
	}
	return a + b + c + d
}

// walk is the sketches of all parts of an image that the coarse walk looks at,
// and a ball around them: what is far from its middle is far from each.
type walk struct {
	whole  *sums
	parts  squares // one behind the other
	finer  squares // the same in fine squares, once asked for
	middle squares
	length float32 // of middle, squared
	within float32 // product with middle from which on anything can be near a part
}

func walkOf(grey *[side * side]uint8) *walk {
	const n = rough * rough
	w := &walk{whole: sumsOf(grey), middle: make(squares, n)}
	w.parts = w.in(rough)
	for i := range places {
		for k, v := range w.parts[i*n:][:n] {
			w.middle[k] += v / float32(len(places))
		}
	}
	w.length = w.middle.dot(w.middle)
	var radius float64      // from the middle to the farthest part
	for i := range places { // parts are of length 1, or 0
		p := w.parts[i*n:][:n]
		radius = max(radius, math.Sqrt(max(float64(w.length+p.dot(p)-2*w.middle.dot(p)), 0)))
	}
	radius += math.Sqrt(2-2*walkScore) + 1e-3 // and on to what correlates with it
	w.within = (w.length + 1 - float32(radius*radius)) / 2
	return w
}

// in is all parts in n x n squares.
func (w *walk) in(n int) squares {
	all := make(squares, len(places)*n*n)
	for i, p := range places {
		part := all[i*n*n:][:n*n]
		w.whole.part(part, n, p[0], p[1], p[2])
		part.unit()
	}
	return all
}

// mayHold reports whether an image, of which s is the rough sketch, may be a
// part; false is sure as told at sketch.
func (w *walk) mayHold(s *sketch, grey *[side * side]uint8) bool {
	if !s.any && !(anyLike(w.middle, s.squares, w.within) && anyLike(w.parts, s.squares, walkScore)) {
		return false
	}
	if w.finer == nil {
		w.finer = w.in(fine)
	}
	finer := sketchOf(grey, fine, make(squares, fine*fine))
	return finer.any || anyLike(w.finer, finer.squares, walkScore)
}

func anyGo(parts, s squares, score float32) bool {
	for ; len(parts) >= len(s); parts = parts[len(s):] {
		if s.dot(parts[:len(s)]) >= score {
			return true
		}
	}
	return false
}
