//go:build libtorch

package model

import (
	"math"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// EfficientNet B0 to B4 of Tan and Le (arXiv 1905.11946), as torchvision
// builds them. Block i of n is dropped at rate 0.2 i/n while training.
func init() {
	for name, scale := range map[string]struct{ width, depth, dropout float64 }{
		"efficientnet_b0": {1.0, 1.0, 0.2},
		"efficientnet_b1": {1.0, 1.1, 0.2},
		"efficientnet_b2": {1.1, 1.2, 0.3},
		"efficientnet_b3": {1.2, 1.4, 0.3},
		"efficientnet_b4": {1.4, 1.8, 0.4},
	} {
		register(name, func(o Options) Net {
			return newEfficientNet(scale.width, scale.depth, o.rate(scale.dropout), o.Classes)
		})
	}
}

const efficientNetDepthRate = 0.2

// mbconv is a stage of the paper's table 1, for B0.
type mbconv struct{ expand, kernel, stride, in, out, blocks int64 }

var efficientNetB0 = []mbconv{
	{1, 3, 1, 32, 16, 1},
	{6, 3, 2, 16, 24, 2},
	{6, 5, 2, 24, 40, 2},
	{6, 3, 2, 40, 80, 3},
	{6, 5, 1, 80, 112, 3},
	{6, 5, 2, 112, 192, 4},
	{6, 3, 1, 192, 320, 1},
}

func newEfficientNet(width, depth, dropout float64, classes int) Net {
	stages, blocks := make([]mbconv, len(efficientNetB0)), int64(0)
	for i, s := range efficientNetB0 {
		s.in, s.out = divisible(float64(s.in)*width), divisible(float64(s.out)*width)
		s.blocks = int64(math.Ceil(float64(s.blocks) * depth))
		stages[i], blocks = s, blocks+s.blocks
	}
	silu := &nn.Activate{Function: torchx.SiLU}
	in, id := stages[0].in, int64(0)
	layers := []nn.Module{nn.ConvNorm{In: 3, Out: in, Kernel: 3, Stride: 2, Activation: silu}.New()}
	for _, s := range stages {
		var stage []nn.Module
		for range s.blocks {
			expanded := divisible(float64(s.in * s.expand))
			var block []nn.Module
			if expanded != s.in {
				block = append(block, nn.ConvNorm{In: s.in, Out: expanded, Kernel: 1, Activation: silu}.New())
			}
			block = append(block,
				nn.ConvNorm{In: expanded, Out: expanded, Kernel: s.kernel, Stride: s.stride, Groups: expanded, Activation: silu}.New(),
				nn.NewSqueezeExcitation(expanded, max(1, s.in/4), silu, &nn.Sigmoid{}),
				nn.ConvNorm{In: expanded, Out: s.out, Kernel: 1}.New())
			stage = append(stage, &inverted{name: "block", block: nn.NewSequential(block...), shortcut: s.stride == 1 && s.in == s.out,
				depth: &nn.StochasticDepth{P: efficientNetDepthRate * float64(id) / float64(blocks)}})
			s.in, s.stride = s.out, 1
			id++
		}
		layers = append(layers, nn.NewSequential(stage...))
	}
	in = stages[len(stages)-1].out
	layers = append(layers, nn.ConvNorm{In: in, Out: 4 * in, Kernel: 1, Activation: silu}.New())
	f := &features{
		features:   nn.NewSequential(layers...),
		pool:       &nn.AvgPool{Side: 1},
		classifier: nn.NewSequential(&nn.Dropout{P: dropout}, nn.NewLinear(4*in, int64(classes))),
	}
	initialise(f, func(l *nn.Linear) { l.Uniform(1 / math.Sqrt(float64(classes))) })
	return f.net()
}
