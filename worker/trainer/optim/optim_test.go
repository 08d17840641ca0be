//go:build libtorch

package optim_test

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	F "github.com/wangkuiyi/gotorch/nn/functional"

	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/torchx"
)

// Threads and gradient mode belong to one operating system thread.
func TestMain(m *testing.M) {
	runtime.LockOSThread()
	if err := torchx.SetThreads(1); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// said is one entry of what PyTorch says.
type said struct {
	Losses           []float64
	Weights, Average []float32
}

func ask(t *testing.T) (all map[string]said) {
	t.Helper()
	out, err := exec.Command("/usr/bin/python3", "testdata/steps.py").Output()
	if err != nil {
		t.Skipf("no PyTorch to compare with (apt-get install python3-torch): %v", err)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// problem is the linear layer of testdata/steps.py and its batch.
type problem struct {
	w, b, x, y, weights torchx.Tensor
}

func newProblem(t *testing.T) *problem {
	t.Helper()
	fill := func(n int, f func(float64) float64, shape ...int64) torchx.Tensor {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(f(float64(i)))
		}
		x, err := torchx.FromFloats(v, shape...)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	labels := make([]int64, 16)
	for i := range labels {
		labels[i] = int64(i % 5)
	}
	y, err := torchx.Labels(labels, torchx.CPU)
	if err != nil {
		t.Fatal(err)
	}
	p := &problem{y: y,
		x:       fill(16*12, func(i float64) float64 { return math.Sin(0.7 * i) }, 16, 12),
		w:       fill(60, func(i float64) float64 { return 0.3 * math.Cos(i) }, 5, 12),
		b:       fill(5, func(float64) float64 { return 0 }, 5),
		weights: fill(5, func(i float64) float64 { return []float64{0.5, 1, 1.5, 2, 0.7}[int(i)] }, 5)}
	for _, leaf := range p.params() {
		if err := torchx.RequireGrad(leaf, true); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { torchx.Free(p.w, p.b, p.x, p.y, p.weights) })
	return p
}

func (p *problem) params() []torchx.Tensor { return []torchx.Tensor{p.w, p.b} }

// loss computes cross entropy and, if asked, its gradients.
func (p *problem) loss(t *testing.T, weights torchx.Tensor, smoothing, backward float64) float64 {
	t.Helper()
	logits := torchx.Own(F.Linear(p.x, p.w, p.b))
	defer torchx.Free(logits)
	loss, err := torchx.CrossEntropy(logits, p.y, weights, smoothing)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(loss)
	v, err := torchx.Item(loss)
	if err == nil && backward != 0 {
		err = torchx.BackwardScaled(loss, backward)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func floats(t *testing.T, x torchx.Tensor) []float32 {
	t.Helper()
	v, err := torchx.Floats(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func worst(got, want []float32) (w float64) {
	for i := range want {
		w = max(w, math.Abs(float64(got[i]-want[i])))
	}
	return w
}

// Each optimiser follows PyTorch's for 20 steps, with class weights and label
// smoothing in the loss; so does the average of the weights.
func TestStepsAreTorchs(t *testing.T) {
	want := ask(t)
	for name, c := range map[string]struct {
		config   optim.Config
		lr, clip float64
	}{
		"sgd":              {optim.Config{Name: "sgd"}, 0.1, 0},
		"sgd momentum":     {optim.Config{Name: "sgd", Momentum: 0.9, WeightDecay: 0.01}, 0.1, 0},
		"sgd nesterov":     {optim.Config{Name: "sgd", Momentum: 0.9, Nesterov: true, WeightDecay: 0.01}, 0.1, 0},
		"sgd clipped":      {optim.Config{Name: "sgd", Momentum: 0.9}, 0.1, 0.05},
		"adam":             {optim.Config{Name: "adam", WeightDecay: 0.01}, 0.01, 0},
		"adamw":            {optim.Config{Name: "adamw", WeightDecay: 0.1}, 0.01, 0},
		"rmsprop":          {optim.Config{Name: "rmsprop", WeightDecay: 0.01}, 0.01, 0},
		"rmsprop momentum": {optim.Config{Name: "rmsprop", Momentum: 0.9, WeightDecay: 0.01}, 0.001, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProblem(t)
			o, err := optim.New(c.config, p.params())
			if err != nil {
				t.Fatal(err)
			}
			defer o.Free()
			average, err := optim.NewAverage(0.9, p.params())
			if err != nil {
				t.Fatal(err)
			}
			defer average.Free()
			off := 0.0
			for i := range 20 {
				off = max(off, math.Abs(p.loss(t, p.weights, 0.1, 1)-want[name].Losses[i]))
				if c.clip > 0 {
					if err := o.Clip(c.clip); err != nil {
						t.Fatal(err)
					}
				}
				if err := o.Step(c.lr); err != nil {
					t.Fatal(err)
				}
				if err := average.Update(); err != nil {
					t.Fatal(err)
				}
			}
			trained := floats(t, p.w)
			var averaged []float32
			if err := average.Show(func() error { averaged = floats(t, p.w); return nil }); err != nil {
				t.Fatal(err)
			}
			w, a := worst(trained, want[name].Weights), worst(averaged, want[name].Average)
			t.Logf("losses from %.4f to %.4f differ by at most %.2g, weights by %.2g, averages by %.2g", want[name].Losses[0], want[name].Losses[19], off, w, a)
			if !(off < 1e-5 && w < 1e-5 && a < 1e-5) {
				t.Errorf("differs from PyTorch: losses by %g, weights by %g, averages by %g", off, w, a)
			}
			if !slices.Equal(floats(t, p.w), trained) || worst(averaged, trained) < 1e-4 {
				t.Error("showing the average changed the weights, or there was nothing to average")
			}
		})
	}
}

func TestLossIsTorchs(t *testing.T) {
	want := ask(t)["loss"].Losses
	p := newProblem(t)
	for i, w := range []torchx.Tensor{{}, p.weights} {
		for k, smoothing := range []float64{0, 0.1, 1} {
			if got := p.loss(t, w, smoothing, 0); math.Abs(got-want[3*i+k]) > 1e-6 {
				t.Errorf("weights %v, smoothing %g: %.8f, PyTorch %.8f", i == 1, smoothing, got, want[3*i+k])
			}
		}
	}
}

// A scaled loss moves the weights as the plain one; infinite gradients halve
// the scale and move nothing.
func TestScaler(t *testing.T) {
	p, plain := newProblem(t), newProblem(t)
	c := optim.Config{Name: "sgd"}
	o, err := optim.New(c, p.params())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := optim.New(c, plain.params())
	if err != nil {
		t.Fatal(err)
	}
	s := optim.NewScaler()
	start := floats(t, p.w)
	for range 100 { // gradients add up to infinity
		p.loss(t, torchx.Tensor{}, 0, 3e38)
	}
	if ok, err := s.Unscale(o); err != nil || ok || s.Scale != 32768 || s.Lost() {
		t.Errorf("infinite gradients: step %v, scale %v, %v", ok, s.Scale, err)
	}
	if _, there, _ := torchx.Grad(p.w); there || !slices.Equal(floats(t, p.w), start) || o.Steps != 0 {
		t.Error("infinite gradients left a trace")
	}
	s.Good = 1999
	p.loss(t, torchx.Tensor{}, 0, s.Scale)
	plain.loss(t, torchx.Tensor{}, 0, 1)
	if ok, err := s.Unscale(o); err != nil || !ok || s.Scale != 65536 || s.Good != 0 {
		t.Errorf("good gradients: step %v, %+v, %v", ok, *s, err)
	}
	for _, x := range []*optim.Optimizer{o, ref} {
		if err := x.Step(0.1); err != nil {
			t.Fatal(err)
		}
	}
	if d := worst(floats(t, p.w), floats(t, plain.w)); d > 1e-6 || slices.Equal(floats(t, p.w), start) {
		t.Errorf("scaled and plain differ by %g", d)
	}
	for range 60 {
		s.Scale /= 2
	}
	if !s.Lost() {
		t.Error("a scale of nothing is not lost")
	}
}

func TestUnknownOptimizer(t *testing.T) {
	if _, err := optim.New(optim.Config{Name: "lion"}, nil); err == nil {
		t.Error("made an optimiser that is not there")
	}
}
