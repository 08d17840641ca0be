//go:build libtorch

package torchx_test

import (
	"math/rand/v2"
	"testing"

	"atelier/worker/trainer/torchx"
)

// Live and peak follow what tensors hold, large blocks (multiples of 64 KiB)
// to the byte.
func TestMemoryIsCounted(t *testing.T) {
	lock(t)
	if err := torchx.Init(); err != nil {
		t.Fatal(err)
	}
	const block = 3 << 20
	make3 := func() torchx.Tensor {
		x, err := torchx.FromFloats(make([]float32, block/4), block/4)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	first := make3()
	torchx.MemoryFromHere()
	before := torchx.MemoryNow()
	if before.Live != before.Peak || before.Live < block {
		t.Fatalf("%+v with %d bytes held", before, block)
	}
	second, third := make3(), make3()
	torchx.Free(first, second)
	now := torchx.MemoryNow()
	torchx.Free(third)
	if now.Live != before.Live || now.Peak != before.Peak+2*block {
		t.Errorf("%+v after %+v, two blocks of %d taken and two freed", now, before, block)
	}
	if after := torchx.MemoryNow(); after.Live != before.Live-block || after.Peak != now.Peak {
		t.Errorf("%+v when all are freed", after)
	}
}

// Blocks taken and freed in any order never overlap, and what is kept for
// later serves again.
func TestMemoryIsNotSharedByTensors(t *testing.T) {
	lock(t)
	if err := torchx.Init(); err != nil {
		t.Fatal(err)
	}
	draw := rand.New(rand.NewPCG(3, 4))
	type held struct {
		torchx.Tensor
		mark float32
		n    int
	}
	var all []held
	check := func(h held) {
		t.Helper()
		v, err := torchx.Floats(h.Tensor)
		if err != nil || len(v) != h.n {
			t.Fatal(len(v), h.n, err)
		}
		for i, x := range v {
			if x != h.mark {
				t.Fatalf("value %d of %d is %g, %g was written", i, h.n, x, h.mark)
			}
		}
	}
	for step := range 400 {
		if len(all) > 12 || len(all) > 0 && draw.IntN(3) == 0 {
			i := draw.IntN(len(all))
			check(all[i])
			torchx.Free(all[i].Tensor)
			all = append(all[:i], all[i+1:]...)
			continue
		}
		n := 1 + draw.IntN(1<<uint(4+draw.IntN(17))) // up to 4 MiB, small ones more often
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(step)
		}
		x, err := torchx.FromFloats(v, int64(n))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, held{x, float32(step), n})
	}
	for _, h := range all {
		check(h)
		torchx.Free(h.Tensor)
	}
}
