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
