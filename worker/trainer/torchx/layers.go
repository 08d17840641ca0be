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

// StochasticDepth zeroes each row of a batch with probability p and scales the
// others by 1/(1-p) (Huang et al., arXiv 1603.09382). It draws one number a
// row from the device's generator, as torchvision does.
func StochasticDepth(t Tensor, p float64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_stochastic_depth(raw(t), C.double(p), &out))
	return wrap(out), err
}
