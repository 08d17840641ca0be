//go:build libtorch

package model

import (
	"strconv"

	"atelier/common/onnx"
	"atelier/worker/trainer/nn"
)

// features is the form VGG, MobileNet and EfficientNet share: a sequence of
// layers, average pooling and a classifier, named features and classifier.
type features struct {
	features   *nn.Sequential
	pool       *nn.AvgPool
	classifier *nn.Sequential
}

// net looks for Grad-CAM at the last of the features and for the head at the
// last of the classifier.
func (f *features) net() Net {
	last := func(s *nn.Sequential) string { return strconv.Itoa(len(s.Children()) - 1) }
	return Net{Root: f, CAM: "features." + last(f.features), Head: "classifier." + last(f.classifier)}
}

func (f *features) Entries() []nn.Entry { return nil }

func (f *features) Children() []nn.Child {
	return []nn.Child{{Name: "features", Module: f.features}, {Name: "classifier", Module: f.classifier}}
}

func (f *features) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	return p.Chain(x, f.features, f.pool, f.classifier)
}

func (f *features) Graph(g *nn.Graph, x onnx.Value) onnx.Value {
	return g.Chain(x, f.features, f.pool, f.classifier)
}

// inverted is the inverted residual block of MobileNet and EfficientNet: its
// output is added to its input where shapes agree.
type inverted struct {
	name     string // of the sequence: "conv" or "block"
	block    *nn.Sequential
	depth    *nn.StochasticDepth // may be nil
	shortcut bool
}

func (b *inverted) Entries() []nn.Entry { return nil }

func (b *inverted) Children() []nn.Child {
	c := []nn.Child{{Name: b.name, Module: b.block}}
	if b.depth != nil {
		c = append(c, nn.Child{Name: "stochastic_depth", Module: b.depth})
	}
	return c
}

func (b *inverted) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	if !b.shortcut {
		return p.Forward(b.block, x)
	}
	return b.block.ForwardInto(p, x, nn.Behind{Other: x, Factors: b.depth.Factors(p, x)})
}

func (b *inverted) Graph(g *nn.Graph, x onnx.Value) onnx.Value {
	y := b.block.Graph(g, x)
	if b.shortcut {
		y = g.Add(y, x)
	}
	return y
}

// initialise draws convolutions, and with linear the linear layers, anew:
// torchvision does so after construction, in order of registration.
func initialise(root nn.Module, linear func(*nn.Linear)) {
	nn.Walk(root, func(m nn.Module) {
		switch m := m.(type) {
		case *nn.Conv2d:
			m.KaimingNormalFanOut()
		case *nn.Linear:
			if linear != nil {
				linear(m)
			}
		}
	})
}

// divisible rounds a number of channels to the nearest multiple of 8, never
// down by more than a tenth.
func divisible(channels float64) int64 {
	n := max(8, int64(channels+4)/8*8)
	if float64(n) < 0.9*channels {
		n += 8
	}
	return n
}
