//go:build libtorch

package torchx_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/group"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// What a step of resnet18 costs more when its batch of 32 images of 64 px is cut
// into shards, on one thread, in channels_last: three ways to take the step, in
// turn. whole is the batch in one piece, no Buckets; added is shard by shard, by
// libtorch's own accumulation; buckets is shard by shard through Buckets, all in one
// member. ns/op is of buckets, the ratios are medians of the turns'.
func BenchmarkBuckets(b *testing.B) {
	for _, shards := range []int{2, 4, 8} {
		b.Run(fmt.Sprint("shards=", shards), func(b *testing.B) { benchBuckets(b, shards) })
	}
}

func benchBuckets(b *testing.B, shards int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(torchx.SetThreads(1))
	m, err := model.New("resnet18", model.Options{Classes: 5})
	must(err)
	defer m.Free()
	must(m.Move(torchx.CPU, true))
	params := m.Weights()
	var statistics, momenta []torchx.Tensor
	for _, e := range m.State() {
		if e.Kind == nn.Buffer {
			statistics = append(statistics, e.Tensor)
		}
	}
	for _, p := range params {
		z, err := torchx.ZerosLike(p)
		must(err)
		momenta = append(momenta, z)
	}
	defer torchx.Free(momenta...)

	const batch, side = 32, 64
	images := func(n int) torchx.Tensor {
		x, err := torchx.Images(make([]byte, n*side*side*3), n, side, side, []float32{1, 1, 1}, []float32{0.1, 0.2, 0.3}, torchx.CPU, true)
		must(err)
		return x
	}
	whole, part := images(batch), images(batch/shards)
	defer torchx.Free(whole, part)
	pass := func(x torchx.Tensor, before func(), share float64) {
		p := nn.Pass{Training: true}
		defer p.Close()
		y := m.Forward(&p, x)
		loss := p.Keep(torch.Mean(p.Keep(torch.Mul(y, y))))
		before()
		must(torchx.BackwardScaled(loss, share))
	}
	update := func() { must(torchx.SGDStep(params, momenta, 1e-4, 0.9, false, 1e-4)) }

	var buckets *torchx.Buckets
	ways := []func(){
		func() { // whole
			must(torchx.DropGrads(params))
			pass(whole, func() {}, 1)
			update()
		},
		func() { // added
			must(torchx.DropGrads(params))
			for range shards {
				pass(part, func() {}, 1/float64(shards))
			}
			update()
		},
		func() { // buckets
			must(buckets.Begin(0, shards, shards))
			for s := range shards {
				pass(part, func() { must(buckets.Arm(s, 1/float64(shards))) }, 1/float64(shards))
				must(buckets.Done())
			}
			must(buckets.Apply())
			update()
		},
	}
	var took [3][]float64
	turn := func() {
		for i, way := range ways {
			if i == 2 {
				b.StartTimer()
			}
			started := time.Now()
			way()
			took[i] = append(took[i], time.Since(started).Seconds())
			b.StopTimer()
		}
	}
	buckets, err = torchx.NewBuckets(params, statistics, 0)
	must(err)
	defer buckets.Free()
	b.StopTimer()
	for range 2 { // the first turns make what later ones use again
		turn()
	}
	took = [3][]float64{}
	b.ResetTimer()
	for range b.N {
		turn()
	}
	b.ReportMetric(ratio(took[2], took[1]), "/added")
	b.ReportMetric(ratio(took[2], took[0]), "/whole")
}

// ratio is the median of the turns' ratios.
func ratio(a, b []float64) float64 {
	var all []float64
	for i := range a {
		all = append(all, a[i]/b[i])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// A sum of a bucket as the owner of a piece makes it, beside the memory it reads and
// writes: n inputs, 1 MiB each.
func BenchmarkSum(b *testing.B) {
	for _, n := range []int{2, 4, 8} {
		b.Run(fmt.Sprint("inputs=", n), func(b *testing.B) {
			var m torchx.Buckets
			in := make([][]float32, n)
			for i := range in {
				in[i] = make([]float32, 1<<18)
			}
			var program []group.Merge
			for step := 1; step < n; step *= 2 {
				for i := 0; i < n; i += 2 * step {
					program = append(program, group.Merge{To: i, From: i + step})
				}
			}
			out := make([]float32, 1<<18)
			b.SetBytes(int64(n+1) << 20)
			for b.Loop() {
				m.Sum(out, in, program)
			}
		})
	}
}
