//go:build libtorch

package model

import (
	"strconv"

	"atelier/common/onnx"
	"atelier/worker/trainer/nn"
)

// ResNet of He et al. (arXiv 1512.03385), as torchvision builds it: names,
// shapes, and the order in which initial weights are drawn. ResNet has no
// dropout of its own; Options.Dropout puts one before the head.
func init() {
	for name, depths := range map[string][4]int{"resnet18": {2, 2, 2, 2}, "resnet34": {3, 4, 6, 3}} {
		register(name, func(o Options) Net { return newResNet(depths, false, o) })
	}
	for name, depths := range map[string][4]int{"resnet50": {3, 4, 6, 3}, "resnet101": {3, 4, 23, 3}, "resnet152": {3, 8, 36, 3}} {
		register(name, func(o Options) Net { return newResNet(depths, true, o) })
	}
}

// residual is a block of convolutions beside a shortcut: two of 3x3, or in a
// bottleneck 1x1, 3x3 (which has the stride) and 1x1 to four times the width.
type residual struct {
	convs      []*nn.Conv2d
	norms      []*nn.BatchNorm2d
	relu       *nn.ReLU
	downsample *nn.Sequential // nil where the shapes agree
	path       *nn.Sequential // convolutions, norms and ReLUs in order, the last ReLU apart
}

// newResidual takes the downsample layer made before it: torchvision draws
// that one first.
func newResidual(bottleneck bool, in, width, stride int64, downsample *nn.Sequential) *residual {
	b := &residual{relu: &nn.ReLU{}, downsample: downsample}
	var path []nn.Module
	add := func(in, out, kernel, stride int64) {
		conv, norm := nn.NewConv2d(in, out, kernel, nn.Conv{Stride: stride, Padding: kernel / 2}), nn.NewBatchNorm2d(out)
		if len(b.convs) > 0 {
			path = append(path, b.relu)
		}
		b.convs, b.norms, path = append(b.convs, conv), append(b.norms, norm), append(path, conv, norm)
	}
	if bottleneck {
		add(in, width, 1, 1)
		add(width, width, 3, stride)
		add(width, 4*width, 1, 1)
	} else {
		add(in, width, 3, stride)
		add(width, width, 3, 1)
	}
	b.path = nn.NewSequential(path...)
	return b
}

func (b *residual) Entries() []nn.Entry { return nil }

func (b *residual) Children() []nn.Child {
	var c []nn.Child
	for i := range b.convs {
		n := strconv.Itoa(i + 1)
		c = append(c, nn.Child{Name: "conv" + n, Module: b.convs[i]}, nn.Child{Name: "bn" + n, Module: b.norms[i]})
	}
	if b.downsample != nil {
		c = append(c, nn.Child{Name: "downsample", Module: b.downsample})
	}
	return c
}

func (b *residual) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	shortcut := x
	if b.downsample != nil {
		shortcut = p.Forward(b.downsample, x)
	}
	out := b.path.ForwardInto(p, x, nn.Behind{Other: shortcut, Activation: b.relu})
	if b.downsample != nil {
		p.Drop(shortcut)
	}
	return out
}

func (b *residual) Graph(g *nn.Graph, x onnx.Value) onnx.Value {
	shortcut := x
	if b.downsample != nil {
		shortcut = b.downsample.Graph(g, x)
	}
	return b.relu.Graph(g, g.Add(b.path.Graph(g, x), shortcut))
}

type resNet struct {
	conv1  *nn.Conv2d
	bn1    *nn.BatchNorm2d
	relu   *nn.ReLU
	pool   *nn.MaxPool2d
	layers [4]*nn.Sequential
	avg    *nn.AvgPool
	drop   *nn.Dropout
	fc     *nn.Linear
}

func newResNet(depths [4]int, bottleneck bool, o Options) Net {
	r := &resNet{relu: &nn.ReLU{}, pool: &nn.MaxPool2d{Kernel: 3, Stride: 2, Padding: 1}, avg: &nn.AvgPool{Side: 1},
		drop: &nn.Dropout{P: o.rate(0)}}
	r.conv1 = nn.NewConv2d(3, 64, 7, nn.Conv{Stride: 2, Padding: 3})
	r.bn1 = nn.NewBatchNorm2d(64)
	in := int64(64)
	for i, depth := range depths {
		width, stride := int64(64)<<i, int64(1)
		if i > 0 {
			stride = 2
		}
		out := width
		if bottleneck {
			out = 4 * width
		}
		var blocks []nn.Module
		for range depth {
			var down *nn.Sequential
			if stride != 1 || in != out {
				down = nn.NewSequential(nn.NewConv2d(in, out, 1, nn.Conv{Stride: stride}), nn.NewBatchNorm2d(out))
			}
			blocks = append(blocks, newResidual(bottleneck, in, width, stride, down))
			in, stride = out, 1
		}
		r.layers[i] = nn.NewSequential(blocks...)
	}
	r.fc = nn.NewLinear(in, int64(o.Classes))
	initialise(r, nil)
	return Net{Root: r, CAM: "layer4." + strconv.Itoa(depths[3]-1), Head: "fc"}
}

func (r *resNet) Entries() []nn.Entry { return nil }

func (r *resNet) Children() []nn.Child {
	return []nn.Child{{Name: "conv1", Module: r.conv1}, {Name: "bn1", Module: r.bn1},
		{Name: "layer1", Module: r.layers[0]}, {Name: "layer2", Module: r.layers[1]},
		{Name: "layer3", Module: r.layers[2]}, {Name: "layer4", Module: r.layers[3]}, {Name: "fc", Module: r.fc}}
}

func (r *resNet) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	return p.Chain(x, r.parts()...)
}

func (r *resNet) Graph(g *nn.Graph, x onnx.Value) onnx.Value { return g.Chain(x, r.parts()...) }

// parts in the order in which they run.
func (r *resNet) parts() []nn.Module {
	return []nn.Module{r.conv1, r.bn1, r.relu, r.pool, r.layers[0], r.layers[1], r.layers[2], r.layers[3], r.avg, r.drop, r.fc}
}
