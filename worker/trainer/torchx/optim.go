//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

// Backward adds the gradients of a scalar to its leaves.
func Backward(loss Tensor) error { return check(C.tx_backward(raw(loss))) }

// Grad returns a handle on a leaf's gradient; ok is false when it has none.
func Grad(t Tensor) (g Tensor, ok bool, err error) {
	var out C.tx_tensor
	if err := check(C.tx_grad(raw(t), &out)); err != nil || out == nil {
		return Tensor{}, false, err
	}
	return wrap(out), true, nil
}

// GradOf returns d score / d at for any tensor the score was computed from;
// the graph stays for further calls.
func GradOf(score, at Tensor) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_grad_of(raw(score), raw(at), &out))
	return wrap(out), err
}

// DropGrads forgets gradients. Backward then hands its own buffers over
// instead of adding into zeroed ones.
func DropGrads(params []Tensor) error {
	return check(C.tx_drop_grads(list(params), C.int(len(params))))
}

// SGDStep is one step of PyTorch's SGD with weight decay and momentum
// (dampening 0): m = momentum*m + (g + decay*p); p -= lr*m. momenta is empty
// when momentum is 0.
func SGDStep(params, momenta []Tensor, lr, momentum, weightDecay float64) error {
	return check(C.tx_sgd_step(list(params), list(momenta), C.int(len(params)), C.double(lr), C.double(momentum), C.double(weightDecay)))
}

// AdamStep is step number step, from 1, of PyTorch's Adam (Kingma and Ba,
// arXiv 1412.6980) with weight decay added to the gradient.
func AdamStep(params, first, second []Tensor, step int64, lr, beta1, beta2, eps, weightDecay float64) error {
	return check(C.tx_adam_step(list(params), list(first), list(second), C.int(len(params)), C.int64_t(step),
		C.double(lr), C.double(beta1), C.double(beta2), C.double(eps), C.double(weightDecay)))
}
