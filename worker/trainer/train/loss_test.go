//go:build libtorch

package train

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

func TestBalancedWeights(t *testing.T) {
	got := balanced([]int64{0, 0, 0, 1, 2, 2}, 4)
	if want := []float64{6. / 12, 6. / 4, 6. / 8, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The loss of a mixed batch is cross entropy against soft labels while
// training; validation knows neither smoothing nor weights.
func TestMixedLossIsSoftCrossEntropy(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	logits := []float64{1, 2, 0.5, -1, 0.3, 3}
	single := make([]float32, len(logits))
	for i, x := range logits {
		single[i] = float32(x)
	}
	x, err := torchx.FromFloats(single, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	b := &batch{lambda: 0.3}
	defer b.free()
	if b.y, err = torchx.Labels([]int64{0, 2}, torchx.CPU); err != nil {
		t.Fatal(err)
	}
	if b.y2, err = torchx.Labels([]int64{2, 0}, torchx.CPU); err != nil {
		t.Fatal(err)
	}
	const smoothing = 0.1
	want, plain := 0.0, 0.0
	for i, soft := range [][]float64{{0.3, 0, 0.7}, {0.7, 0, 0.3}} {
		row, sum := logits[3*i:3*i+3], 0.0
		for _, v := range row {
			sum += math.Exp(v)
		}
		for c, v := range row {
			want -= (soft[c]*(1-smoothing) + smoothing/3) * (v - math.Log(sum)) / 2
		}
		plain -= (row[2*i] - math.Log(sum)) / 2
	}
	p := &nn.Pass{Training: true}
	defer p.Close()
	c := criterion{smoothing: smoothing}
	if got, err := torchx.Item(c.loss(p, x, b)); err != nil || math.Abs(got-want) > 1e-6 {
		t.Errorf("mixed %v, want %v: %v", got, want, err)
	}
	p.Training = false
	if got, err := torchx.Item(c.loss(p, x, b)); err != nil || math.Abs(got-plain) > 1e-6 {
		t.Errorf("validation %v, want %v: %v", got, plain, err)
	}
	torchx.Free(x)
}
