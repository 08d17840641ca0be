//go:build libtorch

package torchx_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// dense is one convolution: images, channels, image, window.
type dense struct {
	images, in, out, height, width, kernel, stride, padding, groups int64
	bias                                                            bool
}

var denses = []dense{
	{8, 16, 16, 2, 2, 3, 1, 1, 1, false},
	{32, 64, 32, 4, 4, 1, 1, 0, 1, false},
	{9, 24, 40, 5, 3, 3, 2, 1, 1, true},    // an odd number of images, tiles not full
	{13, 20, 50, 7, 9, 3, 1, 1, 1, false},  // neither channels fill vectors
	{8, 33, 17, 4, 4, 1, 2, 0, 1, true},    // places that no window meets
	{8, 32, 16, 8, 8, 5, 1, 2, 1, false},   //
	{10, 16, 16, 6, 6, 2, 2, 0, 1, false},  //
	{12, 48, 70, 1, 1, 1, 1, 0, 1, true},   // one place
	{8, 16, 96, 3, 4, 3, 1, 2, 1, false},   // padding wider than half the window
	{8, 16, 16, 5, 5, 3, 3, 0, 1, false},   // strides that skip nothing
	{11, 16, 48, 12, 16, 3, 1, 1, 1, true}, // only the weight's gradient is ours
	{40, 32, 24, 16, 16, 3, 2, 1, 1, false},
	{70, 16, 16, 16, 16, 3, 1, 1, 1, false}, // the image in several parts
	{4, 32, 32, 4, 4, 3, 1, 1, 1, true},     // libtorch's: few images
	{8, 32, 32, 4, 4, 3, 1, 1, 2, false},    // libtorch's: groups
	{8, 8, 32, 4, 4, 3, 1, 1, 1, false},     // libtorch's: few channels
}

func (c dense) tensors(s *scene) (x, w, b pair) {
	x = s.activation(1, 0.5, c.images, c.in, c.height, c.width)
	w = s.parameter(s.numbers(1, 0, c.out, c.in/c.groups, c.kernel, c.kernel), c.out, c.in/c.groups, c.kernel, c.kernel)
	if c.bias {
		b = s.parameter(s.numbers(1, 2, c.out), c.out)
	}
	return x, w, b
}

// needsBF16 skips a case in bfloat16 where no kernel of ours takes it and libtorch
// has no instructions for it: its own convolution is then up to 14 % off in the
// gradient of the weights.
func (s *scene) needsBF16() {
	if s.dtype == torchx.BF16Type && !torchx.HasBF16() {
		s.t.Skip("bfloat16 without AVX512-BF16 is libtorch's alone")
	}
}

func TestConvolveAgreesWithOperators(t *testing.T) {
	for _, c := range denses {
		each(t, fmt.Sprintf("%+v", c), false, func(s *scene) {
			s.needsBF16()
			x, w, b := c.tensors(s)
			leaves := map[string]pair{"input": x, "weight": w}
			if c.bias {
				leaves["bias"] = b
			}
			for _, p := range leaves {
				s.learn(p)
			}
			s.compare(leaves, func(i int) (torchx.Tensor, error) {
				return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.Convolve(x[i], w[i], b[i], c.stride, c.padding, c.groups) })
			})
		})
	}
}

// What is frozen gets no gradient and changes no other.
func TestConvolveWithFrozenParts(t *testing.T) {
	for _, learns := range []string{"input", "weight", "bias"} {
		each(t, learns, false, func(s *scene) {
			s.needsBF16()
			c := denses[2]
			x, w, b := c.tensors(s)
			p := map[string]pair{"input": x, "weight": w, "bias": b}[learns]
			s.learn(p)
			s.compare(map[string]pair{learns: p}, func(i int) (torchx.Tensor, error) {
				return s.op(i, func(p *nn.Pass) torchx.Tensor { return p.Convolve(x[i], w[i], b[i], c.stride, c.padding, 1) })
			})
		})
	}
}

// The result and both gradients are the same in every bit for any number of
// threads, with gradients and without.
func TestConvolveRepeatsItsBits(t *testing.T) {
	for _, dtype := range []torchx.DType{torchx.F32, torchx.BF16Type} {
		for _, c := range denses[:10] {
			lock(t)
			var first []byte
			for _, threads := range []int{1, 2, 3, 1} {
				if err := torchx.SetThreads(threads); err != nil {
					t.Fatal(err)
				}
				s := &scene{t: t, dtype: dtype, draw: rand.New(rand.NewPCG(7, 7))}
				x, w, _ := c.tensors(s)
				if ours := s.made(torchx.FasterConvolve(x[0], w[0], torchx.Tensor{}, c.stride, c.padding, 1)); ours.T == nil {
					t.Skip("the kernel is not for this CPU")
				}
				convolve := func(p *nn.Pass) torchx.Tensor { return p.Convolve(x[0], w[0], torchx.Tensor{}, c.stride, c.padding, 1) }
				plain := s.made(s.op(0, convolve))
				s.learn(x, w)
				y := s.made(s.op(0, convolve))
				score := torchx.Own(torch.Sum(torchx.Own(torch.Mul(y, y))))
				var all []byte
				for _, v := range []torchx.Tensor{y, s.made(torchx.GradOf(score, x[0])), s.made(torchx.GradOf(score, w[0]))} {
					all = append(all, raw(t, v)...)
				}
				if got := raw(t, plain); !bytes.Equal(got, all[:len(got)]) {
					t.Fatalf("%+v: another result without gradients", c)
				}
				if first == nil {
					first = all
				} else if !bytes.Equal(all, first) {
					t.Fatalf("%+v, type %d: %d threads give other bits than one", c, dtype, threads)
				}
			}
		}
	}
}

// raw is a tensor's memory in contiguous order.
func raw(t *testing.T, x torchx.Tensor) []byte {
	t.Helper()
	i, err := torchx.Describe(x)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, int(i.Len())*i.DType.Size())
	if err := torchx.CopyOut(x, b); err != nil {
		t.Fatal(err)
	}
	return b
}
