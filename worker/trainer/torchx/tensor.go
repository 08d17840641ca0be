//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// Info is a tensor's element type and shape.
type Info struct {
	DType DType
	Shape []int64
}

// Len is the number of elements.
func (i Info) Len() int64 {
	n := int64(1)
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// Describe returns a tensor's type and shape.
func Describe(t Tensor) (Info, error) {
	var dtype, dims C.int
	var shape [8]C.int64_t
	if err := check(C.tx_info(raw(t), &dtype, &dims, &shape[0])); err != nil {
		return Info{}, err
	}
	i := Info{DType: DType(dtype), Shape: make([]int64, dims)}
	for k := range i.Shape {
		i.Shape[k] = int64(shape[k])
	}
	return i, nil
}

// FromBytes makes a tensor from contiguous little-endian elements.
func FromBytes(data []byte, d DType, shape []int64) (Tensor, error) {
	n := Info{d, shape}.Len()
	if int64(len(data)) != n*int64(d.Size()) {
		return Tensor{}, fmt.Errorf("torchx: %d bytes for a tensor of shape %v with elements of %d bytes", len(data), shape, d.Size())
	}
	var first *C.int64_t
	if len(shape) > 0 {
		first = (*C.int64_t)(unsafe.Pointer(&shape[0]))
	}
	var out C.tx_tensor
	if err := check(C.tx_from_raw(unsafe.Pointer(unsafe.SliceData(data)), C.int(d), first, C.int(len(shape)), &out)); err != nil {
		return Tensor{}, err
	}
	return wrap(out), nil
}

// FromFloats makes a float32 tensor.
func FromFloats(data []float32, shape ...int64) (Tensor, error) {
	return FromBytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), 4*len(data)), F32, shape)
}

// Bytes copies a tensor's elements out, in contiguous order whatever the
// layout and device.
func Bytes(t Tensor) ([]byte, error) {
	i, err := Describe(t)
	if err != nil {
		return nil, err
	}
	b := make([]byte, i.Len()*int64(i.DType.Size()))
	return b, CopyOut(t, b)
}

// CopyOut is Bytes into memory the caller has; the length must be right.
func CopyOut(t Tensor, dst []byte) error {
	return check(C.tx_to_raw(raw(t), unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst))))
}

// Floats copies a float32 tensor's elements out.
func Floats(t Tensor) ([]float32, error) {
	i, err := Describe(t)
	if err != nil {
		return nil, err
	}
	if i.DType != F32 {
		return nil, fmt.Errorf("torchx: elements are of type %d, not float32", i.DType)
	}
	v := make([]float32, i.Len())
	return v, check(C.tx_to_raw(raw(t), unsafe.Pointer(unsafe.SliceData(v)), C.size_t(4*len(v))))
}

// Fill writes contiguous elements into a tensor in place: layout, device and
// identity stay.
func Fill(t Tensor, data []byte) error {
	return check(C.tx_fill_raw(raw(t), unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data))))
}

// Move puts a tensor on a device and into a layout, in place.
func Move(t Tensor, d Device, channelsLast bool) error {
	return check(C.tx_move(raw(t), d.name, flag(channelsLast)))
}

// IsChannelsLast tells a 4-d tensor's layout.
func IsChannelsLast(t Tensor) (bool, error) {
	var yes C.int
	err := check(C.tx_is_channels_last(raw(t), &yes))
	return yes != 0, err
}

// RequireGrad turns recording for a leaf on or off.
func RequireGrad(t Tensor, on bool) error { return check(C.tx_requires_grad(raw(t), flag(on))) }

// ZerosLike makes a tensor of the same shape, type, device and layout.
func ZerosLike(t Tensor) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_zeros_like(raw(t), &out))
	return wrap(out), err
}

// Item reads a tensor of one element.
func Item(t Tensor) (float64, error) {
	var v C.double
	err := check(C.tx_item(raw(t), &v))
	return float64(v), err
}

// Images turns n images of interleaved bytes (height, width, channel) into a
// float batch [n, channels, height, width] on a device: x*scale[c] + shift[c].
func Images(pixels []byte, n, height, width int, scale, shift []float32, d Device, channelsLast bool) (Tensor, error) {
	c := len(scale)
	if n < 1 || len(pixels) != n*height*width*c || len(shift) != c {
		return Tensor{}, fmt.Errorf("torchx: %d bytes are not %d images of %dx%dx%d", len(pixels), n, height, width, c)
	}
	var out C.tx_tensor
	err := check(C.tx_images(unsafe.Pointer(&pixels[0]), C.int64_t(n), C.int64_t(height), C.int64_t(width), C.int64_t(c),
		(*C.float)(unsafe.Pointer(&scale[0])), (*C.float)(unsafe.Pointer(&shift[0])), d.name, flag(channelsLast), &out))
	return wrap(out), err
}

// Labels makes a tensor of class numbers on a device.
func Labels(labels []int64, d Device) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_labels((*C.int64_t)(unsafe.Pointer(unsafe.SliceData(labels))), C.int64_t(len(labels)), d.name, &out))
	return wrap(out), err
}

// Softmax over a dimension.
func Softmax(t Tensor, dim int) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_softmax(raw(t), C.int64_t(dim), &out))
	return wrap(out), err
}

// Dropout zeroes elements with probability p and scales the rest by 1/(1-p)
// while training; it draws from the device's generator.
func Dropout(t Tensor, p float64, training bool) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_dropout(raw(t), C.double(p), flag(training), &out))
	return wrap(out), err
}

// CrossEntropy is torch.nn.CrossEntropyLoss(weight, label_smoothing=smoothing)
// of logits [n, classes] against labels [n], in float32. weights [classes] may
// be the zero Tensor; with them the mean is over the sum of the labels'
// weights. (gotorch's leaks the C string of its reduction at each call.)
func CrossEntropy(logits, labels, weights Tensor, smoothing float64) (Tensor, error) {
	var out C.tx_tensor
	err := check(C.tx_cross_entropy(raw(logits), raw(labels), raw(weights), C.double(smoothing), &out))
	return wrap(out), err
}

// Tally adds loss*n, correct answers and n to a float64 tensor of three, on
// its device: nothing waits for a GPU until the tally is read.
func Tally(tally, logits, labels, loss Tensor) error {
	return check(C.tx_tally(raw(tally), raw(logits), raw(labels), raw(loss)))
}
