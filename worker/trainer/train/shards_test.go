//go:build libtorch

package train

import (
	"math"
	"testing"
)

// The pieces of an epoch are every image once, a batch's in its order, and their
// shares of an update add up to it; with one shard a piece is a batch.
func TestPiecesAreTheBatches(t *testing.T) {
	for _, c := range []struct{ images, batch, shards, accumulate int }{
		{40, 8, 1, 1}, {40, 8, 4, 1}, {41, 8, 4, 3}, {43, 8, 8, 2}, {3, 8, 4, 1}, {17, 16, 2, 1}, {9, 8, 8, 1}, {2, 8, 8, 4}, {47, 24, 3, 2},
	} {
		order, labels := make([]int, c.images), make([]int64, c.images)
		for i := range order {
			order[i] = c.images - 1 - i
		}
		p := newPlan(order, labels, c.batch, c.shards, c.accumulate, criterion{})
		ends := cut(c.images, c.batch)
		if p.batches() != len(ends) || p.images(p.updates()) != c.images || p.images(0) != 0 {
			t.Fatalf("%+v: %d batches, %d images", c, p.batches(), p.images(p.updates()))
		}
		seen := map[int]int{}
		for i, batch := range p.pieces {
			at := batch[0].start
			for s, piece := range batch {
				if piece.batch != i || piece.shard != s || piece.from != at || piece.end != ends[i] || s >= c.shards || piece.len() < 1 {
					t.Errorf("%+v: batch %d shard %d: %+v", c, i, s, piece)
				}
				if piece.len() == 1 && len(batch) > 1 && c.batch > c.shards {
					t.Errorf("%+v: a shard of one image: %+v", c, piece)
				}
				at = piece.to
			}
			if at != ends[i] {
				t.Errorf("%+v: batch %d ends at %d, not %d", c, i, at, ends[i])
			}
		}
		// However the shards are dealt out, each piece is someone's once, and in the order of the steps.
		for first := 0; first < c.shards; first += 3 {
			last := -1
			for _, piece := range p.from(0, first, min(first+3, c.shards)) {
				if u := piece.batch / c.accumulate; u < last {
					t.Errorf("%+v: %+v comes after update %d", c, piece, last)
				} else {
					last = u
				}
				for i := piece.from; i < piece.to; i++ {
					seen[order[i]]++
				}
			}
		}
		for i := range c.images {
			if seen[i] != 1 {
				t.Errorf("%+v: image %d is taken %d times", c, i, seen[i])
			}
		}
		for u := range p.updates() {
			from, to := p.batchesOf(u)
			all, present := 0.0, 0
			for _, batch := range p.pieces[from:to] {
				present = max(present, len(batch))
				for _, piece := range batch {
					all += p.share(piece)
				}
			}
			if math.Abs(all-1) > 1e-12 || p.present(u) != present {
				t.Errorf("%+v: the shares of update %d add up to %g, %d shards present of %d", c, u, all, p.present(u), present)
			}
			for s := range present {
				if parts := p.parts(u, s); len(parts) == 0 || parts[0].shard != s {
					t.Errorf("%+v: shard %d of update %d has %v", c, s, u, parts)
				}
			}
		}
	}
}

// Batches of one update share it by their images, or by what class weights make
// of them.
func TestBatchesShareAnUpdate(t *testing.T) {
	p := newPlan([]int{0, 1, 2, 3, 4, 5}, []int64{0, 0, 1, 1, 1, 0}, 2, 1, 2, criterion{share: []float64{0.5, 3}})
	for i, want := range []float64{1. / 7, 6. / 7, 1} {
		if got := p.share(p.pieces[i][0]); math.Abs(got-want) > 1e-15 {
			t.Errorf("batch %d: share %v, want %v", i, got, want)
		}
	}
}

// A place of a run has a random state of its own.
func TestRandomStatesDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(2) {
		for _, purpose := range []int{passRandom, checkpointRandom} {
			for epoch := 1; epoch < 4; epoch++ {
				for batch := range 20 {
					for shard := range 8 {
						seen[randomState(seed, purpose, epoch, batch, shard)] = true
					}
				}
			}
		}
	}
	if len(seen) != 2*2*3*20*8 {
		t.Errorf("%d states", len(seen))
	}
	if a := randomState(7, passRandom, 1, 2, 3); a != randomState(7, passRandom, 1, 2, 3) {
		t.Error("a state is not a function of its place")
	}
}
