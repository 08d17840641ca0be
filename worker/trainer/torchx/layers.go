//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

// Activation is a function applied to each element.
type Activation int

// Activations. ReLU is gotorch's to apply by itself; of the others ReLU6 and
// HardSigmoid overwrite their input, SiLU and HardSwish make a new tensor,
// since backward needs the input.
const (
	None        = Activation(C.TX_NONE)
	ReLU        = Activation(C.TX_RELU)
	ReLU6       = Activation(C.TX_RELU6)       // min(max(x, 0), 6)
	SiLU        = Activation(C.TX_SILU)        // x sigmoid(x)
	HardSwish   = Activation(C.TX_HARDSWISH)   // x relu6(x+3)/6
	HardSigmoid = Activation(C.TX_HARDSIGMOID) // relu6(x+3)/6
)

// Follows reports whether the kernel of batch normalisation takes the
// activation along.
func (a Activation) Follows() bool { return a <= HardSwish }

// Activate applies an activation that gotorch lacks.
func Activate(t Tensor, a Activation) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_activate(raw(t), C.int(a), &out))
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
