//go:build libtorch

package nn

import (
	torch "github.com/wangkuiyi/gotorch"
	F "github.com/wangkuiyi/gotorch/nn/functional"

	"atelier/worker/trainer/torchx"
)

// The operations for which there are kernels of our own (common/kernels). Each
// takes its kernel where that is on and takes the tensors, and gotorch's
// function else. What they make belongs to the pass.

// faster notes what a kernel made; ok is false where it made nothing.
func (p *Pass) faster(t Tensor, err error) (out Tensor, ok bool) {
	torchx.Must(err)
	if t.T == nil {
		return Tensor{}, false
	}
	return p.Keep(t), true
}

// instead notes after and drops what it was made of.
func (p *Pass) instead(before, after Tensor) Tensor {
	p.Keep(after)
	p.Drop(before)
	return after
}

// square is a length for both axes of a window.
func square(n int64) []int64 { return []int64{n, n} }

// Convolve is a 2-d convolution with a square kernel, [n, in, h, w] to
// [n, out, h', w']; bias may be the zero Tensor.
func (p *Pass) Convolve(x, weight, bias Tensor, stride, padding, groups int64) Tensor {
	if y, ok := p.faster(torchx.FasterConvolve(x, weight, bias, stride, padding, groups)); ok {
		return y
	}
	return p.Keep(F.Conv2d(x, weight, bias, square(stride), square(padding), square(1), groups))
}

// Normalise is follow(norm(x)*factors + other) for x [n, c, h, w]; other, of x's
// shape, and factors [n] may be zero Tensors.
func (p *Pass) Normalise(x Tensor, n torchx.Norm, other, factors Tensor, follow torchx.Activation) Tensor {
	if y, ok := p.faster(torchx.FasterNorm(x, n, other, factors, follow)); ok {
		return y
	}
	y := p.Keep(F.BatchNorm(x, n.Mean, n.Var, n.Weight, n.Bias, n.Training, n.Momentum, n.Eps))
	if factors.T != nil {
		y = p.instead(y, p.ScaleRows(y, factors))
	}
	if other.T != nil {
		y = p.instead(y, y.AddI(other, 1))
	}
	if follow != torchx.None {
		y = p.instead(y, p.Activate(y, follow))
	}
	return y
}

// Activate applies an activation; see torchx.Activation for which of them
// overwrite their input. ReLU does.
func (p *Pass) Activate(x Tensor, a torchx.Activation) Tensor {
	if a == torchx.ReLU {
		return p.Keep(F.Relu(x, true))
	}
	return p.KeepOr(torchx.Activate(x, a))
}

// ScaleRows multiplies each row of a batch by its factor, [n].
func (p *Pass) ScaleRows(x, factors Tensor) Tensor {
	shape := x.Shape()
	for i := range shape[1:] {
		shape[i+1] = 1
	}
	cast := p.Keep(factors.CastTo(x.Dtype()))
	column := p.Keep(cast.View(shape...))
	y := p.Keep(torch.Mul(x, column))
	p.Drop(cast)
	p.Drop(column)
	return y
}

// MaxPool takes the maximum of each square window of [n, c, h, w].
func (p *Pass) MaxPool(x Tensor, kernel, stride, padding int64) Tensor {
	if y, ok := p.faster(torchx.FasterMaxPool(x, kernel, stride, padding)); ok {
		return y
	}
	return p.Keep(F.MaxPool2d(x, square(kernel), square(stride), square(padding), square(1), false))
}

// PoolBeside averages each channel, [n, c, 1, 1]. Who needs x as well takes same
// in its place: the kernel sums both gradients in one pass.
func (p *Pass) PoolBeside(x Tensor) (pooled, same Tensor) {
	pooled, same, err := torchx.FasterPoolBeside(x)
	torchx.Must(err)
	if pooled.T != nil {
		return p.Keep(pooled), p.Keep(same)
	}
	return p.Keep(F.AdaptiveAvgPool2d(x, square(1))), x
}

// ScaleChannels multiplies each channel of [n, c, h, w] by its factor,
// [n, c, 1, 1].
func (p *Pass) ScaleChannels(x, factors Tensor) Tensor {
	if y, ok := p.faster(torchx.FasterScaleChannels(x, factors)); ok {
		return y
	}
	return p.Keep(torch.Mul(x, factors))
}
