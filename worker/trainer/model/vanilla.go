//go:build libtorch

package model

import "atelier/worker/trainer/nn"

// VanillaCNN: the baseline. Four blocks of convolution 3x3 (no bias), batch
// normalisation, ReLU and 2x2 maximum pooling, 32 - 64 - 128 - 256 channels,
// then global average pooling, dropout 0.2 and one linear layer. 390,181
// parameters at 5 classes. State names, as in PyTorch:
//
//	features = Sequential(Conv2d, BatchNorm2d, ReLU, MaxPool2d, ... four times)
//	classifier = Sequential(Dropout, Linear)
//
// so features.{0,4,8,12} are the convolutions, features.{1,5,9,13} the
// normalisations and classifier.1 the head. Convolutions are drawn as
// torchvision draws ResNet's (kaiming normal, fan out).
func init() { register("vanilla", newVanilla) }

const vanillaDropout = 0.2

type vanilla struct {
	features   *nn.Sequential
	pool       *nn.GlobalAvgPool
	classifier *nn.Sequential
}

func newVanilla(o Options) Net {
	var layers []nn.Module
	in := int64(3)
	for _, out := range []int64{32, 64, 128, 256} {
		conv := nn.NewConv2d(in, out, 3, nn.Conv{Padding: 1})
		conv.KaimingNormalFanOut()
		layers = append(layers, conv, nn.NewBatchNorm2d(out), &nn.ReLU{}, &nn.MaxPool2d{Kernel: 2, Stride: 2})
		in = out
	}
	rate := o.Dropout
	if rate < 0 {
		rate = vanillaDropout
	}
	v := &vanilla{
		features:   nn.NewSequential(layers...),
		pool:       &nn.GlobalAvgPool{},
		classifier: nn.NewSequential(&nn.Dropout{P: rate}, nn.NewLinear(in, int64(o.Classes))),
	}
	return Net{Root: v, CAM: "features.14", Head: "classifier.1"}
}

func (v *vanilla) Entries() []nn.Entry { return nil }

func (v *vanilla) Children() []nn.Child {
	return []nn.Child{{Name: "features", Module: v.features}, {Name: "classifier", Module: v.classifier}}
}

func (v *vanilla) Forward(p *nn.Pass, x nn.Tensor) nn.Tensor {
	return p.Chain(x, v.features, v.pool, v.classifier)
}
