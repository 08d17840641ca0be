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

// BackwardScaled adds the gradients of loss*by: a share of a larger batch, or
// a loss lifted out of float16's smallest numbers.
func BackwardScaled(loss Tensor, by float64) error {
	if by == 1 {
		return Backward(loss)
	}
	return check(C.tx_backward_scaled(raw(loss), C.double(by)))
}

// SGDStep is one step of PyTorch's SGD with weight decay and momentum
// (dampening 0): d = g + decay*p; m = momentum*m + d; p -= lr*m, with nesterov
// lr*(d + momentum*m). momenta is empty when momentum is 0.
func SGDStep(params, momenta []Tensor, lr, momentum float64, nesterov bool, weightDecay float64) error {
	return check(C.tx_sgd_step(list(params), list(momenta), C.int(len(params)), C.double(lr), C.double(momentum), flag(nesterov), C.double(weightDecay)))
}

// AdamStep is step number step, from 1, of PyTorch's Adam (Kingma and Ba,
// arXiv 1412.6980) with weight decay added to the gradient, or, decoupled, of
// its AdamW (Loshchilov and Hutter, arXiv 1711.05101): p *= 1 - lr*decay first.
func AdamStep(params, first, second []Tensor, step int64, lr, beta1, beta2, eps, weightDecay float64, decoupled bool) error {
	return check(C.tx_adam_step(list(params), list(first), list(second), C.int(len(params)), C.int64_t(step),
		C.double(lr), C.double(beta1), C.double(beta2), C.double(eps), C.double(weightDecay), flag(decoupled)))
}

// RMSpropStep is one step of PyTorch's RMSprop, not centred: d = g + decay*p;
// s = alpha*s + (1-alpha)*d*d; u = d/(sqrt(s)+eps); p -= lr*u, with momentum
// m = momentum*m + u and p -= lr*m. momenta is empty when momentum is 0.
func RMSpropStep(params, squares, momenta []Tensor, lr, alpha, eps, momentum, weightDecay float64) error {
	return check(C.tx_rmsprop_step(list(params), list(squares), list(momenta), C.int(len(params)), C.double(lr), C.double(alpha), C.double(eps), C.double(momentum), C.double(weightDecay)))
}

// ClipGrads shrinks all gradients by one factor so that their norm together is
// at most maxNorm, as torch.nn.utils.clip_grad_norm_ does.
func ClipGrads(params []Tensor, maxNorm float64) error {
	return check(C.tx_clip_grads(list(params), C.int(len(params)), C.double(maxNorm)))
}

// UnscaleGrads multiplies all gradients and reports whether they are finite. It
// waits for a GPU.
func UnscaleGrads(params []Tensor, by float64) (finite bool, err error) {
	var ok C.int
	err = check(C.tx_unscale_grads(list(params), C.int(len(params)), C.double(by), &ok))
	return ok != 0, err
}

// Mix is share*a + (1-share)*b, recorded for backward.
func Mix(a, b Tensor, share float64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_mix(raw(a), raw(b), C.double(share), &out))
	return wrap(out), err
}

// Average moves averages towards values: a = decay*a + (1-decay)*v.
func Average(averages, values []Tensor, decay float64) error {
	return check(C.tx_average(list(averages), list(values), C.int(len(values)), C.double(decay)))
}

// Copy copies values over, tensor by tensor.
func Copy(to, from []Tensor) error {
	return check(C.tx_copy(list(to), list(from), C.int(len(from))))
}

// Swap exchanges the storage of tensors of the same shapes: nothing is copied,
// and whoever holds the tensors sees the other values.
func Swap(a, b []Tensor) error {
	return check(C.tx_swap(list(a), list(b), C.int(len(a))))
}
