//go:build libtorch

package torchx_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/common/kernels"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// Each kernel of the table is on by itself, takes what it is for, and no other's
// name turns it off. A kernel that leaves its operation alone gives the zero Tensor;
// the two without a result of their own show themselves in the last bits.
func TestKernelsAreSwitchedByName(t *testing.T) {
	lock(t)
	s := &scene{t: t, dtype: torchx.F32, draw: rand.New(rand.NewPCG(3, 3))}
	x := s.activation(1, 0, 8, 32, 4, 4)[0]
	weight, single := s.parameter(s.numbers(1, 0, 32*32*9), 32, 32, 3, 3)[0], s.parameter(s.numbers(1, 0, 32*9), 32, 1, 3, 3)[0]
	one := s.parameter(s.numbers(0, 1, 32), 32)[0]
	factors := s.activation(1, 0, 8, 32, 1, 1)[0]
	ours := func(y torchx.Tensor, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		defer torchx.Free(y)
		return y.T != nil
	}
	takes := map[string]func() bool{
		"dense":     func() bool { return ours(torchx.FasterConvolve(x, weight, torchx.Tensor{}, 1, 1, 1)) },
		"depthwise": func() bool { return ours(torchx.FasterConvolve(x, single, torchx.Tensor{}, 1, 1, 32)) },
		"norm": func() bool {
			return ours(torchx.FasterNorm(x, torchx.Norm{Weight: one, Bias: one, Mean: one, Var: one, Momentum: 0.1, Eps: 1e-5}, torchx.Tensor{}, torchx.Tensor{}, torchx.ReLU))
		},
		"max_pool": func() bool { return ours(torchx.FasterMaxPool(x, 2, 2, 0)) },
		"squeeze": func() bool {
			pooled, same, err := torchx.FasterPoolBeside(x)
			torchx.Free(same)
			return ours(pooled, err) && ours(torchx.FasterScaleChannels(x, factors))
		},
	}
	differs := map[string]func() []float32{
		"optimizer": func() []float32 {
			draw := &scene{t: t, dtype: torchx.F32, draw: rand.New(rand.NewPCG(4, 4))}
			p, m, v := draw.parameter(draw.numbers(1, 0, 999), 999)[0], draw.parameter(draw.numbers(0, 0, 999), 999)[0], draw.parameter(draw.numbers(0, 0, 999), 999)[0]
			if err := torchx.RequireGrad(p, true); err != nil {
				t.Fatal(err)
			}
			for step := range int64(3) {
				score := s.made(s.op(1, func(pass *nn.Pass) torchx.Tensor { return pass.Keep(torch.Sum(pass.Keep(torch.Mul(p, p)))) }))
				if err := torchx.Backward(score); err != nil {
					t.Fatal(err)
				}
				if err := torchx.AdamStep([]torchx.Tensor{p}, []torchx.Tensor{m}, []torchx.Tensor{v}, step+1, 0.03, 0.9, 0.999, 1e-8, 0.01, true); err != nil {
					t.Fatal(err)
				}
				if err := torchx.DropGrads([]torchx.Tensor{p}); err != nil {
					t.Fatal(err)
				}
			}
			out, err := torchx.Floats(p)
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
		"augment": func() []float32 {
			const n, size = 4, 24
			return send(t, patchwork(n, size), n, size, unit, zero, torchx.Changes{Warp: true, Colour: true, Order: plain}, func(b *torchx.Block) {
				for i := range n {
					b.SetWarp(i, 1, 2, 17, 19, i%2 == 0, 13*float64(i))
					b.SetColour(i, 1.1, 0.8, 1.3, 0.1)
				}
			})
		},
	}
	if n := len(takes) + len(differs); n != len(kernels.All) {
		t.Fatalf("%d kernels are tried of %d", n, len(kernels.All))
	}
	wide := takes["dense"]()
	for _, k := range kernels.All {
		for choice, want := range map[string]bool{k.Name: true, "-" + k.Name: false, "all": true, "none": false} {
			useKernels(t, choice)
			if f := takes[k.Name]; f != nil {
				if k.Name == "dense" && !wide {
					continue // this CPU has no AVX-512
				}
				if f() != want {
					t.Errorf("%s with %q: taken %v", k.Name, choice, !want)
				}
				continue
			}
			got := differs[k.Name]()
			useKernels(t, map[bool]string{true: "none," + k.Name, false: "all,-" + k.Name}[want])
			if !slices.Equal(got, differs[k.Name]()) {
				t.Errorf("%s with %q is not what it is with it alone turned", k.Name, choice)
			}
			useKernels(t, map[bool]string{true: "all,-" + k.Name, false: "none," + k.Name}[want])
			if slices.Equal(got, differs[k.Name]()) {
				t.Errorf("%s with %q has the bits of the other way", k.Name, choice)
			}
		}
	}
}
