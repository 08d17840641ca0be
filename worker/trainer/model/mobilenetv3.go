//go:build libtorch

package model

import (
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// MobileNetV3 of Howard et al. (arXiv 1905.02244), width 1, as torchvision
// builds it. Its batch normalisation has eps 0.001 and momentum 0.01.
func init() {
	register("mobilenet_v3_small", func(o Options) Net {
		return newMobileNetV3([]bneck{
			{16, 3, 16, 16, true, false, 2},
			{16, 3, 72, 24, false, false, 2},
			{24, 3, 88, 24, false, false, 1},
			{24, 5, 96, 40, true, true, 2},
			{40, 5, 240, 40, true, true, 1},
			{40, 5, 240, 40, true, true, 1},
			{40, 5, 120, 48, true, true, 1},
			{48, 5, 144, 48, true, true, 1},
			{48, 5, 288, 96, true, true, 2},
			{96, 5, 576, 96, true, true, 1},
			{96, 5, 576, 96, true, true, 1},
		}, 1024, o)
	})
	register("mobilenet_v3_large", func(o Options) Net {
		return newMobileNetV3([]bneck{
			{16, 3, 16, 16, false, false, 1},
			{16, 3, 64, 24, false, false, 2},
			{24, 3, 72, 24, false, false, 1},
			{24, 5, 72, 40, true, false, 2},
			{40, 5, 120, 40, true, false, 1},
			{40, 5, 120, 40, true, false, 1},
			{40, 3, 240, 80, false, true, 2},
			{80, 3, 200, 80, false, true, 1},
			{80, 3, 184, 80, false, true, 1},
			{80, 3, 184, 80, false, true, 1},
			{80, 3, 480, 112, true, true, 1},
			{112, 3, 672, 112, true, true, 1},
			{112, 5, 672, 160, true, true, 2},
			{160, 5, 960, 160, true, true, 1},
			{160, 5, 960, 160, true, true, 1},
		}, 1280, o)
	})
}

// bneck is a row of the paper's tables 1 and 2.
type bneck struct {
	in, kernel, expanded, out int64
	squeeze                   bool // squeeze and excitation
	swish                     bool // hardswish instead of ReLU
	stride                    int64
}

func newMobileNetV3(rows []bneck, last int64, o Options) Net {
	const eps, momentum = 0.001, 0.01
	swish := &nn.Activate{Function: torchx.HardSwish}
	layers := []nn.Module{nn.ConvNorm{In: 3, Out: rows[0].in, Kernel: 3, Stride: 2, Activation: swish, Eps: eps, Momentum: momentum}.New()}
	for _, r := range rows {
		activation := nn.Module(&nn.ReLU{})
		if r.swish {
			activation = swish
		}
		var block []nn.Module
		if r.expanded != r.in {
			block = append(block, nn.ConvNorm{In: r.in, Out: r.expanded, Kernel: 1, Activation: activation, Eps: eps, Momentum: momentum}.New())
		}
		block = append(block, nn.ConvNorm{In: r.expanded, Out: r.expanded, Kernel: r.kernel, Stride: r.stride, Groups: r.expanded,
			Activation: activation, Eps: eps, Momentum: momentum}.New())
		if r.squeeze {
			block = append(block, nn.NewSqueezeExcitation(r.expanded, divisible(float64(r.expanded/4)),
				&nn.ReLU{}, &nn.Activate{Function: torchx.HardSigmoid}))
		}
		block = append(block, nn.ConvNorm{In: r.expanded, Out: r.out, Kernel: 1, Eps: eps, Momentum: momentum}.New())
		layers = append(layers, &inverted{name: "block", block: nn.NewSequential(block...), shortcut: r.stride == 1 && r.in == r.out})
	}
	in := rows[len(rows)-1].out
	layers = append(layers, nn.ConvNorm{In: in, Out: 6 * in, Kernel: 1, Activation: swish, Eps: eps, Momentum: momentum}.New())
	f := &features{
		features: nn.NewSequential(layers...),
		pool:     &nn.AvgPool{Side: 1},
		classifier: nn.NewSequential(nn.NewLinear(6*in, last), swish, &nn.Dropout{P: o.rate(0.2)},
			nn.NewLinear(last, int64(o.Classes))),
	}
	initialise(f, func(l *nn.Linear) { l.Normal(0.01) })
	return f.net()
}
