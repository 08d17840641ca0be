package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// program is a process started with its flags as a person would.
type program struct {
	cmd *exec.Cmd
	log *buffer
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }

func (b *buffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func runProgram(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{exec.Command(filepath.Join(bin, name), args...), &buffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("-- %s\n%s", strings.Join(args[:4], " "), p.log)
		}
	})
	return p
}

func (p *program) end(sig os.Signal) { p.cmd.Process.Signal(sig); p.cmd.Wait() }

func ports(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func coordinatorArgs(dir, id string, at []string, more ...string) []string {
	return append([]string{"--id", id, "--data", filepath.Join(dir, id), "--api", at[0], "--raft", at[1], "--gossip", at[2]}, more...)
}

func workerArgs(dir, name string, at []string, more ...string) []string {
	return append([]string{"--name", name, "--data", filepath.Join(dir, name), "--listen", at[0], "--gossip", at[1], "--slots", "1", "--warm", "none"}, more...)
}

func eventually(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never came: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func votersAt(ctx context.Context, c *client.Client) int {
	members, err := c.Members(ctx)
	n := 0
	if err == nil {
		for _, m := range members {
			if m.Suffrage == "voter" {
				n++
			}
		}
	}
	return n
}

const longSweep = `
name: moved
search_method: random
seed: 7
objective: {metric: val_loss, direction: minimize}
budget: {trials: 6}
parallelism: 2
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
training: {epochs: 8, epoch_seconds: 0.25}
`

// A power cut, and everything comes back at other addresses, in any order: each
// process is told one new gossip address. Then the coordinators alone move, one
// worker lives on and knows nothing of it.
func TestEverythingComesBackElsewhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := t.TempDir()
	ids := []string{"c1", "c2", "c3"}
	at := ports(t, 9)
	of := func(i int) []string { return at[3*i : 3*i+3] }
	coordinators := make([]*program, 3)
	coordinators[0] = runProgram(t, "atelier-coordinator", coordinatorArgs(dir, "c1", of(0), "--bootstrap")...)
	for i := 1; i < 3; i++ {
		coordinators[i] = runProgram(t, "atelier-coordinator", coordinatorArgs(dir, ids[i], of(i), "--join", of(0)[2])...)
	}
	c := client.New([]string{of(0)[0]})
	eventually(t, ctx, "three voters", func() bool { return votersAt(ctx, c) == 3 })
	wat := ports(t, 2)
	worker := runProgram(t, "atelier-worker", workerArgs(dir, "w1", wat, "--join", of(0)[2])...)
	id := submit(t, ctx, c, longSweep)
	await(t, ctx, c, id, "a trial is done", func(s *trial.Sweep) bool { return s.Counts.Finished >= 1 })

	// Everything at once.
	for _, p := range append(slices.Clone(coordinators), worker) {
		p.end(syscall.SIGKILL)
	}
	at, wat = ports(t, 9), ports(t, 2)
	began := time.Now()
	for _, i := range rand.Perm(4) {
		if i == 3 {
			runProgram(t, "atelier-worker", workerArgs(dir, "w1", wat, "--join", of(rand.IntN(3))[2])...)
			continue
		}
		coordinators[i] = runProgram(t, "atelier-coordinator", coordinatorArgs(dir, ids[i], of(i), "--join", of((i + 1) % 3)[2])...)
	}
	c = client.New([]string{of(0)[0]})
	before := await(t, ctx, c, id, "the sweep is there", func(*trial.Sweep) bool { return true })
	t.Logf("the sweep was answered for %v after the first start", time.Since(began).Round(time.Millisecond))
	await(t, ctx, c, id, "another trial is done", func(s *trial.Sweep) bool { return s.Counts.Finished > before.Counts.Finished })

	// The coordinators alone, and nobody is told of the worker: its gossip
	// address is among what they wrote down.
	eventually(t, ctx, "each has written down where the worker gossips", func() bool {
		for _, id := range ids {
			b, err := os.ReadFile(filepath.Join(dir, id, "node.json"))
			if err != nil || !strings.Contains(string(b), wat[1]) {
				return false
			}
		}
		return true
	})
	for _, p := range coordinators {
		p.end(syscall.SIGTERM)
	}
	at = ports(t, 9)
	for _, i := range rand.Perm(3) {
		coordinators[i] = runProgram(t, "atelier-coordinator", coordinatorArgs(dir, ids[i], of(i))...)
	}
	c = client.New([]string{of(2)[0]})
	s := await(t, ctx, c, id, "the sweep ends", ended)
	if s.Counts.Finished != 6 || s.Counts.Proposed != 6 {
		t.Errorf("ended as %v", s.Counts)
	}
	for _, tr := range trials(t, ctx, c, id) {
		if tr.Status != trial.Finished {
			t.Errorf("trial %d is %v: %s", tr.Number, tr.Status, tr.Failure)
		}
	}
}

// A worker whose folder belongs to a cluster serves no other, whoever names it.
func TestWorkerServesItsOwnCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	at := ports(t, 8)
	runProgram(t, "atelier-coordinator", coordinatorArgs(dir, "a1", at[:3], "--bootstrap")...)
	runProgram(t, "atelier-coordinator", coordinatorArgs(dir, "b1", at[3:6], "--bootstrap")...)
	known := func(api string) bool {
		c := client.New([]string{api})
		workers, err := c.Workers(ctx)
		return err == nil && len(workers) == 1
	}
	w := runProgram(t, "atelier-worker", workerArgs(dir, "w1", at[6:], "--join", at[2])...)
	eventually(t, ctx, "a1 knows the worker", func() bool { return known(at[0]) })
	w.end(syscall.SIGTERM)

	w = runProgram(t, "atelier-worker", workerArgs(dir, "w1", at[6:], "--addr", at[3])...)
	done := make(chan error, 1)
	go func() { done <- w.cmd.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(w.log.String(), "belongs to cluster c-") {
			t.Errorf("it ended with %v\n%s", err, w.log)
		}
	case <-ctx.Done():
		w.cmd.Process.Kill()
		<-done // two calls of Wait at once may not return
		t.Fatal("it serves another cluster")
	}
	if known(at[3]) {
		t.Error("b1 lists the worker")
	}
	// A new worker that is led to both stops, too.
	w = runProgram(t, "atelier-worker", workerArgs(dir, "w2", at[6:], "--join", at[2]+","+at[5])...)
	err := w.cmd.Wait()
	if err == nil || !strings.Contains(w.log.String(), "leads to 2 clusters") {
		t.Errorf("it ended with %v\n%s", err, w.log)
	}
}
