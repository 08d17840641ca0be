package group_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/links"
)

// TestMain is a member in a process that a test or benchmark started, else the
// tests.
func TestMain(m *testing.M) {
	if job := os.Getenv("GROUP_MEMBER"); job != "" {
		if err := memberProcess(job); err != nil {
			fmt.Println("ERROR", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func memberProcess(job string) error {
	var what string
	var id, n, shards, size, steps int
	var local bool
	if _, err := fmt.Sscan(job, &what, &id, &n, &shards, &size, &steps, &local); err != nil {
		return err
	}
	m := newMember(id, ids(n), shards, false)
	m.cfg.Links = links.NewReceiver(os.NewFile(3, "links"))
	if what == "reduce" {
		wall, cpu, err := reduce(m, buckets(size), n, steps, local)
		fmt.Printf("REDUCED %d %d\n", wall.Nanoseconds(), cpu.Nanoseconds())
		return err
	}
	m.cfg.Silence = time.Second
	m.pause = func() { time.Sleep(time.Millisecond) }
	if err := m.run(shards, int64(steps)); err != nil {
		return err
	}
	reason := ""
	for _, v := range m.views {
		reason += v.Reason + "; "
	}
	fmt.Printf("HASH %s\n", m.model.hash())
	fmt.Printf("VIEWS %s\n", reason)
	return nil
}

// process is a member in a process of its own.
type process struct {
	cmd *exec.Cmd
	out strings.Builder
	err error
}

// spawn starts members as processes, linked to each other.
func spawn(t testing.TB, what string, n, shards, size, steps int, local bool) (list []*process, wait func()) {
	t.Helper()
	var senders []*links.Sender
	var wg sync.WaitGroup
	for _, id := range ids(n) {
		host, trainer, err := links.Pair()
		if err != nil {
			t.Fatal(err)
		}
		senders = append(senders, links.NewSender(host))
		p := &process{cmd: exec.Command(os.Args[0])}
		p.cmd.Env = append(os.Environ(), fmt.Sprintf("GROUP_MEMBER=%s %d %d %d %d %d %v", what, id, n, shards, size, steps, local))
		p.cmd.ExtraFiles = []*os.File{trainer}
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		trainer.Close()
		t.Cleanup(func() { p.cmd.Process.Kill() })
		wg.Go(func() { p.err = p.cmd.Wait() })
		list = append(list, p)
	}
	for i := range n {
		for j := i + 1; j < n; j++ {
			fa, fb, err := links.Pair()
			if err != nil {
				t.Fatal(err)
			}
			if err := senders[i].Send(links.Header{Token: 7, Member: j + 1, Name: name(j + 1), Local: local}, fa); err != nil {
				t.Fatal(err)
			}
			if err := senders[j].Send(links.Header{Token: 7, Member: i + 1, Name: name(i + 1), Local: local}, fb); err != nil {
				t.Fatal(err)
			}
		}
	}
	return list, wg.Wait
}

// field is what a process printed after a word.
func (p *process) field(word string) string {
	for line := range strings.Lines(p.out.String()) {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// Processes killed by the kernel at random moments: those that are left end with
// the state of one member.
func TestKilledProcesses(t *testing.T) {
	const shards, steps = 8, 40
	want := oneMember(shards, steps)
	for seed := range max(4, stressRuns(t, 20)/4) {
		rng := rand.New(rand.NewPCG(uint64(seed), 5))
		n, local := 2+rng.IntN(4), rng.IntN(4) > 0
		list, wait := spawn(t, "train", n, shards, 0, steps, local)
		killed := map[int]bool{}
		for range 1 + rng.IntN(n-1) {
			time.Sleep(20*time.Millisecond + time.Duration(rng.Int64N(int64(80*time.Millisecond))))
			i := rng.IntN(n)
			killed[i] = true
			list[i].cmd.Process.Kill()
		}
		wait()
		for i, p := range list {
			if !killed[i] && p.field("HASH") != want {
				t.Errorf("seed %d: member %d of %d, %d killed: %v: %s", seed, i+1, n, len(killed), p.err, p.out.String())
			}
		}
	}
}

// A stopped process on the same machine is left out after its silence, and ends
// when it is continued: the others went on without it.
func TestAStoppedProcess(t *testing.T) {
	const shards, steps = 8, 150
	want := oneMember(shards, steps)
	for stopped := range 2 {
		list, wait := spawn(t, "train", 2, shards, 0, steps, true)
		time.Sleep(150 * time.Millisecond)
		list[stopped].cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(1500 * time.Millisecond)
		list[stopped].cmd.Process.Signal(syscall.SIGCONT)
		wait()
		for i, p := range list {
			if i == stopped {
				if !strings.HasPrefix(p.field("ERROR"), "cut off from the group") {
					t.Errorf("the stopped member: %s", p.out.String())
				}
			} else if p.field("HASH") != want || !strings.Contains(p.field("VIEWS"), name(stopped+1)+" was silent for 1s") {
				t.Errorf("member %d: %s", i+1, p.out.String())
			}
		}
	}
}
