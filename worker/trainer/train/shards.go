//go:build libtorch

package train

import (
	"atelier/worker/trainer/augment"
)

// piece is a shard's part of a batch: images from up to to of the epoch's order,
// of a batch that has those from start up to end. With one shard it is the batch.
type piece struct{ batch, shard, start, from, to, end int }

// len is the number of images.
func (p piece) len() int { return p.to - p.from }

// plan is how an epoch is carried out: batches, so many to an update, each cut
// into shards. It is a function of settings, seed, epoch and data, and the same
// for every member; the last update takes what is left. No gradient outlives the
// epoch, so a checkpoint needs none.
type plan struct {
	order  []int       // images, as they are taken
	pieces [][]piece   // of each batch, by shard
	size   int         // batches to an update
	mass   [][]float64 // of each piece: what its mean loss was divided by
}

// newPlan cuts order into batches and these into shards, and weighs each piece
// beforehand, from the labels that it will have: an update's mean is over its
// images, not over its pieces, some of which are smaller.
func newPlan(order []int, labels []int64, batchSize, shards, accumulate int, c criterion) plan {
	p := plan{order: order, size: accumulate}
	from := 0
	for i, end := range cut(len(order), batchSize) {
		part := pieces(i, from, end, batchSize/shards, shards)
		mass := make([]float64, len(part))
		for k, piece := range part {
			for _, image := range order[piece.from:piece.to] {
				if c.share == nil {
					mass[k]++
				} else {
					mass[k] += c.share[labels[image]] // of a mixed batch's other labels too: they are the same ones
				}
			}
		}
		p.pieces, p.mass = append(p.pieces, part), append(p.mass, mass)
		from = end
	}
	return p
}

// pieces cuts the batch of images from up to end into shards of size images; the
// last batch of an epoch may have fewer, and so fewer shards. A last piece of one
// image joins the one before, as a last batch does (cut), unless all are of one.
func pieces(batch, from, end, size, shards int) (out []piece) {
	for at := from; at < end; at += size {
		out = append(out, piece{batch, len(out), from, at, min(at+size, end), end})
	}
	if n := len(out); n > 1 && (size > 1 && out[n-1].len() == 1 || n > shards) {
		out[n-2].to = end
		out = out[:n-1]
	}
	return out
}

// batches is the number of batches, updates that of updates.
func (p *plan) batches() int { return len(p.pieces) }
func (p *plan) updates() int { return (len(p.pieces) + p.size - 1) / p.size }

// batchesOf are the batches of an update: from up to to.
func (p *plan) batchesOf(update int) (from, to int) {
	return update * p.size, min((update+1)*p.size, len(p.pieces))
}

// images is how many images the first updates take.
func (p *plan) images(updates int) int {
	if updates == 0 {
		return 0
	}
	_, to := p.batchesOf(updates - 1)
	return p.pieces[to-1][0].end
}

// present is how many shards of an update have images.
func (p *plan) present(update int) (n int) {
	from, to := p.batchesOf(update)
	for _, batch := range p.pieces[from:to] {
		n = max(n, len(batch))
	}
	return n
}

// parts are a shard's pieces of an update, batch by batch.
func (p *plan) parts(update, shard int) (out []piece) {
	from, to := p.batchesOf(update)
	for _, batch := range p.pieces[from:to] {
		if shard < len(batch) {
			out = append(out, batch[shard])
		}
	}
	return out
}

// all are the pieces of an epoch, update by update.
func (p *plan) all() []piece { return p.from(0, 0, len(p.pieces[0])) }

// from are all pieces of the shards [first, last) from an update on, in the order
// in which they are worked on: update by update, shard by shard, batch by batch.
func (p *plan) from(update, first, last int) (out []piece) {
	for u := update; u < p.updates(); u++ {
		for s := first; s < min(last, p.present(u)); s++ {
			out = append(out, p.parts(u, s)...)
		}
	}
	return out
}

// share is a piece's part of its update: shares weigh the pieces' mean losses so
// that their sum is the mean over all the update's images.
func (p *plan) share(of piece) float64 {
	from, to := p.batchesOf(of.batch / p.size)
	all := 0.0
	for _, batch := range p.mass[from:to] {
		for _, m := range batch {
			all += m
		}
	}
	return p.mass[of.batch][of.shard] / all
}

// Purposes of random states, apart from those of augment's streams.
const (
	passRandom       = iota + 101 // of a forward pass: epoch, batch, shard
	checkpointRandom              // that a checkpoint records: epoch
)

// randomState is the seed of all generators at one place of a run: whoever
// computes it, and after whatever, draws the same.
func randomState(seed uint64, purpose, epoch, batch, shard int) uint64 {
	return augment.Stream(augment.Stream(seed, purpose, epoch, batch).Uint64(), purpose, shard, 0).Uint64()
}
