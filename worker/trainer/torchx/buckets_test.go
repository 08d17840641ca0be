//go:build libtorch

package torchx_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/group"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// small is a net of every kind of gradient: convolutions of both layouts and
// 1x1, normalisations, a linear layer, one that every second batch uses, and one
// that nothing uses.
type small struct {
	body               *nn.Sequential
	head, even, unused *nn.Linear
}

func newSmall(t *testing.T, channelsLast bool) *small {
	t.Helper()
	if err := torchx.Seed(7); err != nil {
		t.Fatal(err)
	}
	n := &small{
		body: nn.NewSequential(nn.NewConv2d(3, 5, 3, nn.Conv{Padding: 1, Bias: true}), nn.NewBatchNorm2d(5), &nn.ReLU{},
			nn.NewConv2d(5, 19, 1, nn.Conv{}), nn.NewBatchNorm2d(19), &nn.ReLU{}, &nn.AvgPool{Side: 1}),
		head: nn.NewLinear(19, 130), even: nn.NewLinear(130, 3), unused: nn.NewLinear(2, 2),
	}
	for _, e := range n.state() {
		if e.Kind != nn.Counter {
			if err := torchx.Move(e.Tensor, torchx.CPU, channelsLast); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		for _, e := range n.state() {
			torchx.Free(e.Tensor)
		}
	})
	return n
}

func (n *small) state() []nn.Entry {
	return slices.Concat(nn.State(n.body), nn.State(n.head), nn.State(n.even), nn.State(n.unused))
}

func (n *small) of(kind nn.Kind) (ts []torchx.Tensor) {
	for _, e := range n.state() {
		if e.Kind == kind {
			ts = append(ts, e.Tensor)
		}
	}
	return ts
}

func (n *small) params() []torchx.Tensor     { return n.of(nn.Weight) }
func (n *small) statistics() []torchx.Tensor { return n.of(nn.Buffer) }

// learn is a forward and a backward pass over batch k of a shard; armed is called
// before backward.
func (n *small) learn(t *testing.T, shard, k int, armed func()) {
	t.Helper()
	draw := rand.New(rand.NewPCG(uint64(shard), uint64(k)))
	pixels := make([]float32, 2*3*6*6)
	for i := range pixels {
		pixels[i] = float32(draw.NormFloat64())
	}
	x := tensor(t, pixels, 2, 3, 6, 6)
	p := nn.Pass{Training: true}
	defer p.Close()
	y := p.Keep(torch.Tanh(n.head.Forward(&p, p.Forward(n.body, x))))
	if (shard+k)%2 == 0 {
		y = n.even.Forward(&p, y)
	}
	loss := p.Keep(torch.Mean(p.Keep(torch.Mul(y, y))))
	armed()
	if err := torchx.Backward(loss); err != nil {
		t.Fatal(err)
	}
}

// sums are the gradients and then the statistics of a net, by tensor.
type sums [][]float32

func (n *small) sums(t *testing.T) (all sums) {
	t.Helper()
	for _, p := range n.params() {
		g, ok, err := torchx.Grad(p)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			i, _ := torchx.Describe(p)
			all = append(all, make([]float32, i.Len()))
			continue
		}
		all = append(all, values(t, g))
		torchx.Free(g)
	}
	for _, s := range n.statistics() {
		all = append(all, values(t, s))
	}
	return all
}

func (a sums) plus(b sums) (c sums) {
	for i := range a {
		c = append(c, make([]float32, len(a[i])))
		for k := range c[i] {
			c[i][k] = a[i][k] + b[i][k]
		}
	}
	return c
}

func (a sums) equal(t *testing.T, b sums) {
	t.Helper()
	for i := range a {
		for k := range a[i] {
			if math.Float32bits(a[i][k]) != math.Float32bits(b[i][k]) {
				t.Fatalf("tensor %d, value %d: %x is not %x", i, k, math.Float32bits(b[i][k]), math.Float32bits(a[i][k]))
			}
		}
	}
}

// leaf is what one shard of batches comes to by plain backward passes. It leaves
// the net as it was.
func (n *small) leaf(t *testing.T, shard, batches int, weight float32) sums {
	t.Helper()
	return n.leafOf(t, shard, 0, batches, weight)
}

// leafOf is that of the batches from up to to.
func (n *small) leafOf(t *testing.T, shard, from, to int, weight float32) sums {
	t.Helper()
	before := n.keep(t)
	for k := from; k < to; k++ {
		n.learn(t, shard, k, func() {})
	}
	all := n.sums(t)
	for _, s := range all[len(n.params()):] {
		for k := range s {
			s[k] *= weight
		}
	}
	if err := torchx.DropGrads(n.params()); err != nil {
		t.Fatal(err)
	}
	before()
	return all
}

