//go:build libtorch

// Package torchx extends gotorch with what training in a long-lived process
// needs of libtorch: errors in place of aborts and panics, tensors freed when
// the caller says so, memory layout, gradient and autocast modes, random
// state, raw bytes in and out, and optimisers whose state can be stored.
//
// A Tensor is gotorch's Tensor, so that every gotorch function takes it. One
// rule of its own: no finalizer. Tensors from this package, and those of
// gotorch after Own, live until Free. Waiting for the garbage collector would
// let hundreds of megabytes of activations pile up between two collections.
//
// Gradient mode, autocast and thread count belong to an operating system
// thread: lock the goroutine (runtime.LockOSThread) before using them.
//
// The package refuses nothing it can leave to libtorch; it turns libtorch's
// refusals into *Error.
package torchx

// #include "torchx.h"
import "C"

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// Tensor is gotorch's tensor.
type Tensor = torch.Tensor

// Class says what kind of failure an Error is.
type Class uint8

// Classes of errors.
const (
	Other Class = iota
	OutOfMemory
	DeviceFault
)

// Error is a failure reported by libtorch.
type Error struct {
	Class Class
	Text  string
}

func (e *Error) Error() string { return "libtorch: " + e.Text }

// newError classifies libtorch's text, the only thing it gives away.
func newError(text string) *Error {
	text = strings.TrimSpace(text)
	if i := strings.Index(text, "\nException raised from"); i > 0 {
		text = text[:i] // gotorch hands over the C++ backtrace as well
	}
	c := Other
	switch {
	case strings.Contains(text, "out of memory"),
		strings.Contains(text, "not enough memory"),
		strings.Contains(text, "can't allocate memory"),
		strings.Contains(text, "std::bad_alloc"),
		strings.Contains(text, "CUBLAS_STATUS_ALLOC_FAILED"):
		c = OutOfMemory
	case strings.Contains(text, "CUDA error"),
		strings.Contains(text, "CUDNN_STATUS"),
		strings.Contains(text, "cuDNN error"),
		strings.Contains(text, "CUBLAS_STATUS"):
		c = DeviceFault
	}
	return &Error{Class: c, Text: text}
}

func check(e C.tx_error) error {
	if e == nil {
		return nil
	}
	text := C.GoString(e)
	C.tx_free_text(e)
	return newError(text)
}

// Must panics with the error; Catch at the top of a step turns it back. Layers
// are written with it, as gotorch's own are, so that a forward pass reads as
// arithmetic.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Catch runs f and returns as an error what libtorch refused in it: gotorch
// panics with libtorch's text, Must with an error. Other panics, faults of
// ours, go on.
func Catch(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *Error:
			err = p
		case string:
			err = newError(p)
		default:
			panic(p)
		}
	}()
	return f()
}

// Version of the libtorch in use.
func Version() string { return C.GoString(C.tx_version()) }

// Init sets libtorch's allocator up. Call it once, before the first tensor.
func Init() error { return check(C.tx_init()) }

// Memory is what tensors on the CPU hold, in bytes.
type Memory struct{ Live, Peak uint64 }

// MemoryNow tells what tensors made since Init hold, and the most they held
// since then or since MemoryFromHere.
func MemoryNow() (m Memory) {
	var live, peak C.uint64_t
	C.tx_memory(&live, &peak)
	return Memory{uint64(live), uint64(peak)}
}

// MemoryFromHere makes the peak that of what follows.
func MemoryFromHere() { C.tx_memory_from_here() }

// SetThreads sets how many threads an operation called from here may use.
func SetThreads(n int) error { return check(C.tx_set_threads(C.int(n))) }

// LoopThreads is how many threads share a loop of this library's own that is called
// from here: what SetThreads set, if it was built with OpenMP as libtorch was.
func LoopThreads() (n int, err error) {
	var threads C.int64_t
	err = check(C.tx_hands(&threads))
	return int(threads), err
}

// HasBF16 reports whether this CPU multiplies bfloat16 in hardware.
func HasBF16() bool { return C.tx_has_bf16() != 0 }

// DeviceReady returns an error that says why a device cannot be used.
func DeviceReady(d Device) error { return check(C.tx_device_ready(d.name)) }

// Synchronize waits for what was started on a device.
func Synchronize(d Device) error { return check(C.tx_synchronize(d.name)) }

