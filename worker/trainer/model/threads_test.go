//go:build libtorch

package model_test

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// A step on several threads has the same bits each time, and the gradients of a
// step on one but for rounding (which turns units of ReLU on and off).
func TestThreadsShareAStep(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer torchx.SetThreads(1)
	for _, c := range []struct {
		arch      string
		precision torchx.Precision
		far       float64 // of the gradient's length
	}{
		{"vanilla", torchx.FP32, 1e-3}, {"resnet18", torchx.FP32, 0.1}, {"mobilenet_v2", torchx.FP32, 0.1}, {"efficientnet_b0", torchx.FP32, 1e-3},
		{"resnet18", torchx.BF16, 0.5}, {"efficientnet_b0", torchx.BF16, 0.5},
	} {
		if c.precision == torchx.BF16 && !torchx.HasBF16() {
			continue
		}
		var alone []float32
		for _, threads := range []int{1, 2, 3} {
			if err := torchx.SetThreads(threads); err != nil {
				t.Fatal(err)
			}
			if n, err := torchx.LoopThreads(); err != nil || n != threads {
				t.Fatalf("%d threads share a loop, want %d (%v)", n, threads, err)
			}
			got := gradients(t, c.arch, c.precision)
			if !slices.Equal(got, gradients(t, c.arch, c.precision)) {
				t.Errorf("%s, precision %d: %d threads give other bits the second time", c.arch, c.precision, threads)
			}
			if alone == nil {
				alone = got
			}
			far := apart(got, alone)
			t.Logf("%s, precision %d: %d threads are %.1e from one", c.arch, c.precision, threads, far)
			if !(far <= c.far) {
				t.Errorf("%s, precision %d: %d threads are %.1e from one", c.arch, c.precision, threads, far)
			}
		}
	}
}

// gradients are those of a training step on 16 images of 64 px, channels last,
// every 16th value.
func gradients(t *testing.T, arch string, precision torchx.Precision) (all []float32) {
	t.Helper()
	const images, side = 16, 64
	cpu := torchx.NewDevice("cpu")
	if err := torchx.Seed(1); err != nil {
		t.Fatal(err)
	}
	m, err := model.New(arch, model.Options{Classes: 4, Dropout: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	if err := m.Move(cpu, true); err != nil {
		t.Fatal(err)
	}
	pixels, labels := make([]byte, images*side*side*3), make([]int64, images)
	for i := range pixels {
		pixels[i] = byte(i * 2654435761 >> 13)
	}
	for i := range labels {
		labels[i] = int64(i % 4)
	}
	pass := &nn.Pass{Training: true}
	defer pass.Close()
	err = torchx.Catch(func() error {
		k := float32(1. / 64)
		x, err := torchx.Images(pixels, images, side, side, []float32{k, k, k}, []float32{-2, -2, -2}, cpu, true)
		if err != nil {
			return err
		}
		defer torchx.Free(x)
		y, err := torchx.Labels(labels, cpu)
		if err != nil {
			return err
		}
		defer torchx.Free(y)
		if err := torchx.Seed(2); err != nil {
			return err
		}
		var loss torchx.Tensor
		if err := torchx.Autocast(cpu, precision, func() error {
			loss = pass.KeepOr(torchx.CrossEntropy(m.Forward(pass, x), y, torchx.Tensor{}, 0))
			return nil
		}); err != nil {
			return err
		}
		return torchx.Backward(loss)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range m.Weights() {
		g, ok, err := torchx.Grad(w)
		if err != nil || !ok {
			t.Fatalf("%s: a weight without a gradient (%v)", arch, err)
		}
		v, err := torchx.Floats(g)
		if err != nil {
			t.Fatal(err)
		}
		torchx.Free(g)
		for i := 0; i < len(v); i += 16 {
			all = append(all, v[i])
		}
	}
	return all
}

// apart is the length of a-b by that of b.
func apart(a, b []float32) float64 {
	var far, length float64
	for i, v := range b {
		d := float64(a[i]) - float64(v)
		far, length = far+d*d, length+float64(v)*float64(v)
	}
	return math.Sqrt(far / length)
}
