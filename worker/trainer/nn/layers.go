//go:build libtorch

package nn

import (
	"math"
	"strconv"

	torch "github.com/wangkuiyi/gotorch"
	F "github.com/wangkuiyi/gotorch/nn/functional"
	"github.com/wangkuiyi/gotorch/nn/initializer"

	"atelier/worker/trainer/torchx"
)

// leaf is embedded by layers without parts.
type leaf struct{}

func (leaf) Entries() []Entry  { return nil }
func (leaf) Children() []Child { return nil }

func parameter(shape ...int64) Tensor { return torchx.Own(torch.Empty(shape, true)) }

func filled(value float32, trained bool, n int64) Tensor {
	return torchx.Own(torch.Full([]int64{n}, value, trained))
}

// uniformBias is PyTorch's default for the bias of convolutions and linear
// layers: uniform within 1/sqrt(fan in).
func uniformBias(b *Tensor, fanIn int64) {
	bound := 1 / math.Sqrt(float64(fanIn))
	initializer.Uniform(b, -bound, bound)
}

// Conv2d is torch.nn.Conv2d with square kernels.
type Conv2d struct {
	leaf
	Weight, Bias            Tensor // Bias may be absent
	In, Out, Kernel         int64
	stride, padding, groups int64
}

// Conv describes a Conv2d; zero values mean stride 1, no padding, one group.
type Conv struct {
	Stride, Padding, Groups int64
	Bias                    bool
}

// NewConv2d makes a convolution initialised as torch.nn.Conv2d is.
func NewConv2d(in, out, kernel int64, o Conv) *Conv2d {
	stride, groups := max(o.Stride, 1), max(o.Groups, 1)
	c := &Conv2d{In: in, Out: out, Kernel: kernel, stride: stride, padding: o.Padding, groups: groups}
	c.Weight = parameter(out, in/groups, kernel, kernel)
	initializer.KaimingUniform(&c.Weight, math.Sqrt(5), "fan_in", "leaky_relu")
	if o.Bias {
		c.Bias = parameter(out)
		uniformBias(&c.Bias, in/groups*kernel*kernel)
	}
	return c
}

// KaimingNormalFanOut draws the weight anew as torchvision does:
// kaiming_normal_(mode="fan_out", nonlinearity="relu"), bias 0.
func (c *Conv2d) KaimingNormalFanOut() {
	fanOut := c.Out * c.Kernel * c.Kernel
	initializer.Normal(&c.Weight, 0, math.Sqrt2/math.Sqrt(float64(fanOut)))
	if c.Bias.T != nil {
		initializer.Zeros(&c.Bias)
	}
}

// Entries lists weight and bias.
func (c *Conv2d) Entries() []Entry {
	e := []Entry{{Name: "weight", Tensor: c.Weight}}
	if c.Bias.T != nil {
		e = append(e, Entry{Name: "bias", Tensor: c.Bias})
	}
	return e
}

// Forward convolves [n, in, h, w].
func (c *Conv2d) Forward(p *Pass, x Tensor) Tensor {
	return p.Convolve(x, c.Weight, c.Bias, c.stride, c.padding, c.groups)
}

// BatchNorm2d is torch.nn.BatchNorm2d with momentum 0.1 and eps 1e-5 unless
// set otherwise.
type BatchNorm2d struct {
	leaf
	Weight, Bias, Mean, Var Tensor
	Batches                 int64 // num_batches_tracked
	Momentum, Eps           float64
	Frozen                  bool // normalise by the running statistics even while training
}

// NewBatchNorm2d makes a batch normalisation of c channels.
func NewBatchNorm2d(c int64) *BatchNorm2d {
	return &BatchNorm2d{Weight: filled(1, true, c), Bias: filled(0, true, c), Mean: filled(0, false, c), Var: filled(1, false, c),
		Momentum: 0.1, Eps: 1e-5}
}

// Entries lists weight, bias and running statistics.
func (b *BatchNorm2d) Entries() []Entry {
	return []Entry{
		{Name: "weight", Tensor: b.Weight},
		{Name: "bias", Tensor: b.Bias},
		{Name: "running_mean", Kind: Buffer, Tensor: b.Mean},
		{Name: "running_var", Kind: Buffer, Tensor: b.Var},
		{Name: "num_batches_tracked", Kind: Counter, Count: &b.Batches},
	}
}

// Forward normalises [n, c, h, w] by the batch in training, else by the
// running statistics.
func (b *BatchNorm2d) Forward(p *Pass, x Tensor) Tensor {
	return b.ForwardInto(p, x, Behind{})
}

// Behind is what follows a normalisation, done in the same step:
// activation(norm(x)*factors + other). Each part may be absent.
type Behind struct {
	Other      Tensor // a shortcut of the same shape
	Factors    Tensor // [n], of stochastic depth
	Activation Module // one that follows, nil for none
}

// ForwardInto normalises and does what is behind.
func (b *BatchNorm2d) ForwardInto(p *Pass, x Tensor, behind Behind) Tensor {
	training := p.Training && !b.Frozen
	if training {
		b.Batches++
	}
	n := torchx.Norm{Weight: b.Weight, Bias: b.Bias, Mean: b.Mean, Var: b.Var, Momentum: b.Momentum, Eps: b.Eps, Training: training}
	follow, _ := follows(behind.Activation)
	return p.Normalise(x, n, behind.Other, behind.Factors, follow)
}

