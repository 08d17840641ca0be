//go:build libtorch

package train

import (
	"runtime"
	"testing"

	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/torchx"
)

// The bound below which nothing is measured holds for those architectures that
// keep most for an image, EfficientNet before all.
func TestNoStepTakesMore(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := torchx.Init(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arch         string
		channelsLast bool
	}{{"resnet50", true}, {"efficientnet_b4", false}, {"mobilenet_v3_large", false}, {"vanilla", false}} {
		t.Run(c.arch, func(t *testing.T) {
			r := &run{settings: settings.Settings{Model: c.arch, ImageSize: 64, DropoutRate: -1, Optimizer: "adam"}, device: torchx.CPU,
				data: &data{classes: []string{"a", "b"}, channelsLast: c.channelsLast}}
			if err := torchx.Seed(3); err != nil {
				t.Fatal(err)
			}
			state, err := torchx.RandomState(torchx.CPU)
			if err != nil {
				t.Fatal(err)
			}
			before := torchx.MemoryNow().Live
			m, err := r.measureStep()
			if err != nil {
				t.Fatal(err)
			}
			if after, err := torchx.RandomState(torchx.CPU); err != nil || string(after) != string(state) {
				t.Errorf("the generator was moved (%v)", err)
			}
			if left := torchx.MemoryNow().Live; left > before+1<<20 {
				t.Errorf("%d bytes are left over", left-before)
			}
			like, err := model.New(c.arch, model.Options{Classes: 2, Dropout: -1})
			if err != nil {
				t.Fatal(err)
			}
			n, err := like.Parameters()
			like.Free()
			if err != nil {
				t.Fatal(err)
			}
			image, fixed := m.image/(4*3*64*64), m.fixed/(4*float64(n))
			t.Logf("an image takes %.0f times its input, the rest is %.1f times the weights", image, fixed)
			if image > stepOverInput || fixed > stepOverWeights || image < 20 {
				t.Errorf("an image takes %.0f times its input (bound %d), the rest is %.1f times the weights (bound %d)", image, stepOverInput, fixed, stepOverWeights)
			}
		})
	}
}

// Sums of shards are counted, and enough of them for every share of the tree that
// a member can have: its nodes, its piece of the result, and the whole sum.
func TestSumsOfShardsAreCounted(t *testing.T) {
	for _, c := range []struct {
		s      settings.Settings
		shared bool
		want   int
	}{
		{settings.Settings{Shards: 1, Accumulate: 1}, false, 0},
		{settings.Settings{Shards: 1, Accumulate: 2, EMADecay: 0.9}, false, 2},
		{settings.Settings{Shards: 2, Accumulate: 1}, false, 2},
		{settings.Settings{Shards: 4, Accumulate: 1}, false, 3},
		{settings.Settings{Shards: 4, Accumulate: 1}, true, 5},
		{settings.Settings{Shards: 5, Accumulate: 1, EMADecay: 0.9}, true, 7},
	} {
		if got := copies(c.s, c.shared); got != c.want {
			t.Errorf("%d shards, shared %t: %d copies, want %d", c.s.Shards, c.shared, got, c.want)
		}
	}
	for shards := 2; shards <= 64; shards++ {
		s := settings.Settings{Shards: shards, Accumulate: 1}
		for members := 1; members <= shards; members++ {
			for rank := range members {
				from, to := group.Share(shards, members, rank)
				most := 0.0 // sums at a time, each leaf with one of its own
				for end := from + 1; end <= to; end++ {
					most = max(most, float64(group.Nodes(from, end, shards)))
				}
				if members > 1 {
					most += 1 + 1/float64(members)
				}
				if got := copies(s, members > 1); float64(got) < most {
					t.Errorf("%d shards, rank %d of %d members: %d copies are counted, %.2f used", shards, rank, members, got, most)
				}
			}
		}
	}
}

// Members that begin on one machine share what is free there; a newcomer finds what
// they have taken.
func TestMembersShareTheMachinesMemory(t *testing.T) {
	group := func(member int, join bool, names ...string) *trainerproto.Group {
		g := &trainerproto.Group{Member: member, Join: join}
		for i, name := range names {
			g.Members = append(g.Members, trainerproto.Fellow{Member: i + 1, Name: name})
		}
		return g
	}
	for _, c := range []struct {
		group *trainerproto.Group
		want  int
	}{
		{nil, 1},
		{group(1, false, "w1/cpu0", "w1/cpu1", "w2/cpu0"), 2},
		{group(3, false, "w1/cpu0", "w1/cpu1", "w2/cpu0"), 1},
		{group(2, false, "member 1", "member 2", "member 3"), 3},
		{group(2, true, "w1/cpu0", "w1/cpu1"), 1},
	} {
		if got := (&run{job: trainerproto.Job{Group: c.group}}).sharers(); got != c.want {
			t.Errorf("%+v: %d share the machine, want %d", c.group, got, c.want)
		}
	}
}
