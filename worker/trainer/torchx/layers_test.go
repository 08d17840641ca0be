//go:build libtorch

package torchx_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// The loops are held to libtorch's operators in float64, which the same calls
// take for tensors of that type.

// scene makes the tensors of one case, twice: as the loops take them, and in
// float64. Inputs are rounded to the loops' type first, so that both see the
// same numbers.
type scene struct {
	t     *testing.T
	dtype torchx.DType // of the activations: F32 or BF16Type
	plain bool         // channels apart (PyTorch's layout), not side by side
	draw  *rand.Rand

	by    *pair                                      // gradient that compare sends back, drawn where nil
	judge func(what string, got, want torchx.Tensor) // of compare; agree where nil
	loose bool                                       // see kinds
}

// pair is a tensor in both forms; both are leaves.
type pair [2]torchx.Tensor

func (s *scene) numbers(scale, shift float64, shape ...int64) []float32 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(s.draw.NormFloat64()*scale + shift)
	}
	return v
}

// activation is a tensor of the loops' type, [n, c, h, w].
func (s *scene) activation(scale, shift float64, shape ...int64) pair {
	v := s.numbers(scale, shift, shape...)
	if s.dtype == torchx.BF16Type {
		b := make([]byte, 2*len(v))
		for i := range v {
			u := math.Float32bits(v[i])
			u = (u + 0x7fff + u>>16&1) &^ 0xffff
			v[i] = math.Float32frombits(u)
			binary.LittleEndian.PutUint16(b[2*i:], uint16(u>>16))
		}
		return pair{s.leaf(b, torchx.BF16Type, shape), s.double(v, shape)}
	}
	return s.parameter(v, shape...)
}

// parameter is a float32 tensor in both cases.
func (s *scene) parameter(v []float32, shape ...int64) pair {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return pair{s.leaf(b, torchx.F32, shape), s.double(v, shape)}
}

func (s *scene) double(v []float32, shape []int64) torchx.Tensor {
	b := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(b[8*i:], math.Float64bits(float64(x)))
	}
	return s.made(torchx.FromBytes(b, torchx.F64, shape))
}

func (s *scene) leaf(b []byte, d torchx.DType, shape []int64) torchx.Tensor {
	x := s.made(torchx.FromBytes(b, d, shape))
	if err := torchx.Move(x, torchx.CPU, !s.plain); err != nil {
		s.t.Fatal(err)
	}
	return x
}

func (s *scene) made(x torchx.Tensor, err error) torchx.Tensor {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { torchx.Free(x) })
	return x
}

func (s *scene) learn(ps ...pair) {
	for _, p := range ps {
		for _, x := range p {
			if err := torchx.RequireGrad(x, true); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func doubles(t *testing.T, x torchx.Tensor) []float64 {
	t.Helper()
	i, err := torchx.Describe(x)
	if err != nil {
		t.Fatal(err)
	}
	b, out := raw(t, x), make([]float64, i.Len())
	for k := range out {
		switch i.DType {
		case torchx.F64:
			out[k] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*k:]))
		case torchx.F32:
			out[k] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*k:])))
		case torchx.BF16Type:
			out[k] = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*k:])) << 16))
		default:
			t.Fatalf("element type %d", i.DType)
		}
	}
	return out
}

// agree compares two tensors by the norm of their difference.
func (s *scene) agree(what string, got, want torchx.Tensor) {
	s.t.Helper()
	bound := 1e-5
	if s.dtype == torchx.BF16Type {
		bound = 6e-3 // a bfloat16 is within 2^-9; a few roundings follow one another
	}
	a, b := doubles(s.t, got), doubles(s.t, want)
	if len(a) != len(b) {
		s.t.Errorf("%s: %d values, want %d", what, len(a), len(b))
		return
	}
	var off, size float64
	for i := range a {
		off += (a[i] - b[i]) * (a[i] - b[i])
		size += b[i] * b[i]
	}
	if off = math.Sqrt(off / max(size, 1e-12)); !(off <= bound) {
		s.t.Errorf("%s: off by %.2g of its norm", what, off)
	}
}

