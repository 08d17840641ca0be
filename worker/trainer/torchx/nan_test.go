//go:build libtorch

package torchx_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// NaN and infinities come out of the loops where they come out of libtorch's
// operators: a network that broke down must show it.

var broken = []float64{math.NaN(), math.Inf(1), math.Inf(-1)}

// poison puts NaN and both infinities into a pair, at every step-th place from
// the first on.
func (s *scene) poison(p pair, first, step int) pair {
	s.t.Helper()
	for _, x := range p {
		info, err := torchx.Describe(x)
		if err != nil {
			s.t.Fatal(err)
		}
		b := raw(s.t, x)
		for i, k := first, 0; i < int(info.Len()); i, k = i+step, k+1 {
			v := broken[k%len(broken)]
			switch info.DType {
			case torchx.F64:
				binary.LittleEndian.PutUint64(b[8*i:], math.Float64bits(v))
			case torchx.F32:
				binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(float32(v)))
			case torchx.BF16Type:
				binary.LittleEndian.PutUint16(b[2*i:], uint16(math.Float32bits(float32(v))>>16))
			}
		}
		if err := torchx.Fill(x, b); err != nil {
			s.t.Fatal(err)
		}
	}
	return p
}

// kinds compares two tensors by what is NaN, infinite and finite, place by
// place, and the finite part by its norm. With an infinite weight of a
// normalisation the gradient of its input is a sum of infinities here and a
// product with one in libtorch: there (loose) NaN does for an infinity.
func (s *scene) kinds(what string, got, want torchx.Tensor) {
	s.t.Helper()
	a, b := doubles(s.t, got), doubles(s.t, want)
	kind := func(x float64) string {
		switch {
		case math.IsNaN(x):
			return "NaN"
		case math.IsInf(x, 0):
			return fmt.Sprint(x)
		}
		return "finite"
	}
	bound := 1e-5
	if s.dtype == torchx.BF16Type {
		bound = 1e-2
	}
	var off, size float64
	for i := range a {
		if s.loose && kind(a[i]) != "finite" && kind(b[i]) != "finite" {
			continue
		}
		if kind(a[i]) != kind(b[i]) {
			s.t.Errorf("%s: value %d of %d is %g, libtorch has %g", what, i, len(a), a[i], b[i])
			return
		}
		if kind(b[i]) == "finite" {
			off += (a[i] - b[i]) * (a[i] - b[i])
			size += b[i] * b[i]
		}
	}
	if off = math.Sqrt(off / max(size, 1e-12)); !(off <= bound) {
		s.t.Errorf("%s: the finite part is off by %.2g of its norm", what, off)
	}
}

// compareKinds is compare for broken numbers; by is the gradient that comes
// back to the result.
func (s *scene) compareKinds(leaves map[string]pair, by pair, f func(i int) (torchx.Tensor, error)) {
	s.t.Helper()
	s.judge = s.kinds
	s.by = &by
	s.compare(leaves, f)
}

