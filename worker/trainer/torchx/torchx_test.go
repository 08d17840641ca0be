//go:build libtorch

package torchx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"runtime"
	"slices"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/torchx"
)

// Gradient mode, autocast and thread count belong to one thread: all tests run
// on it.
func TestMain(m *testing.M) {
	runtime.LockOSThread()
	if err := torchx.Init(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func lock(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	if err := torchx.SetThreads(1); err != nil {
		t.Fatal(err)
	}
}

func tensor(t *testing.T, v []float32, shape ...int64) torchx.Tensor {
	t.Helper()
	x, err := torchx.FromFloats(v, shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { torchx.Free(x) })
	return x
}

func values(t *testing.T, x torchx.Tensor) []float32 {
	t.Helper()
	v, err := torchx.Floats(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func near(a, b []float32, by float64) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Abs(float64(x-y)) <= by })
}

func TestErrorsComeBack(t *testing.T) {
	lock(t)
	a := tensor(t, []float32{1, 2, 3}, 3)
	var e *torchx.Error
	if err := torchx.Backward(a); !errors.As(err, &e) || e.Class != torchx.Other {
		t.Errorf("backward of a tensor without history: %v", err)
	}
	b := tensor(t, []float32{1, 2}, 2)
	err := torchx.Catch(func() error { torch.Add(a, b, 1); return nil })
	if !errors.As(err, &e) || bytes.Contains([]byte(e.Text), []byte("Exception raised")) {
		t.Errorf("gotorch's panic: %v", err)
	}
	if _, err := torchx.FromBytes([]byte{1}, torchx.F32, []int64{1}); err == nil {
		t.Error("one byte made a float")
	}
	freed, err := torchx.ZerosLike(a)
	if err != nil {
		t.Fatal(err)
	}
	torchx.Free(freed)
	torchx.Free(freed)
	if _, err := torchx.Describe(freed); err == nil {
		t.Error("a freed tensor was described")
	}
	err = torchx.Catch(func() error { torch.Empty([]int64{1 << 45}, false); return nil })
	if !errors.As(err, &e) || e.Class != torchx.OutOfMemory {
		t.Errorf("128 TiB: %v, class not out of memory", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("Catch swallowed a fault that is not libtorch's")
		}
	}()
	torchx.Catch(func() error { panic(42) })
}

func TestLayoutKeepsValues(t *testing.T) {
	lock(t)
	v := make([]float32, 2*3*4*5)
	for i := range v {
		v[i] = float32(i)
	}
	x := tensor(t, v, 2, 3, 4, 5)
	if err := torchx.Move(x, torchx.CPU, true); err != nil {
		t.Fatal(err)
	}
	if yes, err := torchx.IsChannelsLast(x); err != nil || !yes {
		t.Fatalf("channels last: %v %v", yes, err)
	}
	if !slices.Equal(values(t, x), v) {
		t.Error("values come out in another order")
	}
	slices.Reverse(v)
	y := tensor(t, v, 2, 3, 4, 5)
	b, err := torchx.Bytes(y)
	if err != nil {
		t.Fatal(err)
	}
	if err := torchx.Fill(x, b); err != nil {
		t.Fatal(err)
	}
	if yes, _ := torchx.IsChannelsLast(x); !yes || !slices.Equal(values(t, x), v) {
		t.Error("Fill changed the layout or the order")
	}
	if err := torchx.Fill(x, b[1:]); err == nil {
		t.Error("a wrong length was filled in")
	}
}

func TestImages(t *testing.T) {
	lock(t)
	pixels := []byte{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110} // 2 images, 1x2 pixels
	for _, last := range []bool{false, true} {
		x, err := torchx.Images(pixels, 2, 1, 2, []float32{1, 2, 3}, []float32{0, -1, -2}, torchx.CPU, last)
		if err != nil {
			t.Fatal(err)
		}
		want := []float32{0, 30, 19, 79, 58, 148, 60, 90, 139, 199, 238, 328}
		if got := values(t, x); !slices.Equal(got, want) {
			t.Errorf("channels last %v: %v, want %v", last, got, want)
		}
		torchx.Free(x)
	}
}

func TestSoftmaxAndCrossEntropy(t *testing.T) {
	lock(t)
	x := tensor(t, []float32{1, 2, 3, 0, 0, 0}, 2, 3)
	s, err := torchx.Softmax(x, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(s)
	if !near(values(t, s), []float32{0.0900306, 0.2447285, 0.6652410, 1. / 3, 1. / 3, 1. / 3}, 1e-6) {
		t.Errorf("softmax %v", values(t, s))
	}
	y, err := torchx.Labels([]int64{2, 0}, torchx.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(y)
	loss, err := torchx.CrossEntropy(x, y, torchx.Tensor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(loss)
	if v, _ := torchx.Item(loss); math.Abs(v-(0.4076060+1.0986123)/2) > 1e-6 {
		t.Errorf("cross entropy %v", v)
	}
	d, err := torchx.FromBytes(make([]byte, 24), torchx.F64, []int64{3})
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(d)
	if err := torchx.Tally(d, x, y, loss); err != nil {
		t.Fatal(err)
	}
	b, err := torchx.Bytes(d)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{0.4076060 + 1.0986123, 2, 2} { // argmax of equal logits is the first
		if got := math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])); math.Abs(got-want) > 1e-6 {
			t.Errorf("tally[%d] = %v, want %v", i, got, want)
		}
	}
}

func TestGradients(t *testing.T) {
	lock(t)
	x := tensor(t, []float32{1, 2, 3}, 3)
	if err := torchx.RequireGrad(x, true); err != nil {
		t.Fatal(err)
	}
	square := torchx.Own(torch.Mul(x, x))
	defer torchx.Free(square)
	sum := torchx.Own(torch.Sum(square))
	defer torchx.Free(sum)
	inner, err := torchx.GradOf(sum, square)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(inner)
	if !slices.Equal(values(t, inner), []float32{1, 1, 1}) {
		t.Errorf("gradient at an inner tensor %v", values(t, inner))
	}
	if err := torchx.Backward(sum); err != nil {
		t.Fatal(err)
	}
	g, ok, err := torchx.Grad(x)
	if err != nil || !ok || !slices.Equal(values(t, g), []float32{2, 4, 6}) {
		t.Errorf("gradient %v %v", ok, err)
	}
	torchx.Free(g)
	if err := torchx.DropGrads([]torchx.Tensor{x}); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := torchx.Grad(x); ok {
		t.Error("a dropped gradient is still there")
	}
	err = torchx.NoGrad(func() error {
		y := torchx.Own(torch.Mul(x, x))
		defer torchx.Free(y)
		s := torchx.Own(torch.Sum(y))
		defer torchx.Free(s)
		if torchx.Backward(s) == nil {
			t.Error("recorded inside NoGrad")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAutocast(t *testing.T) {
	lock(t)
	a, b := tensor(t, []float32{1, 2, 3, 4}, 2, 2), tensor(t, []float32{1, 0, 0, 1}, 2, 2)
	kind := func() torchx.DType {
		p := torchx.Own(torch.MM(a, b))
		defer torchx.Free(p)
		i, err := torchx.Describe(p)
		if err != nil {
			t.Fatal(err)
		}
		return i.DType
	}
	if err := torchx.Autocast(torchx.CPU, torchx.BF16, func() error {
		if k := kind(); k != torchx.BF16Type {
			t.Errorf("inside: element type %d", k)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if k := kind(); k != torchx.F32 {
		t.Errorf("after: element type %d", k)
	}
}

func TestRandomStateRepeats(t *testing.T) {
	lock(t)
	if err := torchx.Seed(3); err != nil {
		t.Fatal(err)
	}
	draw := func() []float32 {
		x := torchx.Own(torch.RandN([]int64{5}, false))
		defer torchx.Free(x)
		return values(t, x)
	}
	draw()
	state, err := torchx.RandomState(torchx.CPU)
	if err != nil {
		t.Fatal(err)
	}
	first, second := draw(), draw()
	if slices.Equal(first, second) {
		t.Fatal("two draws are the same")
	}
	if err := torchx.SetRandomState(torchx.CPU, state); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(draw(), first) || !slices.Equal(draw(), second) {
		t.Error("the state did not bring the draws back")
	}
	if err := torchx.SetRandomState(torchx.CPU, state[:10]); err == nil {
		t.Error("a cut-off state was taken")
	}
}

// The fused loops and the operator path (here: float64) compute the same, on
// contiguous and on channels_last weights.
func TestFusedOptimisersAgreeWithOperators(t *testing.T) {
	lock(t)
	const n = 2 * 3 * 5 * 5
	for _, name := range []string{"sgd", "sgd with momentum", "nesterov", "adam", "adamw", "rmsprop", "rmsprop with momentum"} {
		for _, last := range []bool{false, true} {
			run := func(double bool) []float32 {
				p := parameter(t, n, double, last)
				slots := make([][]torchx.Tensor, 2)
				for i := range slots {
					z, err := torchx.ZerosLike(p)
					if err != nil {
						t.Fatal(err)
					}
					defer torchx.Free(z)
					slots[i] = []torchx.Tensor{z}
				}
				ps := []torchx.Tensor{p}
				for step := int64(1); step <= 5; step++ {
					square := torchx.Own(torch.Mul(p, p))
					cube := torchx.Own(torch.Mul(square, p))
					loss := torchx.Own(torch.Sum(cube))
					err := torchx.Backward(loss)
					torchx.Free(square, cube, loss)
					if err != nil {
						t.Fatal(err)
					}
					switch name {
					case "sgd":
						err = torchx.SGDStep(ps, nil, 0.01, 0, false, 0.1)
					case "sgd with momentum", "nesterov":
						err = torchx.SGDStep(ps, slots[0], 0.01, 0.9, name == "nesterov", 0.1)
					case "rmsprop":
						err = torchx.RMSpropStep(ps, slots[0], nil, 0.01, 0.99, 1e-8, 0, 0.1)
					case "rmsprop with momentum":
						err = torchx.RMSpropStep(ps, slots[0], slots[1], 0.01, 0.99, 1e-8, 0.5, 0.1)
					default:
						err = torchx.AdamStep(ps, slots[0], slots[1], step, 0.01, 0.9, 0.999, 1e-8, 0.1, name == "adamw")
					}
					if err != nil {
						t.Fatal(err)
					}
					if err := torchx.DropGrads(ps); err != nil {
						t.Fatal(err)
					}
				}
				single := torchx.Own(p.CastTo(torch.Float))
				defer torchx.Free(single)
				return values(t, single)
			}
			fused, plain := run(false), run(true)
			if !near(fused, plain, 2e-6) {
				t.Errorf("%s, channels last %v: the two ways differ", name, last)
			}
			if start := parameter(t, n, false, last); near(fused, values(t, start), 1e-4) {
				t.Errorf("%s moved nothing", name)
			}
		}
	}
}

func TestGradientsAreScaledAndClipped(t *testing.T) {
	lock(t)
	a, b, idle := tensor(t, []float32{3, 0}, 2), tensor(t, []float32{4}, 1), tensor(t, []float32{1}, 1)
	all := []torchx.Tensor{a, b, idle} // idle has no gradient
	for _, x := range all {
		if err := torchx.RequireGrad(x, true); err != nil {
			t.Fatal(err)
		}
	}
	grads := func() (all []float32) {
		for _, x := range []torchx.Tensor{a, b} {
			g, ok, err := torchx.Grad(x)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			all = append(all, values(t, g)...)
			torchx.Free(g)
		}
		return all
	}
	run := func(by float64) { // gradient of (|a|^2+|b|^2)/2 is (a, b)
		if err := torchx.DropGrads(all); err != nil {
			t.Fatal(err)
		}
		for _, x := range []torchx.Tensor{a, b} {
			square := torchx.Own(torch.Mul(x, x))
			sum := torchx.Own(torch.Sum(square))
			if err := torchx.BackwardScaled(sum, by/2); err != nil {
				t.Fatal(err)
			}
			torchx.Free(square, sum)
		}
	}
	run(1)
	if err := torchx.ClipGrads(all, 10); err != nil || !near(grads(), []float32{3, 0, 4}, 0) {
		t.Errorf("a norm of 5 clipped to 10 is %v: %v", grads(), err)
	}
	if err := torchx.ClipGrads(all, 1); err != nil || !near(grads(), []float32{0.6, 0, 0.8}, 1e-6) {
		t.Errorf("a norm of 5 clipped to 1 is %v: %v", grads(), err)
	}
	run(1024)
	if ok, err := torchx.UnscaleGrads(all, 1./1024); err != nil || !ok || !near(grads(), []float32{3, 0, 4}, 0) {
		t.Errorf("unscaled %v %v %v", grads(), ok, err)
	}
	run(6e38)
	if ok, err := torchx.UnscaleGrads(all, 1e-38); err != nil || ok {
		t.Errorf("infinite gradients called finite (%v)", err)
	}
	if err := torchx.DropGrads(all); err != nil {
		t.Fatal(err)
	}
	if err := torchx.ClipGrads(all, 1); err != nil {
		t.Error(err)
	}
}

func TestSwapAndAverage(t *testing.T) {
	lock(t)
	a, b := parameter(t, 150, false, true), tensor(t, make([]float32, 150), 2, 3, 5, 5)
	before := values(t, a)
	if err := torchx.Swap([]torchx.Tensor{a}, []torchx.Tensor{b}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(values(t, b), before) || !near(values(t, a), make([]float32, 150), 0) {
		t.Error("values did not change places")
	}
	if err := torchx.Average([]torchx.Tensor{a}, []torchx.Tensor{b}, 0.75); err != nil {
		t.Fatal(err)
	}
	want := make([]float32, len(before))
	for i := range want {
		want[i] = before[i] / 4
	}
	if !near(values(t, a), want, 1e-7) {
		t.Errorf("average %v", values(t, a)[:5])
	}
	if torchx.Swap([]torchx.Tensor{a}, []torchx.Tensor{tensor(t, []float32{1}, 1)}) == nil {
		t.Error("tensors of two shapes changed places")
	}
}

func parameter(t *testing.T, n int, double, last bool) torchx.Tensor {
	t.Helper()
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(math.Sin(float64(i)))
	}
	p := tensor(t, v, 2, 3, 5, 5)
	if double {
		p = torchx.Own(p.CastTo(torch.Double))
		t.Cleanup(func() { torchx.Free(p) })
	}
	if err := torchx.Move(p, torchx.CPU, last); err != nil {
		t.Fatal(err)
	}
	if err := torchx.RequireGrad(p, true); err != nil {
		t.Fatal(err)
	}
	return p
}