// compare runs f on both forms and compares its result and the gradients of
// its product with fixed numbers at every leaf.
func (s *scene) compare(leaves map[string]pair, f func(i int) (torchx.Tensor, error)) {
	s.t.Helper()
	judge := s.agree
	if s.judge != nil {
		judge = s.judge
	}
	outs := pair{s.made(f(0)), s.made(f(1))}
	judge("result", outs[0], outs[1])
	info, err := torchx.Describe(outs[1])
	if err != nil {
		s.t.Fatal(err)
	}
	var by pair
	if s.by != nil {
		by = *s.by
	} else {
		by = s.activation(1, 0, info.Shape...)
	}
	var scores pair
	for i := range scores {
		product := torchx.Own(torch.Mul(outs[i], by[i]))
		s.t.Cleanup(func() { torchx.Free(product) })
		scores[i] = torchx.Own(torch.Sum(product))
		s.t.Cleanup(func() { torchx.Free(scores[i]) })
	}
	for name, p := range leaves {
		judge("gradient of "+name, s.made(torchx.GradOf(scores[0], p[0])), s.made(torchx.GradOf(scores[1], p[1])))
	}
}

// op runs one of nn's operations, on the loops' type (i 0) under autocast in
// bfloat16, as a training does. What it makes lives as long as the test.
func (s *scene) op(i int, f func(p *nn.Pass) torchx.Tensor) (out torchx.Tensor, err error) {
	p := &nn.Pass{Training: true}
	s.t.Cleanup(p.Close)
	precision := torchx.FP32
	if i == 0 && s.dtype == torchx.BF16Type {
		precision = torchx.BF16
	}
	err = torchx.Autocast(torchx.CPU, precision, func() error {
		return torchx.Catch(func() error {
			out = f(p)
			return nil
		})
	})
	return out, err
}

// each runs a case for both types and both layouts, with one thread and two;
// bfloat16 in PyTorch's layout only where there are loops over planes.
func each(t *testing.T, name string, planes bool, f func(s *scene)) {
	t.Helper()
	for _, dtype := range []torchx.DType{torchx.F32, torchx.BF16Type} {
		for _, plain := range []bool{false, true} {
			if plain && dtype == torchx.BF16Type && !planes {
				continue // libtorch's own operators, not all of which exist in bfloat16
			}
			for threads := 1; threads <= 2; threads++ {
				t.Run(fmt.Sprintf("%s type=%d plain=%v threads=%d", name, dtype, plain, threads), func(t *testing.T) {
					lock(t)
					if err := torchx.SetThreads(threads); err != nil {
						t.Fatal(err)
					}
					f(&scene{t: t, dtype: dtype, plain: plain, draw: rand.New(rand.NewPCG(7, uint64(threads)))})
				})
			}
		}
	}
}

