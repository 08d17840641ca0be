//go:build libtorch

package model

import (
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// MobileNetV2 of Sandler et al. (arXiv 1801.04381), width 1, as torchvision
// builds it.
func init() { register("mobilenet_v2", newMobileNetV2) }

func newMobileNetV2(o Options) Net {
	relu6 := &nn.Activate{Function: torchx.ReLU6}
	layers := []nn.Module{nn.ConvNorm{In: 3, Out: 32, Kernel: 3, Stride: 2, Activation: relu6}.New()}
	in := int64(32)
	for _, stage := range []struct{ expand, out, blocks, stride int64 }{
		{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
	} {
		stride := stage.stride
		for range stage.blocks {
			hidden := in * stage.expand
			var block []nn.Module
			if stage.expand != 1 {
				block = append(block, nn.ConvNorm{In: in, Out: hidden, Kernel: 1, Activation: relu6}.New())
			}
			block = append(block,
				nn.ConvNorm{In: hidden, Out: hidden, Kernel: 3, Stride: stride, Groups: hidden, Activation: relu6}.New(),
				nn.NewConv2d(hidden, stage.out, 1, nn.Conv{}), nn.NewBatchNorm2d(stage.out))
			layers = append(layers, &inverted{name: "conv", block: nn.NewSequential(block...), shortcut: stride == 1 && in == stage.out})
			in, stride = stage.out, 1
		}
	}
	layers = append(layers, nn.ConvNorm{In: in, Out: 1280, Kernel: 1, Activation: relu6}.New())
	f := &features{
		features:   nn.NewSequential(layers...),
		pool:       &nn.AvgPool{Side: 1},
		classifier: nn.NewSequential(&nn.Dropout{P: o.rate(0.2)}, nn.NewLinear(1280, int64(o.Classes))),
	}
	initialise(f, func(l *nn.Linear) { l.Normal(0.01) })
	return f.net()
}
