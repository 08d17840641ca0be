package likeness

import (
	"cmp"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Pairs finds all pairs that Compare would, in ascending order. Of pictures
// whose mean greens are near, hashes and mean colours are compared, some
// nanoseconds a pair; sketches then tell which of those may be crops; Compare
// decides on the rest. See sketch for what that could overlook.
func Pairs(prints []*Print) []Pair {
	rows := make([]row, 0, len(prints))
	for i, p := range prints {
		if p != nil {
			rows = append(rows, row{hash: p.hash, mirror: p.mirror, mean: p.mean, at: i})
		}
	}
	slices.SortFunc(rows, func(x, y row) int { return cmp.Or(cmp.Compare(x.mean[1], y.mean[1]), cmp.Compare(x.at, y.at)) })
	sketches := make([]sketch, len(rows))
	each(len(rows), func(_, i int) { sketches[i] = sketchOf(&prints[rows[i].at].grey, rough) })

	// Candidates by (A, B); a pair of which either may be a part of the other comes twice.
	found := make([][]candidate, runtime.GOMAXPROCS(0))
	each(len(rows), func(worker, i int) { found[worker] = candidates(prints, rows, sketches, i, found[worker]) })
	all := slices.Concat(found...)
	slices.SortFunc(all, func(x, y candidate) int { return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b)) })
	n := 0
	for _, c := range all {
		if n > 0 && all[n-1].a == c.a && all[n-1].b == c.b {
			all[n-1].bInA, all[n-1].aInB = all[n-1].bInA || c.bInA, all[n-1].aInB || c.aInB
			continue
		}
		all[n] = c
		n++
	}
	all = all[:n]
	pairs := make([]Pair, len(all))
	each(len(all), func(_, i int) {
		c := all[i]
		kind, score := compare(prints[c.a], prints[c.b], c.bInA, c.aInB)
		pairs[i] = Pair{c.a, c.b, kind, score}
	})
	return slices.DeleteFunc(pairs, func(p Pair) bool { return p.Kind == "" })
}

// each calls do(worker, i) for all i below n, on all processors.
func each(n int, do func(worker, i int)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for w := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(w, i)
			}
		})
	}
	wg.Wait()
}

// row is what every pair is first told apart by.
type row struct {
	hash, mirror uint64
	mean         [3]int
	at           int // in prints
}

// candidate is a pair for compare; a < b.
type candidate struct {
	a, b       int
	bInA, aInB bool // may be a part
}

// candidates adds the i-th row's: pairs that may be the same or mirrored where
// it is the first of the two, and pairs of which the other may be a part of it.
func candidates(prints []*Print, rows []row, sketches []sketch, i int, out []candidate) []candidate {
	r := &rows[i]
	first, _ := slices.BinarySearchFunc(rows, r.mean[1]-nearColor, func(x row, green int) int { return cmp.Compare(x.mean[1], green) })
	var within *walk
	for k := first; k < len(rows) && rows[k].mean[1] <= r.mean[1]+nearColor; k++ {
		o := &rows[k]
		plain := bits.OnesCount64(r.hash ^ o.hash)
		same := r.at < o.at && (plain <= nearBits || bits.OnesCount64(r.hash^o.mirror) <= nearBits)
		if plain > cropBits && !same || k == i || r.apart(o) > nearColor {
			continue
		}
		part := false
		if plain <= cropBits {
			if within == nil {
				within = walkOf(&prints[r.at].grey)
			}
			part = within.mayHold(&sketches[k], &prints[o.at].grey)
		}
		switch {
		case !same && !part:
		case r.at < o.at:
			out = append(out, candidate{a: r.at, b: o.at, bInA: part})
		default:
			out = append(out, candidate{a: o.at, b: r.at, aInB: part})
		}
	}
	return out
}

// apart is the largest difference of a mean colour.
func (r *row) apart(o *row) (worst int) {
	for c, v := range r.mean {
		worst = max(worst, v-o.mean[c], o.mean[c]-v)
	}
	return worst
}

// Sides of sketches: of the one that every pair of near hash is asked by, and
// of the one for those that pass.
const (
	rough = 8
	fine  = 16
)

// squares is a picture of n x n means, row by row.
type squares []float32

// sketch is a picture in squares, less their mean and of length 1, to ask
// whether it may be a part of another: a part that correlates with it by
// cropScore in full does so by walkScore or more in squares, if squares hold a
// quarter of the picture's variance: the squared distance of two pictures of
// length 1 is twice what their correlation lacks of 1, 0.05 in all, so 0.2 of a
// quarter, and 0.29 is allowed. The remainder is for the walk's steps, which are
// 3 % of a side or less. Of pictures with less in squares (fine patterns, flat
// colours) the sketch tells nothing.
type sketch struct {
	squares
	any bool // it tells nothing
}

func sketchOf(grey *[side * side]uint8, n int) sketch {
	var sum, square int
	for _, v := range grey {
		sum, square = sum+int(v), square+int(v)*int(v)
	}
	const of = side * side
	mean := float64(sum) / of
	variance := float64(square)/of - mean*mean
	s := make(squares, n*n)
	sumsOf(grey).part(s, n, 0, 0, 1)
	return sketch{s, s.unit() < variance/4 || variance < 4.1}
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

// walk is the sketches of all parts of a picture that the coarse walk looks at,
// and a ball around them: what is far from its middle is far from each.
type walk struct {
	whole  *sums
	parts  []squares
	finer  []squares // the same in fine squares, once asked for
	middle squares
	length float32 // of middle, squared
	reach  float32 // squared distance from middle up to which anything can be near a part
}

func walkOf(grey *[side * side]uint8) *walk {
	w := &walk{whole: sumsOf(grey), middle: make(squares, rough*rough)}
	w.parts = w.in(rough)
	for _, p := range w.parts {
		for k, v := range p {
			w.middle[k] += v / float32(len(places))
		}
	}
	w.length = w.middle.dot(w.middle)
	var radius float64 // from the middle to the farthest part
	for _, p := range w.parts {
		radius = max(radius, math.Sqrt(max(float64(w.length+p.dot(p)-2*w.middle.dot(p)), 0)))
	}
	radius += math.Sqrt(2-2*walkScore) + 1e-3 // and on to what correlates with it
	w.reach = float32(radius * radius)
	return w
}

// in is all parts in n x n squares.
func (w *walk) in(n int) []squares {
	all, parts := make(squares, len(places)*n*n), make([]squares, len(places))
	for i, p := range places {
		parts[i] = all[i*n*n:][:n*n]
		w.whole.part(parts[i], n, p[0], p[1], p[2])
		parts[i].unit()
	}
	return parts
}

// mayHold tells whether a picture, of which s is the rough sketch, may be a
// part; false is sure as told at sketch.
func (w *walk) mayHold(s *sketch, grey *[side * side]uint8) bool {
	if !s.any && (w.length+1-2*w.middle.dot(s.squares) > w.reach || !near(w.parts, s.squares)) {
		return false
	}
	if w.finer == nil {
		w.finer = w.in(fine)
	}
	finer := sketchOf(grey, fine)
	return finer.any || near(w.finer, finer.squares)
}

func near(parts []squares, s squares) bool {
	return slices.ContainsFunc(parts, func(p squares) bool { return p.dot(s) >= walkScore })
}
