package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
)

// NotFinite says that a tensor of a model holds NaN or an infinity: such a model answers nonsense, if at all.
type NotFinite struct {
	Tensor string
	Value  float64 // the first of them
	At     int64   // its place, counted in elements
	Count  int64   // how many there are
	Of     int64
}

func (e *NotFinite) Error() string {
	return fmt.Sprintf("%s is not finite: %g at element %d, %d of its %d numbers are NaN or infinite", e.Tensor, e.Value, e.At, e.Count, e.Of)
}

// Finite looks at every number of a state; the error is a *NotFinite that names the first tensor with one that is
// not. A double that float32 cannot hold counts as infinite: as a weight it is. Tensors of integers are finite.
func Finite(tensors []Tensor) error {
	for i := range tensors {
		if err := tensors[i].finite(); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tensor) finite() error {
	var sound bool
	switch t.DType {
	case F32:
		sound = allFinite(t.Data, 0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000)
	case F16:
		sound = allFinite(t.Data, 0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000)
	case BF16:
		sound = allFinite(t.Data, 0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000)
	case F64:
		sound = true
		for i := 0; i+8 <= len(t.Data) && sound; i += 8 {
			v := math.Float64frombits(binary.LittleEndian.Uint64(t.Data[i:]))
			sound = math.Abs(v) <= math.MaxFloat32 // false for NaN
		}
	default:
		sound = true
	}
	if sound {
		return nil
	}
	values, err := t.Float32s()
	if err != nil {
		return err
	}
	e := &NotFinite{Tensor: t.Name, At: -1, Of: t.Numel()}
	for i, v := range values {
		if x := float64(v); math.IsNaN(x) || math.IsInf(x, 0) {
			if e.Count++; e.At < 0 {
				e.At, e.Value = int64(i), x
			}
		}
	}
	if e.At < 0 {
		return nil // doubles just above float32's greatest, which are rounded down to it
	}
	return e
}

// allFinite reports whether no number is NaN or infinite. It looks at the numbers of eight bytes at a time: where a number's exponent (mask) is all ones, adding one
// to it (carry) reaches the place of the sign (top), which the mask has emptied.
func allFinite(b []byte, mask, carry, top uint64) bool {
	var seen uint64
	for len(b) >= 32 {
		seen |= binary.LittleEndian.Uint64(b)&mask + carry
		seen |= binary.LittleEndian.Uint64(b[8:])&mask + carry
		seen |= binary.LittleEndian.Uint64(b[16:])&mask + carry
		seen |= binary.LittleEndian.Uint64(b[24:])&mask + carry
		b = b[32:]
	}
	var rest [32]byte
	copy(rest[:], b)
	for i := 0; i < len(rest); i += 8 {
		seen |= binary.LittleEndian.Uint64(rest[i:])&mask + carry
	}
	return seen&top == 0
}
