package checkpoint_test

import (
	"errors"
	"math"
	"testing"

	"atelier/common/checkpoint"
)

func TestFiniteNamesTheTensor(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	narrow := func(d checkpoint.DType, at, of int, word uint16) *checkpoint.Tensor {
		b := make([]byte, 2*of)
		b[2*at], b[2*at+1] = byte(word), byte(word>>8)
		return &checkpoint.Tensor{DType: d, Shape: []int64{int64(of)}, Data: b}
	}
	single := func(at, of int, v float64) *checkpoint.Tensor {
		x := make([]float32, of)
		for i := range x {
			x[i] = math.MaxFloat32 * float32(1-2*(i%2))
		}
		x[at] = float32(v)
		return checkpoint.NewF32(x, int64(of))
	}
	for name, tc := range map[string]struct {
		t     *checkpoint.Tensor
		at    int64 // -1: finite
		value float64
	}{
		"greatest":           {single(0, 11, math.MaxFloat32), -1, 0},
		"first":              {single(0, 11, nan), 0, nan},
		"last":               {single(10, 11, -inf), 10, -inf},
		"one":                {single(0, 1, inf), 0, inf},
		"odd":                {single(8, 9, nan), 8, nan},
		"middle of many":     {single(777, 1001, inf), 777, inf},
		"half NaN":           {narrow(checkpoint.F16, 5, 7, 0xfe00), 5, nan},
		"half infinity":      {narrow(checkpoint.F16, 6, 7, 0xfc00), 6, -inf},
		"half greatest":      {narrow(checkpoint.F16, 6, 7, 0xfbff), -1, 0},
		"bfloat16 infinity":  {narrow(checkpoint.BF16, 16, 17, 0x7f80), 16, inf},
		"bfloat16 greatest":  {narrow(checkpoint.BF16, 16, 17, 0x7f7f), -1, 0},
		"double NaN":         {checkpoint.NewF64([]float64{1, nan}, 2), 1, nan},
		"double beyond":      {checkpoint.NewF64([]float64{1, -1e300}, 2), 1, -inf},
		"double":             {checkpoint.NewF64([]float64{1, -1e38}, 2), -1, 0},
		"integers":           {checkpoint.NewI64([]int64{math.MaxInt64, -1}, 2), -1, 0},
		"nothing":            {checkpoint.NewF32(nil, 0), -1, 0},
		"a scalar, infinite": {checkpoint.NewF32([]float32{float32(inf)}), 0, inf},
	} {
		tc.t.Name = "conv1.weight"
		err := checkpoint.Finite([]checkpoint.Tensor{{Name: "a", DType: checkpoint.F32, Shape: []int64{0}}, *tc.t})
		var e *checkpoint.NotFinite
		switch {
		case tc.at < 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.at >= 0 && (!errors.As(err, &e) || e.Tensor != "conv1.weight" || e.At != tc.at || e.Count != 1 || e.Of != tc.t.Numel() ||
			e.Value != tc.value && !(math.IsNaN(e.Value) && math.IsNaN(tc.value))):
			t.Errorf("%s: %v, want %g at %d", name, err, tc.value, tc.at)
		}
	}
}

func BenchmarkFinite(b *testing.B) {
	t := checkpoint.Tensor{DType: checkpoint.F32, Shape: []int64{1 << 22}, Data: make([]byte, 4<<22)}
	b.SetBytes(int64(len(t.Data)))
	for b.Loop() {
		if checkpoint.Finite([]checkpoint.Tensor{t}) != nil {
			b.Fatal("zeros are finite")
		}
	}
}
