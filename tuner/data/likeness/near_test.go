package likeness

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The processor's form and the plain one say the same.
func TestNear(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	some := 0
	for n := range 40 {
		hashes := make([]uint64, 8*n)
		hash := r.Uint64()
		for i := range hashes {
			hashes[i] = hash
			for range r.IntN(40) {
				hashes[i] ^= 1 << r.IntN(64)
			}
		}
		got, want := bytes.Repeat([]byte{0xaa}, n), make([]byte, n)
		for _, below := range []uint64{0, 1, 11, 25, 65} {
			near(got, hashes, hash, below)
			nearGo(want, hashes, hash, below)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d hashes, below %d: %x, want %x", len(hashes), below, got, want)
			}
			for i, h := range hashes {
				if want[i/8]>>(i%8)&1 != 0 {
					some++
					if d := h ^ hash; below == 1 && d != 0 {
						t.Fatalf("%x is not %x", h, hash)
					}
				}
			}
		}
	}
	if some < 1000 {
		t.Errorf("%d were near", some)
	}
}

func TestAnyLike(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	yes := 0
	for range 500 {
		n := 32 * (1 + r.IntN(8))
		parts, s := make(squares, n*(1+r.IntN(36))), make(squares, n)
		for i := range s {
			s[i] = float32(r.NormFloat64())
		}
		s.unit()
		for i := 0; i < len(parts); i += n {
			p := parts[i:][:n]
			for k := range p {
				p[k] = s[k]*float32(r.IntN(4)) + float32(r.NormFloat64())/8
			}
			p.unit()
		}
		// The best score, a little more and a little less: additions in another order may differ by less.
		var best float32 = -1
		for i := 0; i < len(parts); i += n {
			best = max(best, parts[i:][:n].dot(s))
		}
		for _, score := range []float32{best - 1e-4, best + 1e-4} {
			got := anyLike(parts, s, score)
			if want := anyGo(parts, s, score); got != want || got != (score < best) {
				t.Fatalf("%d parts of %d, best %v, score %v: %v, plain %v", len(parts)/n, n, best, score, got, want)
			}
			if got {
				yes++
			}
		}
	}
	if yes != 500 {
		t.Errorf("%d of 500", yes)
	}
}
