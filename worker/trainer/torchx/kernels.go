//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

import "atelier/common/kernels"

// The kernels of common/kernels. Each Faster function gives the zero Tensor where
// its kernel is off or does not take these tensors: gotorch's function is the
// way then.

// UseKernels says which kernels are on, in the whole process; at first all are.
func UseKernels(on kernels.Set) { C.tx_use_kernels(C.uint32_t(on)) }

// Instructions names the instruction set of the kernels' loops on this CPU:
// avx512, avx2, plain.
func Instructions() string { return C.GoString(C.tx_instructions()) }

// taken is a kernel's result, or the zero Tensor.
func taken(out C.tx_tensor) Tensor {
	if out == nil {
		return Tensor{}
	}
	return wrap(out)
}

// FasterConvolve is a 2-d convolution with a square kernel, [n, in, h, w] to
// [n, out, h', w']; bias may be the zero Tensor.
func FasterConvolve(t, weight, bias Tensor, stride, padding, groups int64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_convolve(raw(t), raw(weight), raw(bias), C.int64_t(stride), C.int64_t(padding), C.int64_t(groups), &out))
	return taken(out), err
}

// Norm is a batch normalisation: parameters and running statistics, [c] each.
type Norm struct {
	Weight, Bias, Mean, Var Tensor
	Momentum, Eps           float64
	Training                bool // normalise by the batch and move the running statistics
}

// FasterNorm returns follow(norm(t)*factors + other) for t [n, c, h, w] in one
// step of autograd. other, of t's shape, and factors [n] may be zero Tensors.
func FasterNorm(t Tensor, n Norm, other, factors Tensor, follow Activation) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_norm(raw(t), raw(n.Weight), raw(n.Bias), raw(n.Mean), raw(n.Var), raw(other), raw(factors),
		flag(n.Training), C.double(n.Momentum), C.double(n.Eps), C.int(follow), &out))
	return taken(out), err
}

// FasterMaxPool takes the maximum of each square window of [n, c, h, w].
func FasterMaxPool(t Tensor, kernel, stride, padding int64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_max_pool(raw(t), C.int64_t(kernel), C.int64_t(stride), C.int64_t(padding), &out))
	return taken(out), err
}

// FasterPoolBeside averages each channel, [n, c, 1, 1], and hands the input on:
// who needs both takes both from here, and backward sums them in one pass.
func FasterPoolBeside(t Tensor) (pooled, same Tensor, err error) {
	var p, s C.tx_tensor
	err = check(C.tx_pool_beside(raw(t), &p, &s))
	return taken(p), taken(s), err
}

// FasterScaleChannels multiplies each channel of [n, c, h, w] by its factor,
// [n, c, 1, 1].
func FasterScaleChannels(t, factors Tensor) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_scale_channels(raw(t), raw(factors), &out))
	return taken(out), err
}
