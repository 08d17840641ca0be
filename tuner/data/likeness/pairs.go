package likeness

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Pairs finds all pairs that Compare would, in ascending order. Of images
// whose mean greens are near, hashes are compared, four pairs at once where the
// processor has AVX2; sketches then tell which of those may be crops; Compare
// decides on the rest. See sketch for what that could overlook.
func Pairs(prints []*Print) []Pair {
	f := fieldOf(prints)
	workers := make([]worker, runtime.GOMAXPROCS(0))
	each(len(f.rows), func(w, i int) { workers[w].candidates(f, i) })
	var all []candidate // a pair of which either may be a part of the other comes twice
	for _, w := range workers {
		all = append(all, w.found...)
	}
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

// field is the images in the order of their mean green, and what every pair
// is first told apart by.
type field struct {
	rows            []row
	hashes, mirrors []uint64 // of the rows, and zeros up to a multiple of 64
	sketches        []sketch
}

type row struct {
	at     int // in prints
	mean   [3]int16
	*Print // of 4 KiB: looked at for few
}

// apart is the largest difference of a mean colour.
func (r *row) apart(o *row) (worst int16) {
	for c, v := range r.mean {
		worst = max(worst, v-o.mean[c], o.mean[c]-v)
	}
	return worst
}

func fieldOf(prints []*Print) *field {
	f := &field{}
	for i, p := range prints {
		if p != nil {
			f.rows = append(f.rows, row{i, [3]int16{int16(p.mean[0]), int16(p.mean[1]), int16(p.mean[2])}, p})
		}
	}
	slices.SortFunc(f.rows, func(x, y row) int { return cmp.Or(cmp.Compare(x.mean[1], y.mean[1]), cmp.Compare(x.at, y.at)) })
	n := (len(f.rows) + 63) &^ 63
	f.hashes, f.mirrors, f.sketches = make([]uint64, n), make([]uint64, n), make([]sketch, len(f.rows))
	const size = rough * rough
	all := make(squares, size*len(f.rows))
	each(len(f.rows), func(_, i int) {
		r := &f.rows[i]
		f.hashes[i], f.mirrors[i] = r.hash, r.mirror
		f.sketches[i] = sketchOf(&r.grey, rough, all[size*i:][:size:size])
	})
	return f
}

// candidate is a pair for compare; a < b.
type candidate struct {
	a, b       int
	bInA, aInB bool // may be a part
}

// worker finds candidates.
type worker struct {
	found         []candidate
	plain, turned []byte // of near
}

// candidates finds the i-th row's: pairs that may be the same or mirrored where
// it is the first of the two, and pairs of which the other may be a part of it.
func (w *worker) candidates(f *field, i int) {
	r := &f.rows[i]
	green := func(x row, green int16) int { return cmp.Compare(x.mean[1], green) }
	first, _ := slices.BinarySearchFunc(f.rows, r.mean[1]-nearColor, green)
	last, _ := slices.BinarySearchFunc(f.rows, r.mean[1]+nearColor+1, green)
	from, to := first&^63, (last+63)&^63
	w.plain, w.turned = slices.Grow(w.plain[:0], (to-from)/8)[:(to-from)/8], slices.Grow(w.turned[:0], (to-from)/8)[:(to-from)/8]
	hash := f.hashes[i]
	near(w.plain, f.hashes[from:to], hash, cropBits+1)
	near(w.turned, f.mirrors[from:to], hash, nearBits+1)
	var within *walk
	for at := 0; at < len(w.plain); at += 8 {
		crops := binary.LittleEndian.Uint64(w.plain[at:])
		for left := crops | binary.LittleEndian.Uint64(w.turned[at:]); left != 0; left &= left - 1 {
			bit := bits.TrailingZeros64(left)
			k := from + 8*at + bit
			if k < first || k >= last || k == i {
				continue
			}
			o := &f.rows[k]
			same := r.at < o.at && (bits.OnesCount64(hash^f.hashes[k]) <= nearBits || bits.OnesCount64(hash^f.mirrors[k]) <= nearBits)
			part := crops>>bit&1 != 0
			if !same && !part || r.apart(o) > nearColor {
				continue
			}
			if part {
				if within == nil {
					within = walkOf(&r.grey)
				}
				part = within.mayHold(&f.sketches[k], &o.grey)
			}
			switch {
			case !same && !part:
			case r.at < o.at:
				w.found = append(w.found, candidate{a: r.at, b: o.at, bInA: part})
			default:
				w.found = append(w.found, candidate{a: o.at, b: r.at, aInB: part})
			}
		}
	}
}

// nearGo is near bit by bit.
func nearGo(to []byte, hashes []uint64, hash, below uint64) {
	for i, h := range hashes {
		if i%8 == 0 {
			to[i/8] = 0
		}
		if uint64(bits.OnesCount64(h^hash)) < below {
			to[i/8] |= 1 << (i % 8)
		}
	}
}