// keep returns what puts statistics back.
func (n *small) keep(t *testing.T) func() {
	t.Helper()
	var before [][]byte
	for _, s := range n.statistics() {
		b, err := torchx.Bytes(s)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, b)
	}
	return func() {
		for i, s := range n.statistics() {
			if err := torchx.Fill(s, before[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// tree is the sum of the leaves [from, from+width) of leaves, width a power of two.
func tree(leaves []sums, from, width int) sums {
	if width == 1 {
		return leaves[from]
	}
	left := tree(leaves, from, width/2)
	if from+width/2 >= len(leaves) {
		return left
	}
	return left.plus(tree(leaves, from+width/2, width/2))
}

func width(present int) int {
	w := 1
	for w < present {
		w *= 2
	}
	return w
}

// node is one of the tree's with all its leaves below present in [from, to), and
// no parent that is such.
type node struct{ from, width int }

func wholes(at node, from, to, present int) []node {
	end := min(at.from+at.width, present)
	switch {
	case at.from >= present || at.from >= to || end <= from:
		return nil
	case at.from >= from && end <= to:
		return []node{at}
	}
	half := at.width / 2
	return append(wholes(node{at.from, half}, from, to, present), wholes(node{at.from + half, half}, from, to, present)...)
}

// program completes the tree from nodes.
func program(all []node, at node, present int) (slot int, merges []group.Merge) {
	if slot := slices.Index(all, at); slot >= 0 {
		return slot, nil
	}
	half := at.width / 2
	slot, merges = program(all, node{at.from, half}, present)
	if at.from+half < present {
		from, more := program(all, node{at.from + half, half}, present)
		merges = append(append(merges, more...), group.Merge{To: slot, From: from})
	}
	return slot, merges
}

// member is a net and its sums.
type member struct {
	*small
	*torchx.Buckets
}

func newMember(t *testing.T, channelsLast bool, bucketBytes int) member {
	t.Helper()
	n := newSmall(t, channelsLast)
	b, err := torchx.NewBuckets(n.params(), n.statistics(), bucketBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	return member{n, b}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// compute is a member's part of a step.
func (m member) compute(t *testing.T, from, to, present, batches int, weight float64) {
	t.Helper()
	must(t, m.Begin(from, to, present))
	for s := min(from, present); s < min(to, present); s++ {
		for k := range batches {
			m.learn(t, s, k, func() {
				if k == batches-1 {
					must(t, m.Arm(s, weight))
				}
			})
		}
		must(t, m.Done())
	}
}

// exchange is what a group does between members: cuts has the first shard of each.
func exchange(t *testing.T, members []member, cuts []int, present int) {
	t.Helper()
	root := node{0, width(present)}
	var all []node
	for i := range members {
		all = append(all, wholes(root, cuts[i], cuts[i+1], present)...)
	}
	_, merges := program(all, root, present)
	for bucket, size := range members[0].Sizes() {
		var in [][]float32
		for i, m := range members {
			nodes := len(wholes(root, cuts[i], cuts[i+1], present))
			if nodes != group.Nodes(cuts[i], cuts[i+1], present) {
				t.Fatalf("%d nodes of shards %d to %d of %d, the group counts %d", nodes, cuts[i], cuts[i+1], present, group.Nodes(cuts[i], cuts[i+1], present))
			}
			for k := range nodes {
				c, _ := m.Contribution(bucket, k)
				in = append(in, c)
			}
		}
		for i, m := range members {
			own, _ := m.Own(bucket)
			if len(own) != size {
				t.Fatalf("own part of bucket %d has %d floats of %d", bucket, len(own), size)
			}
			m.Sum(own, in, merges)
			copy(members[(i+1)%len(members)].Result(bucket), own)
		}
	}
}

// Every split of every number of shards comes to the bits of the tree written out.
func TestBucketsSumAlongTheTree(t *testing.T) {
	lock(t)
	for _, channelsLast := range []bool{false, true} {
		plain := newSmall(t, channelsLast)
		members := []member{}
		for range 4 {
			members = append(members, newMember(t, channelsLast, 2000))
		}
		if n := len(members[0].Sizes()); n < 4 {
			t.Fatalf("%d buckets", n)
		}
		for present := 1; present <= 9; present++ {
			weight := 1 / float32(present)
			var leaves []sums
			for s := range present {
				leaves = append(leaves, plain.leaf(t, s, 1, weight))
			}
			want := tree(leaves, 0, width(present))
			for _, cuts := range splits(present, len(members)) {
				t.Run(fmt.Sprint("channels_last=", channelsLast, " shards=", present, " cuts=", cuts), func(t *testing.T) {
					var put []func()
					those := members[:len(cuts)-1]
					for i, m := range those {
						put = append(put, m.keep(t))
						m.compute(t, cuts[i], cuts[i+1], present, 1, float64(weight))
					}
					if len(those) > 1 {
						exchange(t, those, cuts, present)
					}
					for i, m := range those {
						must(t, m.Apply())
						want.equal(t, m.sums(t))
						put[i]()
					}
				})
			}
		}
	}
}

// splits are the ways to cut shards into up to most members that all have some.
func splits(shards, most int) (all [][]int) {
	var cut func(cuts []int)
	cut = func(cuts []int) {
		last := cuts[len(cuts)-1]
		if len(cuts) > 1 {
			all = append(all, append(slices.Clone(cuts), shards))
		}
		for next := last + 1; next < shards && len(cuts) < most; next++ {
			cut(append(slices.Clone(cuts), next))
		}
	}
	cut([]int{0})
	return append(all, []int{0, shards})
}
