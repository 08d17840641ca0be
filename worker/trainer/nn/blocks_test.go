//go:build libtorch

package nn_test

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// forward runs a module on values of a shape.
func forward(t *testing.T, m nn.Module, training bool, v []float32, shape ...int64) []float32 {
	t.Helper()
	var out []float32
	p := &nn.Pass{Training: training}
	defer p.Close()
	if err := torchx.Catch(func() error {
		var err error
		out, err = torchx.Floats(p.Forward(m, p.KeepOr(torchx.FromFloats(v, shape...))))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestActivations(t *testing.T) {
	x := []float32{-7, -3, -1.5, -0.25, 0, 0.5, 2, 3, 6, 9}
	clamp := func(v float64) float64 { return min(max(v, 0), 6) }
	for name, c := range map[string]struct {
		layer nn.Module
		want  func(float64) float64
	}{
		"silu":        {&nn.Activate{Function: torchx.SiLU}, func(v float64) float64 { return v / (1 + math.Exp(-v)) }},
		"hardswish":   {&nn.Activate{Function: torchx.HardSwish}, func(v float64) float64 { return v * clamp(v+3) / 6 }},
		"relu6":       {&nn.Activate{Function: torchx.ReLU6}, clamp},
		"sigmoid":     {&nn.Sigmoid{}, func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }},
		"hardsigmoid": {&nn.Activate{Function: torchx.HardSigmoid}, func(v float64) float64 { return clamp(v+3) / 6 }},
	} {
		got := forward(t, c.layer, true, x, int64(len(x)))
		for i, v := range x {
			if want := c.want(float64(v)); math.Abs(float64(got[i])-want) > 1e-6 {
				t.Errorf("%s(%g) = %g, want %g", name, v, got[i], want)
			}
		}
	}
	if _, err := torchx.Activate(torchx.Tensor{}, torchx.SiLU); err == nil {
		t.Error("an absent tensor was accepted")
	}
}

// Rows are dropped whole, at the rate asked for, from the generator of the
// run; the rest is scaled up. Evaluation and frozen layers drop nothing.
func TestStochasticDepth(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const rows, width, p = 2000, 3, 0.25
	x := make([]float32, rows*width)
	for i := range x {
		x[i] = float32(i + 1)
	}
	layer := &nn.StochasticDepth{P: p}
	draw := func() []float32 {
		if err := torchx.Seed(11); err != nil {
			t.Fatal(err)
		}
		return forward(t, layer, true, x, rows, width, 1, 1)
	}
	got, dropped := draw(), 0
	for r := range rows {
		for c := range width {
			v, want := got[r*width+c], x[r*width+c]/(1-p)
			if got[r*width] == 0 {
				want = 0
			}
			if math.Abs(float64(v-want)) > 1e-6*float64(want) {
				t.Fatalf("row %d: %g, want %g", r, v, want)
			}
		}
		if got[r*width] == 0 {
			dropped++
		}
	}
	// Five standard deviations of a binomial count.
	if d := math.Abs(float64(dropped) - rows*p); d > 5*math.Sqrt(rows*p*(1-p)) {
		t.Errorf("%d of %d rows dropped, want about %g", dropped, rows, rows*p)
	}
	if !slices.Equal(got, draw()) {
		t.Error("the same seed drops other rows")
	}
	if !slices.Equal(x, forward(t, layer, false, x, rows, width, 1, 1)) {
		t.Error("evaluation drops rows")
	}
	layer.Frozen = true
	if !slices.Equal(x, forward(t, layer, true, x, rows, width, 1, 1)) {
		t.Error("a frozen layer drops rows")
	}
	if err := torchx.Catch(func() error {
		_, err := torchx.DepthFactors(torchx.Tensor{}, 0.5)
		return err
	}); err == nil {
		t.Error("an absent tensor was accepted")
	}
}
