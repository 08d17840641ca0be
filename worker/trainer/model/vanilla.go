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

func newVanilla(o Options) Net {
	var layers []nn.Module
	in := int64(3)
	for _, out := range []int64{32, 64, 128, 256} {
		conv := nn.NewConv2d(in, out, 3, nn.Conv{Padding: 1})
		conv.KaimingNormalFanOut()
		layers = append(layers, conv, nn.NewBatchNorm2d(out), &nn.ReLU{}, &nn.MaxPool2d{Kernel: 2, Stride: 2})
		in = out
	}
	f := &features{
		features:   nn.NewSequential(layers...),
		pool:       &nn.AvgPool{Side: 1},
		classifier: nn.NewSequential(&nn.Dropout{P: o.rate(vanillaDropout)}, nn.NewLinear(in, int64(o.Classes))),
	}
	n := f.net()
	n.CAM = "features.14" // the last convolution after ReLU, before pooling
	return n
}
