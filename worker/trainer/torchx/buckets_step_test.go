//go:build libtorch

package torchx_test

import (
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/group"
	"atelier/worker/trainer/torchx"
)

// A shard's gradient is accumulated over its batches before it is added up, also
// where the last of them gives a parameter none.
func TestBucketsAccumulateBatches(t *testing.T) {
	lock(t)
	plain, m := newSmall(t, true), newMember(t, true, 0)
	var leaves []sums
	for s := range 3 {
		leaves = append(leaves, plain.leaf(t, s, 3, 0.25))
	}
	want := tree(leaves, 0, 4)
	m.compute(t, 0, 3, 3, 3, 0.25)
	must(t, m.Apply())
	want.equal(t, m.sums(t))
}

// Members that have no shard of a small last batch take the result all the same.
func TestBucketsOfAMemberWithoutShards(t *testing.T) {
	lock(t)
	plain := newSmall(t, false)
	want := plain.leaf(t, 0, 1, 1).plus(plain.leaf(t, 1, 1, 1))
	members := []member{newMember(t, false, 0), newMember(t, false, 0)}
	members[0].compute(t, 0, 4, 2, 1, 1)
	members[1].compute(t, 4, 8, 2, 1, 1)
	exchange(t, members, []int{0, 4, 8}, 2)
	for _, m := range members {
		must(t, m.Apply())
		want.equal(t, m.sums(t))
	}
}

// A dirty step that is dropped leaves no trace: of gradients, statistics, and in
// what the step comes to when it is done again with other shards.
func TestBucketsDropped(t *testing.T) {
	lock(t)
	plain, m := newSmall(t, true), newMember(t, true, 0)
	want := tree([]sums{plain.leaf(t, 0, 1, 0.5), plain.leaf(t, 1, 1, 0.5)}, 0, 2)
	before := m.sums(t)

	drops := map[string]func(){
		"between shards": func() { m.compute(t, 0, 1, 2, 1, 0.5) },
		"in a shard": func() {
			must(t, m.Begin(0, 2, 2))
			m.learn(t, 0, 0, func() {})
		},
		"after backward": func() {
			must(t, m.Begin(0, 2, 2))
			m.learn(t, 0, 0, func() { must(t, m.Arm(0, 0.5)) })
		},
		"when all is done": func() { m.compute(t, 1, 2, 2, 1, 0.5) },
	}
	for name, f := range drops {
		f()
		must(t, m.Drop())
		before.equal(t, m.sums(t))
		for _, p := range m.params() {
			if _, ok, _ := torchx.Grad(p); ok {
				t.Errorf("%s: a gradient is left", name)
			}
		}
	}

	// Begin drops what was not applied.
	m.compute(t, 0, 1, 2, 1, 0.5)
	m.compute(t, 0, 2, 2, 1, 0.5)
	must(t, m.Apply())
	want.equal(t, m.sums(t))
}

// A state that came from another member when all shards were done stays.
func TestBucketsDropKeepsANewerState(t *testing.T) {
	lock(t)
	m := newMember(t, false, 0)
	m.compute(t, 0, 1, 2, 1, 1)
	mean := m.statistics()[0]
	newer := []byte(strings.Repeat("\x00\x00\x40\x40", 5)) // 3
	must(t, torchx.Fill(mean, newer))
	must(t, m.Drop())
	if got, _ := torchx.Bytes(mean); string(got) != string(newer) {
		t.Errorf("statistics are %v", values(t, mean))
	}
}

// Each bucket is ready once a step, during backward of the last shard, those of
// the last layers before those of the first.
func TestBucketsReadyInOrderOfBackward(t *testing.T) {
	lock(t)
	m := newMember(t, true, 2000)
	for range 3 {
		came := make(chan int, 100)
		var taking sync.WaitGroup
		taking.Go(func() {
			for range m.Sizes() {
				if b, ok := m.Ready(nil); ok {
					came <- b
				}
			}
			close(came)
		})
		must(t, m.Begin(0, 2, 3))
		for s := range 2 {
			m.learn(t, s, 0, func() { must(t, m.Arm(s, 1)) })
			if s == 0 {
				must(t, m.Done())
				if len(came) > 0 {
					t.Fatalf("bucket %d is ready before the last shard", <-came)
				}
			}
		}
		must(t, m.Done())
		taking.Wait()
		var order []int
		for b := range came {
			order = append(order, b)
		}
		sorted := slices.Sorted(slices.Values(order))
		if len(order) != len(m.Sizes()) || len(slices.Compact(sorted)) != len(order) {
			t.Fatalf("buckets %v of %d", order, len(m.Sizes()))
		}
		if order[len(order)-1] != len(order)-1 {
			t.Errorf("%v: the statistics come last", order)
		}
		must(t, m.Apply())
	}
}

// Whatever ends a step, Ready returns, and not a bucket of another step.
func TestBucketsReadyEnds(t *testing.T) {
	lock(t)
	m := newMember(t, false, 0)
	buckets := len(m.Sizes())
	for i := range 300 {
		must(t, m.Begin(0, 1, 2))
		stop, ended := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			for {
				if _, ok := m.Ready(stop); !ok {
					ended <- n
					return
				}
				n++
			}
		}()
		if i%3 == 0 {
			m.learn(t, 0, 0, func() { must(t, m.Arm(0, 1)) })
			must(t, m.Done())
		}
		if i%2 == 0 {
			close(stop)
		} else {
			must(t, m.Drop())
		}
		select {
		case n := <-ended:
			if n > buckets || i%3 != 0 && n > 0 {
				t.Fatalf("step %d: %d buckets came", i, n)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Ready waits for ever")
		}
		must(t, m.Drop())
	}

	ended := make(chan bool)
	must(t, m.Begin(0, 1, 2))
	go func() {
		_, ok := m.Ready(nil)
		ended <- ok
	}()
	m.Free()
	if <-ended {
		t.Error("a bucket came out of freed ones")
	}
	if _, ok := m.Ready(nil); ok {
		t.Error("freed buckets are ready")
	}
	m.learn(t, 0, 0, func() {}) // hooks that are left over do nothing
	if _, ok, _ := torchx.Grad(m.params()[0]); !ok {
		t.Error("no gradient after Free")
	}
}

