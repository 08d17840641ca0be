//go:build libtorch

package nn

import "atelier/worker/trainer/torchx"

// Activate is an activation layer; see Pass.Activate.
type Activate struct {
	leaf
	Function torchx.Activation
}

// Forward applies the function to each element.
func (a *Activate) Forward(p *Pass, x Tensor) Tensor { return p.Activate(x, a.Function) }

// StochasticDepth drops whole rows of a batch while training (torchvision's
// mode "row"). It has no Forward of its own: the normalisation before it takes
// its factors.
type StochasticDepth struct {
	leaf
	P      float64
	Frozen bool // drop nothing, as in evaluation
}

// Factors draws a factor for each row of x, or gives the zero Tensor where
// nothing is dropped.
func (s *StochasticDepth) Factors(p *Pass, x Tensor) Tensor {
	if s == nil || !p.Training || s.Frozen || s.P == 0 {
		return Tensor{}
	}
	return p.KeepOr(torchx.DepthFactors(x, s.P))
}

// Forward drops rows while training; else it hands its input on.
func (s *StochasticDepth) Forward(p *Pass, x Tensor) Tensor {
	factors := s.Factors(p, x)
	if factors.T == nil {
		return x
	}
	return p.ScaleRows(x, factors)
}

// ConvNorm describes torchvision's Conv2dNormActivation: a convolution
// without bias that keeps the size (but for its stride), a batch
// normalisation and, where there is one, an activation.
type ConvNorm struct {
	In, Out, Kernel, Stride, Groups int64
	Activation                      Module  // may be nil
	Eps, Momentum                   float64 // of the normalisation; 0 is PyTorch's default
}

// New builds it; its parts are named "0" (convolution), "1" and "2".
func (c ConvNorm) New() *Sequential {
	norm := NewBatchNorm2d(c.Out)
	if c.Eps != 0 {
		norm.Eps = c.Eps
	}
	if c.Momentum != 0 {
		norm.Momentum = c.Momentum
	}
	parts := []Module{NewConv2d(c.In, c.Out, c.Kernel, Conv{Stride: c.Stride, Padding: (c.Kernel - 1) / 2, Groups: c.Groups}), norm}
	if c.Activation != nil {
		parts = append(parts, c.Activation)
	}
	return NewSequential(parts...)
}

// SqueezeExcitation weighs channels by what global pooling and two 1x1
// convolutions make of them (Hu et al., arXiv 1709.01507).
type SqueezeExcitation struct {
	fc1, fc2     *Conv2d
	delta, sigma Module
}

// NewSqueezeExcitation squeezes channels into fewer; delta follows the first
// convolution, sigma the second.
func NewSqueezeExcitation(channels, squeezed int64, delta, sigma Module) *SqueezeExcitation {
	return &SqueezeExcitation{
		fc1:   NewConv2d(channels, squeezed, 1, Conv{Bias: true}),
		fc2:   NewConv2d(squeezed, channels, 1, Conv{Bias: true}),
		delta: delta, sigma: sigma,
	}
}

// Entries is empty: the convolutions have the state.
func (s *SqueezeExcitation) Entries() []Entry { return nil }

// Children lists the parts.
func (s *SqueezeExcitation) Children() []Child {
	return []Child{{"fc1", s.fc1}, {"fc2", s.fc2}, {"activation", s.delta}, {"scale_activation", s.sigma}}
}

// Forward maps [n, c, h, w] to the same shape.
func (s *SqueezeExcitation) Forward(p *Pass, x Tensor) Tensor {
	pooled, same := p.PoolBeside(x)
	scale := p.Chain(pooled, s.fc1, s.delta, s.fc2, s.sigma)
	p.Drop(pooled)
	out := p.ScaleChannels(same, scale)
	p.Drop(scale)
	if same.T != x.T {
		p.Drop(same)
	}
	return out
}