func TestNormaliseKeepsNaN(t *testing.T) {
	follows := map[string]torchx.Activation{"none": torchx.None, "relu": torchx.ReLU, "relu6": torchx.ReLU6,
		"silu": torchx.SiLU, "hardswish": torchx.HardSwish}
	// Numbers of values that libtorch's vectors divide: what is left over goes another way there, with other rules for NaN.
	shape, k := []int64{4, 32, 4, 8}, int64(32)
	for name, follow := range follows {
		for _, where := range []string{"input", "gradient", "shortcut", "factor", "weight", "statistics"} {
			for _, training := range []bool{false, true} {
				bare := follow == torchx.None || follow == torchx.ReLU
				if (where == "shortcut" || where == "factor") && !bare || where == "statistics" && training {
					continue
				}
				each(t, fmt.Sprintf("%s in %s training=%v", name, where, training), true, func(s *scene) {
					x := s.activation(2, 1, shape...)
					w, b := s.parameter(s.numbers(0.5, 1, k), k), s.parameter(s.numbers(1, 0.5, k), k)
					mean, variance := s.parameter(s.numbers(1, 1, k), k), s.parameter(s.numbers(0.2, 4, k), k)
					by := s.activation(1, 0, shape...)
					leaves := map[string]pair{"input": x, "weight": w, "bias": b}
					var shortcut, factor pair
					switch where {
					case "input":
						s.poison(x, 0, 129) // the first value of a channel is what its sums start from
					case "gradient":
						s.poison(by, 3, 131)
					case "shortcut":
						shortcut = s.poison(s.activation(1, 0, shape...), 3, 131)
						leaves["shortcut"] = shortcut
					case "factor":
						factor = s.poison(s.parameter(s.numbers(0, 1.25, 4), 4), 1, 4) // NaN: chance draws no infinity
					case "weight":
						s.poison(w, 1, 5)
						s.loose = training
					case "statistics":
						s.poison(mean, 1, 7)
						s.poison(variance, 2, 7)
					}
					for _, p := range leaves {
						s.learn(p)
					}
					s.compareKinds(leaves, by, func(i int) (torchx.Tensor, error) {
						n := torchx.Norm{Weight: w[i], Bias: b[i], Mean: mean[i], Var: variance[i], Momentum: 0.1, Eps: 1e-5, Training: training}
						return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.Normalise(x[i], n, shortcut[i], factor[i], follow) })
					})
					s.kinds("running mean", mean[0], mean[1])
					s.kinds("running variance", variance[0], variance[1])
				})
			}
		}
	}
}

func TestMaxPoolKeepsNaN(t *testing.T) {
	for _, c := range []struct{ height, width, kernel, stride, padding int64 }{{8, 8, 3, 2, 1}, {8, 8, 2, 2, 0}, {6, 5, 3, 1, 1}} {
		each(t, fmt.Sprintf("%+v", c), false, func(s *scene) {
			x := s.poison(s.activation(1, 0.5, 3, 24, c.height, c.width), 2, 37)
			s.learn(x)
			by := s.poison(s.activation(1, 0, 3, 24, (c.height+2*c.padding-c.kernel)/c.stride+1, (c.width+2*c.padding-c.kernel)/c.stride+1), 1, 41)
			s.compareKinds(map[string]pair{"input": x}, by, func(i int) (torchx.Tensor, error) {
				return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.MaxPool(x[i], c.kernel, c.stride, c.padding) })
			})
		})
	}
	// A window that holds nothing but minus infinity has its maximum inside the image, not in the padding.
	each(t, "minus infinity", false, func(s *scene) {
		v := make([]float32, 2*16*4*4)
		for i := range v {
			v[i] = float32(math.Inf(-1))
		}
		x := s.parameter(v, 2, 16, 4, 4)
		s.learn(x)
		s.compareKinds(map[string]pair{"input": x}, s.parameter(s.numbers(1, 0, 2*16*2*2), 2, 16, 2, 2), func(i int) (torchx.Tensor, error) {
			return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.MaxPool(x[i], 3, 2, 1) })
		})
	})
}

func TestSqueezeKeepsNaN(t *testing.T) {
	for _, where := range []string{"input", "factors", "gradient"} {
		for name, sigmoid := range map[string]nn.Module{"sigmoid": &nn.Sigmoid{}, "hardsigmoid": &nn.Activate{Function: torchx.HardSigmoid}} {
			each(t, fmt.Sprintf("in %s, %s", where, name), false, func(s *scene) {
				x, w, by := s.activation(1, 0.5, 4, 16, 4, 4), s.activation(1, 0, 4, 16, 1, 1), s.activation(1, 0, 4, 16, 4, 4)
				s.poison(map[string]pair{"input": x, "factors": w, "gradient": by}[where], 1, 29)
				s.learn(x, w)
				s.compareKinds(map[string]pair{"input": x, "factors": w}, by, func(i int) (torchx.Tensor, error) {
					return s.op(i, func(p *nn.Pass) torchx.Tensor {
						pooled, same := p.PoolBeside(x[i])
						return p.ScaleChannels(same, p.Forward(sigmoid, p.Keep(torch.Mul(pooled, w[i]))))
					})
				})
			})
		}
	}
}