// Memory is used for the sums that wait for a neighbour, and for no more: with
// eight shards for four.
func TestBucketsUseTheMemoryOfTheirSums(t *testing.T) {
	lock(t)
	w := tensor(t, make([]float32, 1<<20), 1<<10, 1<<10)
	must(t, torchx.RequireGrad(w, true))
	x := tensor(t, make([]float32, 1<<10), 1, 1<<10)
	b, err := torchx.NewBuckets([]torchx.Tensor{w}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	f, bytes := b.Segment()
	used := func() int64 {
		i, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if i.Size() != bytes {
			t.Fatalf("the segment has %d bytes, its file %d", bytes, i.Size())
		}
		return 512 * i.Sys().(*syscall.Stat_t).Blocks
	}
	for _, c := range []struct{ from, to, present, slots int }{{0, 1, 1, 1}, {0, 2, 2, 1}, {0, 8, 8, 3}, {1, 7, 8, 4}} {
		must(t, b.Begin(c.from, c.to, c.present))
		for s := c.from; s < c.to; s++ {
			must(t, b.Arm(s, 1))
			y := torchx.Own(torch.MM(x, w))
			loss := torchx.Own(torch.Mean(y))
			must(t, torchx.Backward(loss))
			torchx.Free(y, loss)
			must(t, b.Done())
		}
		if got := used(); got > int64(c.slots)<<22+4<<20 { // a huge page may be taken at each end
			t.Errorf("shards %d to %d of %d: %d bytes are used", c.from, c.to, c.present, got)
		}
		must(t, b.Drop())
	}
}

// What does not fit is refused and says why.
func TestBucketsRefuse(t *testing.T) {
	lock(t)
	refused := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v; %q is missing", err, words)
		}
	}
	_, err := torchx.NewBuckets(nil, nil, 0)
	refused(err, "no parameters")
	fixed := tensor(t, []float32{1}, 1)
	_, err = torchx.NewBuckets([]torchx.Tensor{fixed}, nil, 0)
	refused(err, "parameter 0 is not a leaf that is trained")
	m := newMember(t, false, 0)
	_, err = torchx.NewBuckets(m.params(), nil, -1)
	refused(err, "-1 bytes")
	whole, err := torchx.FromBytes(make([]byte, 8), torchx.I64, []int64{1})
	must(t, err)
	defer torchx.Free(whole)
	_, err = torchx.NewBuckets(m.params(), []torchx.Tensor{whole}, 0)
	refused(err, "sums are of float32")

	refused(m.Apply(), "no step")
	refused(m.Arm(0, 1), "outside of a step")
	refused(m.Begin(2, 1, 4), "shards 2 to 1 of 4")
	refused(m.Begin(0, 1, 5000), "at most 4096")
	must(t, m.Begin(1, 3, 4))
	refused(m.Done(), "no shard was armed")
	refused(m.Arm(2, 1), "shard 2 is not the next one, 1")
	refused(m.Apply(), "shard 1 of those up to 3 is not done")
	m.learn(t, 1, 0, func() { must(t, m.Arm(1, 1)) })
	refused(m.Arm(2, 1), "before the one before is done")
	err = torchx.Catch(func() error {
		y := torchx.Own(torch.Mean(m.head.Weight))
		defer torchx.Free(y)
		return torchx.Backward(y)
	})
	refused(err, "a second backward pass")
	must(t, m.Drop())
}

// Sum follows a program; its inputs stay, and out may be any memory.
func TestBucketsSum(t *testing.T) {
	lock(t)
	m := newMember(t, false, 0)
	for _, n := range []int{0, 1, 15, 16, 17, 2048, 5001} {
		in := make([][]float32, 5)
		for i := range in {
			in[i] = make([]float32, n)
			for k := range in[i] {
				in[i][k] = float32(k+1) / float32(3*i+7)
			}
		}
		for _, p := range [][][2]int{{}, {{0, 1}}, {{0, 1}, {2, 3}, {0, 2}, {0, 4}}, {{3, 4}, {2, 3}, {1, 2}, {0, 1}}, {{0, 1}, {3, 4}}} {
			want := make([][]float32, len(in))
			for i := range in {
				want[i] = slices.Clone(in[i])
			}
			var program []group.Merge
			for _, s := range p {
				program = append(program, group.Merge{To: s[0], From: s[1]})
				for k := range n {
					want[s[0]][k] += want[s[1]][k]
				}
			}
			kept := make([][]float32, len(in))
			for i := range in {
				kept[i] = slices.Clone(in[i])
			}
			out := make([]float32, n)
			m.Sum(out, in, program)
			if !slices.Equal(out, want[0]) {
				t.Fatalf("%d floats, program %v: another sum", n, p)
			}
			for i := range in {
				if !slices.Equal(in[i], kept[i]) {
					t.Fatalf("%d floats, program %v: input %d has changed", n, p, i)
				}
			}
		}
	}
}
