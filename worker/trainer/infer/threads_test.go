//go:build libtorch

package infer

import (
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/explain"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/torchx"
)

// Images answered in parts at the same time get what they get alone, each its
// own.
func TestPartsAgreeWithOneByOne(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := torchx.SetThreads(1); err != nil {
		t.Fatal(err)
	}
	if err := torchx.Seed(7); err != nil {
		t.Fatal(err)
	}
	const side = 32
	m, err := model.New("resnet18", model.Options{Classes: 4, Dropout: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Move(torchx.CPU, true); err != nil {
		t.Fatal(err)
	}
	e, err := explain.New(m, torchx.FP32)
	if err != nil {
		t.Fatal(err)
	}
	p := &Predictor{About: checkpoint.Model{Arch: "resnet18", ImageSize: side}, m: m, e: e, pool: newThreadPool(3, torchx.CPU),
		scale: []float32{1. / 64, 1. / 64, 1. / 64}, shift: []float32{-2, -2, -2}}
	defer p.Close()
	r := rand.New(rand.NewPCG(1, 9))
	pixels, tops := make([][]byte, 14), make([]int, 14)
	for i := range pixels {
		pixels[i], tops[i] = make([]byte, 3*side*side), 1+i%3
		for k := range pixels[i] {
			pixels[i][k] = byte(r.UintN(256)) / byte(1+i%4)
		}
	}
	together, err := p.Look(pixels, tops)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.pool.work) != 3 {
		t.Fatalf("%d threads were at work, want 3", len(p.pool.work))
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-5*(1+math.Abs(b)) }
	for i := range pixels {
		alone, err := p.Look(pixels[i:i+1], tops[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		a, b := together[i], alone[0]
		if len(a.Top) != tops[i] || len(a.Maps) != tops[i] || a.Top[0] != b.Top[0] {
			t.Fatalf("picture %d: classes %v with %d maps, alone %v", i, a.Top, len(a.Maps), b.Top)
		}
		for c := range a.Probs {
			if !near(a.Probs[c], b.Probs[c]) {
				t.Errorf("picture %d, class %d: %v, alone %v", i, c, a.Probs[c], b.Probs[c])
			}
		}
		for k := range a.Maps[0].Values {
			if !near(float64(a.Maps[0].Values[k]), float64(b.Maps[0].Values[k])) {
				t.Errorf("picture %d: map %v, alone %v", i, a.Maps[0].Values, b.Maps[0].Values)
				break
			}
		}
		if !near(a.Quality.Only, b.Quality.Only) || !near(a.Quality.Hidden, b.Quality.Hidden) {
			t.Errorf("picture %d: %+v, alone %+v", i, a.Quality, b.Quality)
		}
	}
}

// Parts make up the whole without gap or overlap, small batches stay with
// whoever called, and a part's error is the batch's.
func TestParts(t *testing.T) {
	h := newThreadPool(4, torchx.CPU)
	defer h.close()
	for _, n := range []int{1, leastPart, 2*leastPart - 1, 2 * leastPart, 17, 32, 99} {
		var mu sync.Mutex
		seen, calls := make([]int, n), 0
		if err := h.each(n, func(from, to int) error {
			mu.Lock()
			defer mu.Unlock()
			calls++
			for i := from; i < to; i++ {
				seen[i]++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i, k := range seen {
			if k != 1 {
				t.Errorf("%d images: image %d was in %d parts", n, i, k)
			}
		}
		if want := max(min(4, n/leastPart), 1); calls != want {
			t.Errorf("%d images: %d parts, want %d", n, calls, want)
		}
	}
	broken := errors.New("broken")
	if err := h.each(32, func(from, _ int) error {
		if from > 0 {
			return broken
		}
		return nil
	}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// A precision that the processor lacks is refused in words, before the file is
// read.
func TestFP16NeedsAGPU(t *testing.T) {
	var f *Fault
	if _, err := Open("none.pth", torchx.CPU, torchx.FP16, 1, slog.New(slog.DiscardHandler)); !errors.As(err, &f) || !strings.Contains(err.Error(), "bf16") {
		t.Errorf("got %v", err)
	}
	if _, err := Open("none.pth", torchx.CPU, torchx.BF16, 1, slog.New(slog.DiscardHandler)); !errors.As(err, &f) || !strings.Contains(err.Error(), "none.pth") {
		t.Errorf("got %v", err)
	}
}
