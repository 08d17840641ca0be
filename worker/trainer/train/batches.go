//go:build libtorch

package train

import (
	"atelier/common/dataset"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/torchx"
)

// batch is some images on the device. Whoever takes one frees it.
//
// With CutMix each image holds a box of its neighbour's: the loss is
// lambda*CE(logits, y) + (1-lambda)*CE(logits, y2), which is cross entropy
// against soft labels. Answers count against y where lambda is at least a
// half, else against y2 (see answers).
type batch struct {
	x      torchx.Tensor // float [n, 3, size, size], normalised
	y      torchx.Tensor // int64 [n], classes
	y2     torchx.Tensor // int64 [n], classes of the images mixed in; undefined without CutMix
	lambda float64       // share of y, 0..1; 1 without CutMix
	box    augment.Box   // what was mixed in; empty without CutMix
}

// mixed reports whether there is a y2.
func (b *batch) mixed() bool { return b.y2.T != nil }

// answers are the labels with the larger share, which accuracy counts.
func (b *batch) answers() torchx.Tensor {
	if b.mixed() && b.lambda < 0.5 {
		return b.y2
	}
	return b.y
}

func (b *batch) free() { torchx.Free(b.x, b.y, b.y2) }

// loader hands out pieces of batches in order, or whole batches; the bytes of the
// next one are laid out on a goroutine of their own while the caller works on
// this one. The loop over an epoch is
//
//	f := d.epoch(epoch, batchSize) // or d.whole(set, batchSize) to validate
//	defer f.close()
//	for range f.len() {
//		b, err := f.next()
//		...
//		b.free()
//	}
type loader struct {
	d      *data
	set    *dataset.Set
	recipe augment.Recipe
	order  []int   // images, as they are taken
	pieces []piece // in order, as they are handed out
	epoch  int
	step   int        // of the next piece
	ahead  chan *laid // the next piece, once it is laid out; nil when none is under way
}

// laid is a batch on the host, ready to be sent.
type laid struct {
	block *torchx.Block
	plan  augment.Plan
	warp  bool // crops and mirroring are left to the device
	err   error
}

// order is that of an epoch of training: every image once, or as many draws with
// classes in balance, a function of (seed, epoch).
func (d *data) order(epoch int) []int {
	if d.balanced {
		return augment.Balanced(d.seed, epoch, d.train.Labels())
	}
	return augment.Order(d.seed, epoch, d.train.Len())
}

// epoch is one pass of training, all shards of each batch.
func (d *data) epoch(epoch, batchSize int) *loader {
	shards := max(d.shards, 1)
	p := newPlan(d.order(epoch), d.train.Labels(), batchSize, shards, 1, criterion{})
	return d.training(epoch, p.order, p.all())
}

// training is some pieces of an epoch.
func (d *data) training(epoch int, order []int, some []piece) *loader {
	return &loader{d: d, set: d.train, recipe: d.recipe, order: order, pieces: some, epoch: epoch}
}

// whole is a set from its first image to its last, as it is.
func (d *data) whole(set *dataset.Set, batchSize int) *loader {
	f := &loader{d: d, set: set, order: make([]int, set.Len())}
	for i := range f.order {
		f.order[i] = i
	}
	for from := 0; from < set.Len(); from += batchSize {
		end := min(from+batchSize, set.Len())
		f.pieces = append(f.pieces, piece{len(f.pieces), 0, from, from, end, end})
	}
	return f
}

// len is the number of pieces in all.
func (f *loader) len() int { return len(f.pieces) }

// next makes the next piece; there are len of them.
func (f *loader) next() (batch, error) {
	if f.ahead == nil {
		f.begin()
	}
	l := <-f.ahead
	f.ahead = nil
	f.step++
	if f.step < len(f.pieces) {
		f.begin()
	}
	return f.d.send(l, f.recipe)
}

// begin starts laying the next piece out.
func (f *loader) begin() {
	p, ahead := f.pieces[f.step], make(chan *laid, 1)
	f.ahead = ahead
	go func() { ahead <- f.d.lay(f.set, f.order, p, f.recipe, f.epoch) }()
}

// close ends a loader, early too: the set may be closed afterwards. Closing
// twice is harmless.
func (f *loader) close() {
	if f.ahead != nil {
		l := <-f.ahead
		l.block.Free()
		f.ahead = nil
	}
}

// lay plans a batch and lays a piece's bytes and labels out on the host. Crops and
// mirroring happen on the way, unless the device samples the images anyhow, to
// turn them, or is better at it.
func (d *data) lay(set *dataset.Set, order []int, p piece, recipe augment.Recipe, epoch int) *laid {
	indices := order[p.from:p.to]
	size, n := set.Size(), len(indices)
	l := &laid{warp: recipe.Rotation != 0 || recipe.Resized && d.device.CUDA()}
	if l.block, l.err = torchx.NewBlock(n, size, d.device); l.err != nil {
		return l
	}
	l.plan = recipe.Draw(size, p.end-p.start, d.seed, epoch, p.batch).Part(p.from-p.start, p.to-p.start)
	if l.warp {
		augment.Copy(l.block.Pixels, set.PixelsRaw(), size, indices)
	} else {
		l.plan.Gather(l.block.Pixels, set.PixelsRaw(), size, indices)
	}
	all := set.Labels()
	for i, at := range indices {
		c := &l.plan.Images[i]
		l.block.Labels[i] = all[at]
		l.block.Others[(i+1)%n] = all[at] // image i takes the box of image i-1, of its piece
		l.block.SetWarp(i, c.Left, c.Top, c.Width, c.Height, c.Flip, c.Angle)
		l.block.SetColour(i, c.Brightness, c.Contrast, c.Saturation, c.Hue)
	}
	return l
}

// send brings a batch to the device, changes and normalises it there.
func (d *data) send(l *laid, recipe augment.Recipe) (batch, error) {
	b := batch{lambda: 1}
	if l.err != nil {
		return b, l.err
	}
	defer l.block.Free()
	ch := torchx.Changes{Warp: l.warp, Colour: recipe.Coloured(), ChannelsLast: d.channelsLast}
	for i, c := range l.plan.Order {
		ch.Order[i] = int32(c)
	}
	var others torchx.Tensor
	var err error
	if b.x, b.y, others, err = l.block.Send(d.scale, d.shift, ch); err != nil {
		return b, err
	}
	if recipe.CutMix == 0 {
		torchx.Free(others)
		return b, nil
	}
	b.y2, b.lambda, b.box = others, l.plan.Lambda, l.plan.Mix
	if err := torchx.CutMix(b.x, b.box.X1, b.box.Y1, b.box.X2, b.box.Y2); err != nil {
		b.free()
		return batch{}, err
	}
	return b, nil
}
