package group_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/worker/trainer/group"
)

// buckets cuts so many floats into buckets of at most 4 MiB, a small first one, as
// torchx.Buckets does.
func buckets(floats int) (sizes []int) {
	size := 1 << 18
	for floats > 0 {
		sizes = append(sizes, min(size, floats))
		floats -= sizes[len(sizes)-1]
		size = 1 << 20
	}
	return sizes
}

// reduce takes part in so many steps whose contributions are ready at once.
func reduce(m *member, sizes []int, shards, steps int, shared bool) (wall, cpu time.Duration, err error) {
	g, err := group.Start(context.Background(), m.cfg)
	if err != nil {
		return 0, 0, err
	}
	defer g.Close()
	v := g.View()
	mem, err := group.NewSlices(sizes, group.Nodes(v.From, v.To, shards), shared)
	if err != nil {
		return 0, 0, err
	}
	defer mem.Free()
	var began time.Time
	for step := range steps + 3 {
		if step == 3 {
			began, cpu = time.Now(), used()
		}
		for b := range sizes {
			mem.Done(b)
		}
		if _, err := g.Begin(int64(step+1), shards, mem).Commit(nil); err != nil {
			return 0, 0, err
		}
	}
	return time.Since(began), used() - cpu, nil
}

// BenchmarkReduce measures a step whose gradients are all there: how long its sums
// take where nothing overlaps. Members are processes. Beside it a copy of as much.
func BenchmarkReduce(b *testing.B) {
	for _, model := range []struct {
		name   string
		floats int
	}{{"resnet18", 46_800_000 / 4}, {"mobilenet_v2", 9_200_000 / 4}, {"one", 64}} {
		b.Run(model.name+"/memcpy", func(b *testing.B) {
			from, to := make([]float32, model.floats), make([]float32, model.floats)
			for i := range from { // pages of zeros would be one page
				from[i] = float32(i)
			}
			copy(to, from)
			for b.Loop() {
				copy(to, from)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/step")
		})
		for _, n := range []int{1, 2, 4} {
			for _, local := range []bool{true, false} {
				if n == 1 && !local {
					continue
				}
				way := map[bool]string{true: "memory", false: "frames"}[local]
				b.Run(fmt.Sprintf("%s/%d/%s", model.name, n, way), func(b *testing.B) {
					steps := max(b.N, 5)
					wall, cpu := processes(b, n, model.floats, steps, local)
					b.ReportMetric(wall.Seconds()*1000/float64(steps), "ms/step")
					b.ReportMetric(cpu.Seconds()*1000/float64(steps*n), "cpu-ms/step")
				})
			}
		}
	}
}

// used is the processor time of this process.
func used() time.Duration {
	var use syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// processes runs the members and returns the time of the slowest for its steps, and
// their processor time in all.
func processes(b *testing.B, n, floats, steps int, local bool) (wall, cpu time.Duration) {
	list, wait := spawn(b, "reduce", n, n, floats, steps, local)
	wait()
	for i, p := range list {
		var w, c int64
		fmt.Sscan(p.field("REDUCED"), &w, &c)
		if p.err != nil || w == 0 {
			b.Errorf("member %d: %v: %s", i+1, p.err, p.out.String())
		}
		wall, cpu = max(wall, time.Duration(w)), cpu+time.Duration(c)
	}
	return wall, cpu
}

// BenchmarkLoss measures from the end of a member to the moment when the others,
// which wait for it, have the next view.
func BenchmarkLoss(b *testing.B) {
	for _, n := range []int{2, 3, 8} {
		for _, dies := range []int{1, n} {
			b.Run(fmt.Sprintf("%d/member%d", n, dies), func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					b.StopTimer()
					d := loss(b, n, dies)
					took = append(took, d)
					b.StartTimer()
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func loss(b *testing.B, n, dies int) time.Duration {
	var members []*member
	for _, id := range ids(n) {
		members = append(members, newMember(id, ids(n), n, false))
	}
	for i, x := range members {
		for _, y := range members[i+1:] {
			connect(b, 7, x.id, y.id, x.links, y.links, true)
		}
	}
	var began, waiting sync.WaitGroup
	began.Add(n)
	ends := make([]time.Time, n)
	for i, m := range members {
		waiting.Go(func() {
			g, err := group.Start(context.Background(), m.cfg)
			m.group = g
			began.Done()
			if err != nil {
				b.Error(err)
				return
			}
			if m.id == dies {
				return
			}
			var changed *group.Changed
			if _, err := g.Begin(1, n, nil).Commit(nil); !errors.As(err, &changed) || len(changed.View.Members) != n-1 {
				b.Error(err)
			}
			ends[i] = time.Now()
		})
	}
	began.Wait()
	time.Sleep(5 * time.Millisecond)
	at := time.Now()
	members[dies-1].group.Kill()
	waiting.Wait()
	longest := time.Duration(0)
	for i, m := range members {
		if m.id != dies {
			longest = max(longest, ends[i].Sub(at))
		}
		m.group.Close()
	}
	return longest
}
