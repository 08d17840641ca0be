package group_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/worker/trainer/group"
)

// nothing is a state that nobody asks for.
type nothing struct{}

func (nothing) Write(io.Writer) error { return nil }
func (nothing) Read(io.Reader) error  { return nil }

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

// used is the processor time of this process.
func used() time.Duration {
	var use syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// TestReduceProcess is a member of BenchmarkReduce in a process of its own.
func TestReduceProcess(t *testing.T) {
	if os.Getenv("GROUP_REDUCE") == "" {
		t.Skip("only as a process of BenchmarkReduce")
	}
	var id, n, floats, steps int
	var local bool
	fmt.Sscan(os.Getenv("GROUP_REDUCE"), &id, &n, &floats, &steps, &local)
	m := newMember(id, ids(n), n, false)
	m.links = nil
	m.cfg.Links = links.NewReceiver(os.NewFile(3, "links"))
	d, cpu, err := reduce(m, buckets(floats), n, steps, local)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString(fmt.Sprintf("REDUCED %d %d\n", d.Nanoseconds(), cpu.Nanoseconds()))
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

// processes runs the members and returns the time of the slowest for its steps, and
// their processor time in all.
func processes(b *testing.B, n, floats, steps int, local bool) (wall, cpu time.Duration) {
	var senders []*links.Sender
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, id := range ids(n) {
		host, trainer, err := links.Pair()
		if err != nil {
			b.Fatal(err)
		}
		senders = append(senders, links.NewSender(host))
		cmd := exec.Command(os.Args[0], "-test.run=^TestReduceProcess$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), fmt.Sprintf("GROUP_REDUCE=%d %d %d %d %v", id, n, floats, steps, local))
		cmd.ExtraFiles = []*os.File{trainer}
		wg.Go(func() {
			out, err := cmd.CombinedOutput()
			trainer.Close()
			mu.Lock()
			defer mu.Unlock()
			var w, c int64
			for _, line := range splitLines(out) {
				fmt.Sscanf(line, "REDUCED %d %d", &w, &c)
			}
			if err != nil || w == 0 {
				b.Errorf("member %d: %v: %s", id, err, out)
			}
			wall, cpu = max(wall, time.Duration(w)), cpu+time.Duration(c)
		})
	}
	for i := range n {
		for j := i + 1; j < n; j++ {
			fa, fb, err := links.Pair()
			if err != nil {
				b.Fatal(err)
			}
			if err := senders[i].Send(links.Header{Token: 7, Member: j + 1, Name: name(j + 1), Local: local}, fa); err != nil {
				b.Fatal(err)
			}
			if err := senders[j].Send(links.Header{Token: 7, Member: i + 1, Name: name(i + 1), Local: local}, fb); err != nil {
				b.Fatal(err)
			}
		}
	}
	wg.Wait()
	return wall, cpu
}

func splitLines(b []byte) (lines []string) {
	start := 0
	for i, c := range b {
		if c == '\n' {
			lines = append(lines, string(b[start:i]))
			start = i + 1
		}
	}
	return lines
}
