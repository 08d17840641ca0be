//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

// Activation is a function applied to each element.
type Activation int

// Activations. ReLU6, Sigmoid and HardSigmoid overwrite their input; SiLU and
// HardSwish make a new tensor, since backward needs the input.
const (
	SiLU        = Activation(C.TX_SILU)        // x sigmoid(x)
	HardSwish   = Activation(C.TX_HARDSWISH)   // x relu6(x+3)/6
	ReLU6       = Activation(C.TX_RELU6)       // min(max(x, 0), 6)
	Sigmoid     = Activation(C.TX_SIGMOID)     // 1/(1+exp(-x))
	HardSigmoid = Activation(C.TX_HARDSIGMOID) // relu6(x+3)/6
)

// Activate applies an activation.
func Activate(t Tensor, a Activation) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_activate(raw(t), C.int(a), &out))
	return wrap(out), err
}

// Multiply multiplies element by element; dimensions of length one are
// stretched.
func Multiply(a, b Tensor) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_multiply(raw(a), raw(b), &out))
	return wrap(out), err
}

// DepthFactors draws a factor for each of a batch's rows: 0 with probability p,
// else 1/(1-p). It draws one number a row from the device's generator, as
// torchvision's stochastic depth does (Huang et al., arXiv 1603.09382).
func DepthFactors(t Tensor, p float64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_depth_factors(raw(t), C.double(p), &out))
	return wrap(out), err
}

// ScaleRows multiplies each row of a batch by its factor, [n].
func ScaleRows(t, factors Tensor) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_scale_rows(raw(t), raw(factors), &out))
	return wrap(out), err
}

// Convolve is a 2-d convolution with a square kernel, [n, in, h, w] to
// [n, out, h', w']; bias may be the zero Tensor. Depthwise ones without bias
// run in loops of ours on the CPU where channels lie side by side.
func Convolve(t, weight, bias Tensor, stride, padding, groups int64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_convolve(raw(t), raw(weight), raw(bias), C.int64_t(stride), C.int64_t(padding), C.int64_t(groups), &out))
	return wrap(out), err
}

// Follow is what comes after a normalisation.
type Follow int

// Followers.
const (
	FollowNone      = Follow(C.TX_FOLLOW_NONE)
	FollowReLU      = Follow(C.TX_FOLLOW_RELU)
	FollowReLU6     = Follow(C.TX_FOLLOW_RELU6)
	FollowSiLU      = Follow(C.TX_FOLLOW_SILU)
	FollowHardSwish = Follow(C.TX_FOLLOW_HARDSWISH)
)

// Norm is a batch normalisation: parameters and running statistics, [c] each.
type Norm struct {
	Weight, Bias, Mean, Var Tensor
	Momentum, Eps           float64
	Training                bool // normalise by the batch and move the running statistics
}

// Normalise returns follow(norm(t)*factor + other) for t [n, c, h, w] in one
// step of autograd. other, of t's shape, and factor [n] may be zero Tensors.
func Normalise(t Tensor, n Norm, other, factor Tensor, follow Follow) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_norm(raw(t), raw(n.Weight), raw(n.Bias), raw(n.Mean), raw(n.Var), raw(other), raw(factor),
		flag(n.Training), C.double(n.Momentum), C.double(n.Eps), C.int(follow), &out))
	return wrap(out), err
}

// MaxPool takes the maximum of each square window of [n, c, h, w].
func MaxPool(t Tensor, kernel, stride, padding int64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_max_pool(raw(t), C.int64_t(kernel), C.int64_t(stride), C.int64_t(padding), &out))
	return wrap(out), err
}

// PoolBeside averages each channel, [n, c, 1, 1], and hands the input on: who
// needs both takes both from here, and backward sums them in one pass.
func PoolBeside(t Tensor) (pooled, same Tensor, err error) {
	var p, s C.tx_tensor
	err = check(C.tx_pool_beside(raw(t), &p, &s))
	return wrap(p), wrap(s), err
}

// ScaleChannels multiplies each channel of [n, c, h, w] by its factor,
// [n, c, 1, 1].
func ScaleChannels(t, factors Tensor) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_scale_channels(raw(t), raw(factors), &out))
	return wrap(out), err
}

// Kernels names the instruction set of the loops in use: avx512, avx2, plain.
func Kernels() string { return C.GoString(C.tx_kernels()) }