func TestNormaliseAgreesWithOperators(t *testing.T) {
	t.Logf("loops for %s", torchx.Instructions())
	follows := map[string]torchx.Activation{"none": torchx.None, "relu": torchx.ReLU, "relu6": torchx.ReLU6,
		"silu": torchx.SiLU, "hardswish": torchx.HardSwish}
	for name, follow := range follows {
		for _, c := range []struct {
			shape                      []int64
			shortcut, factor, training bool
		}{
			{[]int64{3, 24, 5, 7}, false, false, true},
			{[]int64{2, 96, 9, 9}, true, false, true},
			{[]int64{4, 40, 3, 3}, true, true, true},
			{[]int64{3, 16, 20, 20}, false, true, true},
			{[]int64{3, 20, 4, 4}, true, false, false},
			{[]int64{300, 72, 1, 1}, false, false, true},
			{[]int64{5, 8, 9, 11}, true, true, true},
		} {
			each(t, fmt.Sprintf("%s %v shortcut=%v factor=%v training=%v", name, c.shape, c.shortcut, c.factor, c.training), c.shape[2]*c.shape[3] >= 16, func(s *scene) {
				if bare := follow == torchx.None || follow == torchx.ReLU; !bare && (c.shortcut || c.factor) && s.dtype == torchx.BF16Type {
					s.t.Skip("operators throughout, which round to bfloat16 at each step")
				}
				k := c.shape[1]
				x := s.activation(2, 5, c.shape...) // a mean well away from zero
				w, b := s.parameter(s.numbers(0.5, 1, k), k), s.parameter(s.numbers(1, 0.5, k), k)
				mean, variance := s.parameter(s.numbers(1, 4, k), k), s.parameter(s.numbers(0.2, 4, k), k)
				leaves := map[string]pair{"input": x, "weight": w, "bias": b}
				var shortcut, factor pair
				if c.shortcut {
					shortcut = s.activation(1, 0, c.shape...)
					leaves["shortcut"] = shortcut
				}
				if c.factor {
					v := s.numbers(0, 1.25, c.shape[0])
					v[0] = 0
					factor = s.parameter(v, c.shape[0])
				}
				for _, p := range leaves {
					s.learn(p)
				}
				s.compare(leaves, func(i int) (torchx.Tensor, error) {
					n := torchx.Norm{Weight: w[i], Bias: b[i], Mean: mean[i], Var: variance[i], Momentum: 0.1, Eps: 1e-5, Training: c.training}
					return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.Normalise(x[i], n, shortcut[i], factor[i], follow) })
				})
				s.agree("running mean", mean[0], mean[1])
				s.agree("running variance", variance[0], variance[1])
			})
		}
	}
}

func TestDepthwiseAgreesWithOperators(t *testing.T) {
	for _, c := range []struct {
		channels, height, width, kernel, stride int64
	}{{24, 9, 12, 3, 1}, {40, 9, 12, 3, 2}, {32, 7, 11, 5, 1}, {48, 8, 8, 5, 2}, {16, 2, 2, 5, 1}, {20, 1, 3, 3, 2}, {16, 9, 9, 7, 1}} {
		each(t, fmt.Sprintf("%+v", c), false, func(s *scene) {
			x := s.activation(1, 0.5, 5, c.channels, c.height, c.width)
			w := s.parameter(s.numbers(1, 0, c.channels, 1, c.kernel, c.kernel), c.channels, 1, c.kernel, c.kernel)
			s.learn(x, w)
			s.compare(map[string]pair{"input": x, "weight": w}, func(i int) (torchx.Tensor, error) {
				return s.op(i, func(p *nn.Pass) torchx.Tensor {
					return p.Convolve(x[i], w[i], torchx.Tensor{}, c.stride, c.kernel/2, c.channels)
				})
			})
		})
	}
}

func TestSqueezeAgreesWithOperators(t *testing.T) {
	for _, shape := range [][]int64{{3, 24, 5, 7}, {2, 96, 4, 4}, {4, 10, 1, 1}} {
		each(t, fmt.Sprint(shape), false, func(s *scene) {
			x := s.activation(1, 0.5, shape...)
			w := s.activation(1, 0, shape[0], shape[1], 1, 1)
			s.learn(x, w)
			s.compare(map[string]pair{"input": x, "factors": w}, func(i int) (torchx.Tensor, error) {
				return s.op(i, func(p *nn.Pass) torchx.Tensor {
					pooled, same := p.PoolBeside(x[i])
					return p.ScaleChannels(same, p.Keep(torch.Mul(pooled, w[i])))
				})
			})
		})
	}
}

