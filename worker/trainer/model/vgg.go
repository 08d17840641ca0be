//go:build libtorch

package model

import "atelier/worker/trainer/nn"

// VGG of Simonyan and Zisserman (arXiv 1409.1556), configurations A, B, D and
// E, as torchvision builds it without batch normalisation.
func init() {
	for name, stages := range map[string][5]int{
		"vgg11": {1, 1, 2, 2, 2}, "vgg13": {2, 2, 2, 2, 2}, "vgg16": {2, 2, 3, 3, 3}, "vgg19": {2, 2, 4, 4, 4},
	} {
		register(name, func(o Options) Net { return newVGG(stages, o) })
	}
}

// newVGG takes the number of convolutions before each pooling.
func newVGG(stages [5]int, o Options) Net {
	var layers []nn.Module
	in := int64(3)
	for i, n := range stages {
		out := min(int64(64)<<i, 512)
		for range n {
			layers = append(layers, nn.NewConv2d(in, out, 3, nn.Conv{Padding: 1, Bias: true}), &nn.ReLU{})
			in = out
		}
		layers = append(layers, &nn.MaxPool2d{Kernel: 2, Stride: 2})
	}
	rate := o.rate(0.5)
	f := &features{
		features: nn.NewSequential(layers...),
		pool:     &nn.AvgPool{Side: 7},
		classifier: nn.NewSequential(
			nn.NewLinear(512*7*7, 4096), &nn.ReLU{}, &nn.Dropout{P: rate},
			nn.NewLinear(4096, 4096), &nn.ReLU{}, &nn.Dropout{P: rate},
			nn.NewLinear(4096, int64(o.Classes))),
	}
	initialise(f, func(l *nn.Linear) { l.Normal(0.01) })
	return f.net()
}