// follows tells which activation a module is, if a normalisation can take it
// along.
func follows(m Module) (torchx.Activation, bool) {
	switch m := m.(type) {
	case *ReLU:
		return torchx.ReLU, true
	case *Activate:
		if m.Function.Follows() {
			return m.Function, true
		}
	}
	return torchx.None, false
}

func follower(m Module) bool {
	_, ok := follows(m)
	return ok
}

// EndsInNorm is a module whose last step is a normalisation, so that a
// shortcut can be added in the same step.
type EndsInNorm interface {
	Module
	ForwardInto(p *Pass, x Tensor, behind Behind) Tensor
}

// Linear is torch.nn.Linear.
type Linear struct {
	leaf
	Weight, Bias Tensor
	In, Out      int64
}

// NewLinear makes a linear layer initialised as torch.nn.Linear is.
func NewLinear(in, out int64) *Linear {
	l := &Linear{Weight: parameter(out, in), Bias: parameter(out), In: in, Out: out}
	initializer.KaimingUniform(&l.Weight, math.Sqrt(5), "fan_in", "leaky_relu")
	uniformBias(&l.Bias, in)
	return l
}

// Normal draws the weight anew from N(0, deviation^2), bias 0.
func (l *Linear) Normal(deviation float64) {
	initializer.Normal(&l.Weight, 0, deviation)
	initializer.Zeros(&l.Bias)
}

// Uniform draws the weight anew from -bound to bound, bias 0.
func (l *Linear) Uniform(bound float64) {
	initializer.Uniform(&l.Weight, -bound, bound)
	initializer.Zeros(&l.Bias)
}

// Entries lists weight and bias.
func (l *Linear) Entries() []Entry {
	return []Entry{{Name: "weight", Tensor: l.Weight}, {Name: "bias", Tensor: l.Bias}}
}

// Forward maps [n, in] to [n, out].
func (l *Linear) Forward(p *Pass, x Tensor) Tensor { return p.Keep(F.Linear(x, l.Weight, l.Bias)) }

// ReLU overwrites its input, as torchvision's does.
type ReLU struct{ leaf }

// Forward clamps at zero in place.
func (*ReLU) Forward(p *Pass, x Tensor) Tensor { return p.Activate(x, torchx.ReLU) }

// Sigmoid is 1/(1+exp(-x)).
type Sigmoid struct{ leaf }

// Forward applies it to each element.
func (*Sigmoid) Forward(p *Pass, x Tensor) Tensor { return p.Keep(torch.Sigmoid(x)) }

// MaxPool2d is torch.nn.MaxPool2d with square windows.
type MaxPool2d struct {
	leaf
	Kernel, Stride, Padding int64
}

// Forward takes the maximum of each window.
func (m *MaxPool2d) Forward(p *Pass, x Tensor) Tensor {
	return p.MaxPool(x, m.Kernel, m.Stride, m.Padding)
}

// AvgPool averages each channel over side x side windows of equal share and
// flattens: AdaptiveAvgPool2d(side) and Flatten(1).
type AvgPool struct {
	leaf
	Side int64
}

// Forward maps [n, c, h, w] to [n, c*side*side].
func (a *AvgPool) Forward(p *Pass, x Tensor) Tensor {
	pooled := p.Keep(F.AdaptiveAvgPool2d(x, []int64{a.Side, a.Side}))
	flat := p.Keep(torch.Flatten(pooled, 1, -1))
	p.Drop(pooled)
	return flat
}

// Dropout is torch.nn.Dropout.
type Dropout struct {
	leaf
	P float64
}

// Forward zeroes elements while training; else it hands its input on.
func (d *Dropout) Forward(p *Pass, x Tensor) Tensor {
	if !p.Training || d.P == 0 {
		return x
	}
	return p.KeepOr(torchx.Dropout(x, d.P, true))
}

// Sequential runs its parts in order; they are named "0", "1", ...
type Sequential struct {
	parts    []Module
	children []Child
}

// NewSequential makes a Sequential.
func NewSequential(ms ...Module) *Sequential {
	s := &Sequential{parts: ms}
	for i, m := range ms {
		s.children = append(s.children, Child{strconv.Itoa(i), m})
	}
	return s
}

// Entries is empty: the parts have the state.
func (s *Sequential) Entries() []Entry { return nil }

// Children lists the parts.
func (s *Sequential) Children() []Child { return s.children }

// Forward runs the parts.
func (s *Sequential) Forward(p *Pass, x Tensor) Tensor { return p.Chain(x, s.parts...) }

// ForwardInto runs the parts, the last of which ends in a normalisation.
func (s *Sequential) ForwardInto(p *Pass, x Tensor, behind Behind) Tensor {
	last := len(s.parts) - 1
	y := p.Chain(x, s.parts[:last]...)
	out := s.parts[last].(EndsInNorm).ForwardInto(p, y, behind)
	if y.T != x.T {
		p.Drop(y)
	}
	return out
}