func TestConvolutionsKeepNaN(t *testing.T) {
	for _, c := range []dense{{8, 16, 16, 2, 2, 3, 1, 1, 1, false}, {9, 24, 40, 5, 3, 3, 2, 1, 1, true}, {8, 33, 17, 4, 4, 1, 2, 0, 1, true},
		{11, 16, 48, 12, 16, 3, 1, 1, 1, true}, {4, 24, 24, 9, 12, 3, 1, 1, 24, false}, {4, 32, 32, 7, 11, 5, 2, 2, 32, false},
		{8, 16, 16, 4, 4, 3, 1, 0, 1, false}, {4, 24, 24, 9, 12, 3, 1, 0, 24, false}} {
		for _, where := range []string{"input", "gradient"} {
			each(t, fmt.Sprintf("%+v in %s", c, where), false, func(s *scene) {
				x, w, b := c.tensors(s)
				by := s.activation(1, 0, c.images, c.out, (c.height+2*c.padding-c.kernel)/c.stride+1, (c.width+2*c.padding-c.kernel)/c.stride+1)
				s.poison(map[string]pair{"input": x, "gradient": by}[where], 5, 331)
				leaves := map[string]pair{"input": x, "weight": w}
				if c.bias {
					leaves["bias"] = b
				}
				for _, p := range leaves {
					s.learn(p)
				}
				if where == "gradient" && c.padding > 0 {
					// libtorch's operators in float64 multiply the gradient with the padding's zeros; oneDNN and our loops
					// leave padding out.
					delete(leaves, "weight")
				}
				s.compareKinds(leaves, by, func(i int) (torchx.Tensor, error) {
					return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.Convolve(x[i], w[i], b[i], c.stride, c.padding, c.groups) })
				})
			})
		}
	}
}

// Every instruction set passes the tests of the layers, not only the best one
// of the machine at hand.
func TestLayersOfEveryInstructionSet(t *testing.T) {
	if want := map[string]string{"default": "plain", "avx2": "avx2"}[os.Getenv("ATEN_CPU_CAPABILITY")]; want != "" && torchx.Instructions() != want {
		t.Skipf("the loops are %s: this CPU has no %s", torchx.Instructions(), want)
	} else if want != "" {
		return // started by the test below
	}
	for _, set := range []string{"default", "avx2"} {
		t.Run(set, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=AgreesWithOperators$|KeepsNaN$|KeepNaN$|OfEveryInstructionSet$", "-test.v")
			cmd.Env = append(os.Environ(), "ATEN_CPU_CAPABILITY="+set)
			out, err := cmd.CombinedOutput()
			if strings.Contains(string(out), "this CPU has no") {
				t.Skip("this CPU has no ", set)
			}
			if err != nil || !strings.Contains(string(out), "--- PASS: TestNormaliseKeepsNaN") {
				var bad []string
				for _, line := range strings.Split(string(out), "\n") {
					if strings.Contains(line, "FAIL") || strings.Contains(line, "_test.go") && !strings.Contains(line, "operators throughout") {
						bad = append(bad, line)
					}
				}
				t.Errorf("%v\n%s", err, strings.Join(bad[:min(len(bad), 20)], "\n"))
			}
		})
	}
}

// One value a channel has no variance: PyTorch refuses it, and a running
// variance of it would be NaN.
func TestNormaliseRefusesOneValue(t *testing.T) {
	each(t, "one value", false, func(s *scene) {
		x, w, b := s.activation(1, 0, 1, 16, 1, 1), s.parameter(s.numbers(1, 0, 16), 16), s.parameter(s.numbers(1, 0, 16), 16)
		mean, variance := s.parameter(s.numbers(1, 1, 16), 16), s.parameter(s.numbers(0.2, 4, 16), 16)
		for i := range x {
			n := torchx.Norm{Weight: w[i], Bias: b[i], Mean: mean[i], Var: variance[i], Momentum: 0.1, Eps: 1e-5, Training: true}
			_, err := s.op(i, func(p *nn.Pass) torchx.Tensor {
				return p.Normalise(x[i], n, torchx.Tensor{}, torchx.Tensor{}, torchx.ReLU)
			})
			if err == nil || !strings.Contains(err.Error(), "more than one value a channel") {
				t.Errorf("%v", err)
			}
			if v := doubles(t, variance[i]); math.IsNaN(v[0]) {
				t.Error("the running variance became NaN")
			}
		}
	})
}