func TestMaxPoolAgreesWithOperators(t *testing.T) {
	for _, c := range []struct{ height, width, kernel, stride, padding int64 }{{9, 12, 3, 2, 1}, {8, 8, 2, 2, 0}, {7, 9, 2, 2, 0}, {6, 5, 3, 1, 1}} {
		for _, channels := range []int64{24, 64} {
			each(t, fmt.Sprintf("%+v channels=%d", c, channels), false, func(s *scene) {
				x := s.activation(1, 0.5, 3, channels, c.height, c.width)
				s.learn(x)
				s.compare(map[string]pair{"input": x}, func(i int) (torchx.Tensor, error) {
					return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.MaxPool(x[i], c.kernel, c.stride, c.padding) })
				})
			})
		}
	}
}

func TestLayersRefuse(t *testing.T) {
	lock(t)
	x, one := tensor(t, make([]float32, 2*4*3*3), 2, 4, 3, 3), tensor(t, make([]float32, 3), 3)
	for what, f := range map[string]func(p *nn.Pass) torchx.Tensor{
		"three parameters for four channels": func(p *nn.Pass) torchx.Tensor {
			return p.Normalise(x, torchx.Norm{Weight: one, Bias: one, Mean: one, Var: one}, torchx.Tensor{}, torchx.Tensor{}, torchx.None)
		},
		"three factors for two images of four channels": func(p *nn.Pass) torchx.Tensor { return p.ScaleChannels(x, one) },
		"two groups of one channel each for four channels": func(p *nn.Pass) torchx.Tensor {
			return p.Convolve(x, tensor(t, make([]float32, 4*9), 4, 1, 3, 3), torchx.Tensor{}, 1, 1, 2)
		},
		"padding as wide as the window": func(p *nn.Pass) torchx.Tensor { return p.MaxPool(x, 2, 2, 2) },
	} {
		if _, err := (&scene{t: t}).op(1, f); err == nil {
			t.Error(what)
		}
	}
	if _, err := torchx.DepthFactors(x, 1.5); err == nil {
		t.Error("a probability of 1.5")
	}
}

// A layer's memory goes with its tensors: thousands of steps, each of which
// would show.
func TestLayersDoNotLeak(t *testing.T) {
	lock(t)
	s := &scene{t: t, dtype: torchx.F32, draw: rand.New(rand.NewPCG(1, 1))}
	const k = 32
	x, w, b := s.activation(1, 0, 8, k, 16, 16)[0], s.parameter(s.numbers(0, 1, k), k)[0], s.parameter(s.numbers(0, 0, k), k)[0]
	kernel := s.parameter(s.numbers(1, 0, k, 1, 3, 3), k, 1, 3, 3)[0]
	mean, variance := s.parameter(s.numbers(0, 0, k), k)[0], s.parameter(s.numbers(0, 1, k), k)[0]
	params := []torchx.Tensor{w, b, kernel}
	for _, p := range params {
		if err := torchx.RequireGrad(p, true); err != nil {
			t.Fatal(err)
		}
	}
	step := func() {
		p := &nn.Pass{Training: true}
		defer p.Close()
		y := p.Convolve(x, kernel, torchx.Tensor{}, 1, 1, k)
		z := p.Normalise(y, torchx.Norm{Weight: w, Bias: b, Mean: mean, Var: variance, Momentum: 0.1, Eps: 1e-5, Training: true}, x, torchx.Tensor{}, torchx.ReLU)
		pooled, same := p.PoolBeside(z)
		torchx.Must(torchx.Backward(p.Keep(torch.Sum(p.ScaleChannels(same, pooled)))))
		torchx.Must(torchx.DropGrads(params))
	}
	resident := func() int {
		b, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Skip("no /proc to read resident memory from: ", err)
		}
		n, err := strconv.Atoi(strings.Fields(string(b))[1])
		if err != nil {
			t.Fatal(err)
		}
		return n * os.Getpagesize()
	}
	if err := torchx.Catch(func() error {
		for range 100 {
			step()
		}
		before := resident()
		for range 1000 {
			step()
		}
		// One activation of 256 KiB a step would be 250 MiB; a parameter's gradient 1 MiB.
		if grown := resident() - before; grown > 8<<20 {
			t.Errorf("resident memory grew by %d KiB in 1,000 steps", grown>>10)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
