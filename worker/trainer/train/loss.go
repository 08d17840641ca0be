//go:build libtorch

package train

import (
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// criterion is the loss: cross entropy with torch.nn.CrossEntropyLoss's weight
// and label_smoothing while training, plain cross entropy else.
type criterion struct {
	smoothing float64
	share     []float64     // weight of a class; nil = all alike
	weights   torchx.Tensor // the same on the device
}

// loss of a batch, mixed as its images are.
func (c *criterion) loss(p *nn.Pass, logits torchx.Tensor, b *batch) torchx.Tensor {
	if !p.Training {
		return p.KeepOr(torchx.CrossEntropy(logits, b.y, torchx.Tensor{}, 0))
	}
	loss := p.KeepOr(torchx.CrossEntropy(logits, b.y, c.weights, c.smoothing))
	if !b.mixed() {
		return loss
	}
	other := p.KeepOr(torchx.CrossEntropy(logits, b.y2, c.weights, c.smoothing))
	return p.KeepOr(torchx.Mix(loss, other, b.lambda))
}

func (c *criterion) free() { torchx.Free(c.weights) }

// balanced is the weight of each class that makes all count alike: images /
// (classes * images of the class).
func balanced(labels []int64, classes int) []float64 {
	w := make([]float64, classes)
	for _, y := range labels {
		w[y]++
	}
	for c, n := range w {
		if n > 0 { // else every image of it was skipped; its weight meets nothing
			w[c] = float64(len(labels)) / (float64(classes) * n)
		}
	}
	return w
}

// groups are the batches of an epoch, so many to an update; the last update
// takes what is left. No gradient outlives the epoch, so a checkpoint needs
// none.
type groups struct {
	size int
	mass []float64 // of each batch: what its mean loss was divided by
}

// newGroups weighs each batch beforehand, from the labels that it will have: a group's mean is over
// its images, not over its batches, whose last is smaller.
func newGroups(f *loader, size int, c criterion) groups {
	g := groups{size: size, mass: make([]float64, f.len())}
	labels, from := f.set.Labels(), 0
	for i, end := range f.ends {
		for _, image := range f.order[from:end] {
			if c.share == nil {
				g.mass[i]++
			} else {
				g.mass[i] += c.share[labels[image]] // of a mixed batch's other labels too: they are the same ones
			}
		}
		from = end
	}
	return g
}

// len is the number of updates.
func (g groups) len() int { return (len(g.mass) + g.size - 1) / g.size }

// of is the update a batch belongs to.
func (g groups) of(i int) int { return i / g.size }

// ends reports whether a batch is its update's last.
func (g groups) ends(i int) bool { return (i+1)%g.size == 0 || i == len(g.mass)-1 }

// share is a batch's part of its update: shares weigh the batches' mean losses
// so that their sum is the mean over all the update's images.
func (g groups) share(i int) float64 {
	from := g.of(i) * g.size
	all := 0.0
	for _, m := range g.mass[from:min(from+g.size, len(g.mass))] {
		all += m
	}
	return g.mass[i] / all
}