// SetDeterministic makes cuDNN choose kernels whose results repeat exactly.
func SetDeterministic(on bool) error { return check(C.tx_deterministic(flag(on))) }

// Device is a place for tensors. Make few: each holds a C string for good.
type Device struct{ name *C.char }

// CPU is the host.
var CPU = NewDevice("cpu")

// NewDevice names a device: "cpu", "cuda", "cuda:1".
func NewDevice(name string) Device { return Device{C.CString(name)} }

func (d Device) String() string { return C.GoString(d.name) }

// CUDA reports whether it is a GPU.
func (d Device) CUDA() bool { return strings.HasPrefix(d.String(), "cuda") }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// NoGrad runs f without recording for backward.
func NoGrad(f func() error) error {
	var before, ignored C.int
	C.tx_grad_mode(0, &before)
	defer func() { C.tx_grad_mode(before, &ignored) }()
	return f()
}

// Precision is the arithmetic of convolutions and matrix products; parameters
// stay float32 always.
type Precision uint8

// Precisions.
const (
	FP32 Precision = iota
	BF16
	FP16
)

// Autocast runs f with the operations that tolerate it in a lower precision.
// Backward needs no autocast: it follows what forward recorded.
func Autocast(d Device, p Precision, f func() error) error {
	if p == FP32 {
		return f()
	}
	if err := check(C.tx_autocast(d.name, flag(p == BF16), 1)); err != nil {
		return err
	}
	defer C.tx_autocast(d.name, flag(p == BF16), 0)
	return f()
}

// Seed sets the generators of the CPU and of every GPU.
func Seed(seed uint64) error { return check(C.tx_seed(C.uint64_t(seed))) }

// RandomState is a generator's state, opaque bytes.
func RandomState(d Device) ([]byte, error) {
	var t C.tx_tensor
	if err := check(C.tx_rng_get(d.name, &t)); err != nil {
		return nil, err
	}
	state := wrap(t)
	defer Free(state)
	return Bytes(state)
}

// SetRandomState puts a generator into a state RandomState gave.
func SetRandomState(d Device, state []byte) error {
	t, err := FromBytes(state, U8, []int64{int64(len(state))})
	if err != nil {
		return err
	}
	defer Free(t)
	return check(C.tx_rng_set(d.name, raw(t)))
}

// raw is the at::Tensor* behind a tensor.
func raw(t Tensor) C.tx_tensor {
	if t.T == nil {
		return nil
	}
	return C.tx_tensor(*t.T)
}

func wrap(c C.tx_tensor) Tensor {
	p := new(unsafe.Pointer)
	*p = unsafe.Pointer(c)
	return Tensor{T: p}
}

// Own takes gotorch's finalizer off a tensor: from now on Free ends it.
func Own(t Tensor) Tensor {
	if t.T != nil {
		runtime.SetFinalizer(t.T, nil)
	}
	return t
}

// Free gives up handles. The memory goes when the last holder does: autograd
// keeps what backward needs. Freeing twice, or a zero Tensor, is harmless.
func Free(ts ...Tensor) {
	for _, t := range ts {
		if t.T != nil && *t.T != nil {
			C.tx_free(C.tx_tensor(*t.T))
			*t.T = nil
		}
	}
}

// list makes an array of pointers for C. The array is Go's, what it points at
// is C's, as cgo demands.
func list(ts []Tensor) *C.tx_tensor {
	if len(ts) == 0 {
		return nil
	}
	ps := make([]C.tx_tensor, len(ts))
	for i, t := range ts {
		ps[i] = raw(t)
	}
	return &ps[0]
}

// DType is libtorch's number for an element type.
type DType int8

// Element types, as gotorch numbers them.
const (
	U8       = DType(torch.Byte)
	I32      = DType(torch.Int)
	I64      = DType(torch.Long)
	F16      = DType(torch.Half)
	F32      = DType(torch.Float)
	F64      = DType(torch.Double)
	Bool     = DType(torch.Bool)
	BF16Type = DType(torch.BFloat16)
)

// Size of an element in bytes.
func (d DType) Size() int {
	switch d {
	case U8, Bool:
		return 1
	case F16, BF16Type:
		return 2
	case I32, F32:
		return 4
	case I64, F64:
		return 8
	}
	panic(fmt.Sprintf("torchx: element type %d has no size here", d))
}
