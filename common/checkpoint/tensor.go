package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types that can be stored.
const (
	F32 DType = iota + 1
	F64
	F16
	BF16
	I8
	I16
	I32
	I64
	U8
	Bool
)

var dtypes = map[DType]struct {
	name    string // torch.<name>
	storage string // torch.<storage>
	size    int
}{
	F32:  {"float32", "FloatStorage", 4},
	F64:  {"float64", "DoubleStorage", 8},
	F16:  {"float16", "HalfStorage", 2},
	BF16: {"bfloat16", "BFloat16Storage", 2},
	I8:   {"int8", "CharStorage", 1},
	I16:  {"int16", "ShortStorage", 2},
	I32:  {"int32", "IntStorage", 4},
	I64:  {"int64", "LongStorage", 8},
	U8:   {"uint8", "ByteStorage", 1},
	Bool: {"bool", "BoolStorage", 1},
}

func (t DType) String() string {
	if d, ok := dtypes[t]; ok {
		return d.name
	}
	return fmt.Sprintf("DType(%d)", uint8(t))
}

// Size is the number of bytes of an element; 0 for an unknown type.
func (t DType) Size() int { return dtypes[t].size }

func dtypeBy(match func(name, storage string) bool) (DType, bool) {
	for t := F32; t <= Bool; t++ {
		if match(dtypes[t].name, dtypes[t].storage) {
			return t, true
		}
	}
	return 0, false
}

// Tensor is an array of numbers in row-major order. Tensors whose Data is the very same slice are stored once
// and stay one storage for PyTorch.
type Tensor struct {
	// Name is set by StateDict; it is not part of a tensor's stored form.
	Name  string
	DType DType
	// Shape has no entries for a scalar.
	Shape []int64
	// Data are the elements, little-endian and contiguous: Numel()*DType.Size() bytes. What Read or Open
	// returns may share memory with other tensors (and, with Open, with the file): do not write to it.
	Data []byte
}

// Numel is the number of elements.
func (t *Tensor) Numel() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

func (t *Tensor) check() error {
	size := t.DType.Size()
	if size == 0 {
		return fmt.Errorf("tensor of unknown type %v", t.DType)
	}
	n, err := numel(t.Shape)
	if err != nil {
		return err
	}
	if n*int64(size) != int64(len(t.Data)) {
		return fmt.Errorf("tensor of shape %v and type %v needs %d bytes, has %d", t.Shape, t.DType, n*int64(size), len(t.Data))
	}
	return nil
}

const (
	maxNumel = 1 << 48
	maxDims  = 64
)

// numel multiplies a shape out, refusing what cannot be.
func numel(shape []int64) (int64, error) {
	if len(shape) > maxDims {
		return 0, fmt.Errorf("tensor of %d dimensions", len(shape))
	}
	n, zero := int64(1), false
	for _, d := range shape {
		if d < 0 || d > maxNumel {
			return 0, fmt.Errorf("tensor shape %v is impossible", shape)
		}
		if d == 0 {
			zero = true
			continue
		}
		if n > maxNumel/d {
			return 0, fmt.Errorf("tensor shape %v is too large", shape)
		}
		n *= d
	}
	if zero {
		return 0, nil
	}
	return n, nil
}

// NewF32 makes a float32 tensor from numbers; the values are copied.
func NewF32(values []float32, shape ...int64) *Tensor {
	t := &Tensor{DType: F32, Shape: shape, Data: make([]byte, 0, 4*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

// NewF64 makes a float64 tensor from numbers; the values are copied.
func NewF64(values []float64, shape ...int64) *Tensor {
	t := &Tensor{DType: F64, Shape: shape, Data: make([]byte, 0, 8*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(v))
	}
	return t
}

func float64At(b []byte, i int64) float64 {
	return math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
}

// NewI64 makes an int64 tensor from numbers; the values are copied.
func NewI64(values []int64, shape ...int64) *Tensor {
	t := &Tensor{DType: I64, Shape: shape, Data: make([]byte, 0, 8*len(values))}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(v))
	}
	return t
}

// NewU8 makes a uint8 tensor of one dimension that uses b as it is.
func NewU8(b []byte) *Tensor {
	return &Tensor{DType: U8, Shape: []int64{int64(len(b))}, Data: b}
}

// Float32s converts the elements of any type to float32.
func (t *Tensor) Float32s() ([]float32, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	out := make([]float32, t.Numel())
	b, le := t.Data, binary.LittleEndian
	for i := range out {
		switch t.DType {
		case F32:
			out[i] = math.Float32frombits(le.Uint32(b[4*i:]))
		case F64:
			out[i] = float32(math.Float64frombits(le.Uint64(b[8*i:])))
		case BF16:
			out[i] = math.Float32frombits(uint32(le.Uint16(b[2*i:])) << 16)
		case F16:
			out[i] = half(le.Uint16(b[2*i:]))
		case I8:
			out[i] = float32(int8(b[i]))
		case I16:
			out[i] = float32(int16(le.Uint16(b[2*i:])))
		case I32:
			out[i] = float32(int32(le.Uint32(b[4*i:])))
		case I64:
			out[i] = float32(int64(le.Uint64(b[8*i:])))
		case U8, Bool:
			out[i] = float32(b[i])
		}
	}
	return out, nil
}

// Int64s converts the elements of an integer or boolean tensor.
func (t *Tensor) Int64s() ([]int64, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	out := make([]int64, t.Numel())
	b, le := t.Data, binary.LittleEndian
	for i := range out {
		switch t.DType {
		case I8:
			out[i] = int64(int8(b[i]))
		case I16:
			out[i] = int64(int16(le.Uint16(b[2*i:])))
		case I32:
			out[i] = int64(int32(le.Uint32(b[4*i:])))
		case I64:
			out[i] = int64(le.Uint64(b[8*i:]))
		case U8, Bool:
			out[i] = int64(b[i])
		default:
			return nil, fmt.Errorf("a %v tensor does not contain integers", t.DType)
		}
	}
	return out, nil
}

// half converts an IEEE 754 binary16 number.
func half(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := int(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0:
		v := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | uint32(exp+127-15)<<23 | frac<<13)
}
