//go:build libtorch

package model

import (
	"strconv"

	"atelier/worker/trainer/nn"
)

// ResNet of He et al. (arXiv 1512.03385), as torchvision builds it: names,
// shapes, and the order in which initial weights are drawn.
func init() {
	register("resnet18", func(o Options) Net { return newResNet([4]int{2, 2, 2, 2}, o) })
}

// basicBlock is two 3x3 convolutions beside a shortcut.
type basicBlock struct {
	conv1, conv2 *nn.Conv2d
	bn1, bn2     *nn.BatchNorm2d
	relu         *nn.ReLU
	downsample   *nn.Sequential // nil where the shapes agree
}

// newBasicBlock takes the downsample layer made before it: torchvision draws
// that one first.
func newBasicBlock(in, out, stride int64, downsample *nn.Sequential) *basicBlock {
	b := &basicBlock{relu: &nn.ReLU{}, downsample: downsample}
	b.conv1 = nn.NewConv2d(in, out, 3, nn.Conv{Stride: stride, Padding: 1})
	b.bn1 = nn.NewBatchNorm2d(out)
	b.conv2 = nn.NewConv2d(out, out, 3, nn.Conv{Padding: 1})
	b.bn2 = nn.NewBatchNorm2d(out)
	return b
}

func (b *basicBlock) Entries() []nn.Entry { return nil }

func (b *basicBlock) Children() []nn.Child {
	c := []nn.Child{{Name: "conv1", Module: b.conv1}, {Name: "bn1", Module: b.bn1}, {Name: "conv2", Module: b.conv2}, {Name: "bn2", Module: b.bn2}}
	if b.downsample != nil {
		c = append(c, nn.Child{Name: "downsample", Module: b.downsample})
	}
	return c
}

func (b *basicBlock) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	y := p.Chain(x, b.conv1, b.bn1, b.relu, b.conv2, b.bn2)
	if b.downsample == nil {
		y = p.AddInto(y, x)
	} else {
		shortcut := p.Forward(b.downsample, x)
		y = p.AddInto(y, shortcut)
		p.Drop(shortcut)
	}
	out := p.Forward(b.relu, y)
	p.Drop(y)
	return out
}

type resNet struct {
	conv1  *nn.Conv2d
	bn1    *nn.BatchNorm2d
	relu   *nn.ReLU
	pool   *nn.MaxPool2d
	layers [4]*nn.Sequential
	drop   *nn.Dropout
	avg    *nn.GlobalAvgPool
	fc     *nn.Linear
}

func newResNet(depths [4]int, o Options) Net {
	r := &resNet{relu: &nn.ReLU{}, pool: &nn.MaxPool2d{Kernel: 3, Stride: 2, Padding: 1}, avg: &nn.GlobalAvgPool{},
		drop: &nn.Dropout{P: max(o.Dropout, 0)}}
	r.conv1 = nn.NewConv2d(3, 64, 7, nn.Conv{Stride: 2, Padding: 3})
	r.bn1 = nn.NewBatchNorm2d(64)
	in := int64(64)
	for i, depth := range depths {
		out, stride := int64(64)<<i, int64(1)
		if i > 0 {
			stride = 2
		}
		var blocks []nn.Module
		for range depth {
			var down *nn.Sequential
			if stride != 1 || in != out {
				down = nn.NewSequential(nn.NewConv2d(in, out, 1, nn.Conv{Stride: stride}), nn.NewBatchNorm2d(out))
			}
			blocks = append(blocks, newBasicBlock(in, out, stride, down))
			in, stride = out, 1
		}
		r.layers[i] = nn.NewSequential(blocks...)
	}
	r.fc = nn.NewLinear(in, int64(o.Classes))
	nn.Walk(r, func(m nn.Module) {
		if c, ok := m.(*nn.Conv2d); ok {
			c.KaimingNormalFanOut()
		}
	})
	return Net{Root: r, CAM: "layer4." + strconv.Itoa(depths[3]-1), Head: "fc"}
}

func (r *resNet) Entries() []nn.Entry { return nil }

func (r *resNet) Children() []nn.Child {
	return []nn.Child{{Name: "conv1", Module: r.conv1}, {Name: "bn1", Module: r.bn1},
		{Name: "layer1", Module: r.layers[0]}, {Name: "layer2", Module: r.layers[1]},
		{Name: "layer3", Module: r.layers[2]}, {Name: "layer4", Module: r.layers[3]}, {Name: "fc", Module: r.fc}}
}

func (r *resNet) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	return p.Chain(x, r.conv1, r.bn1, r.relu, r.pool, r.layers[0], r.layers[1], r.layers[2], r.layers[3], r.avg, r.drop, r.fc)
}
