package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// twin is a worker beside those of the cluster, with a name of the test's choice.
type twin struct {
	cmd  *exec.Cmd
	log  lockedBuffer
	gone chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startTwin(t *testing.T, cluster *local.Cluster, name, data string) *twin {
	t.Helper()
	w := &twin{gone: make(chan struct{})}
	w.cmd = exec.Command(filepath.Join(bin, "atelier-worker"), "--name", name, "--data", data, "--addr", strings.Join(cluster.APIAddrs(), ","),
		"--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--join", cluster.Coordinators[0].Gossip, "--slots", "1", "--threads-per-slot", "1")
	w.cmd.Stderr = &w.log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, w.cmd.Start())
	go func() { w.cmd.Wait(); close(w.gone) }()
	t.Cleanup(func() { w.kill() })
	return w
}

func (w *twin) kill() {
	w.cmd.Process.Kill()
	<-w.gone
}

// refused waits for the twin's end, which must say why.
func (w *twin) refused(t *testing.T, ctx context.Context, why string) {
	t.Helper()
	select {
	case <-w.gone:
	case <-ctx.Done():
		t.Fatalf("the second worker goes on:\n%s", &w.log)
	}
	text := w.log.String()
	if w.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:], why) {
		t.Errorf("it ended with %v, want 1 and %q last:\n%s", w.cmd.ProcessState, why, text)
	}
}

// A name belongs to one data folder at a time: a second worker of the name is
// told and ends, the first goes on; a copy of a folder ends its elder; a machine
// that was replaced has the name once the old one's term is over.
func TestTwoWorkersOfOneName(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, LeaseTTL: 3 * time.Second})
	c := cluster.Client()
	spec := `
name: twins
search_method: random
seed: 7
objective: {metric: val_loss, direction: minimize}
budget: {trials: 200}
parallelism: 4
trainer: sim
space: {lr: {type: float, low: 1.0e-5, high: 0.1, log: true}}
training: {epochs: 2000, epoch_seconds: 0.2}
`
	first := cluster.Workers[0]
	runsOf := func(id string) []trial.Run { return trials(t, ctx, c, id)[0].Runs }
	busy := func(id, where string, runs int64) {
		t.Helper()
		await(t, ctx, c, id, "a run in work "+where, func(s *trial.Sweep) bool {
			return s.Counts.Runs == runs && s.Counts.Running == 1
		})
	}

	// While the first is idle, over the leader's end, and while it works.
	startTwin(t, cluster, first.Name, t.TempDir()).refused(t, ctx, "held by another worker")
	must(t, cluster.Coordinators[0].Kill())
	early := startTwin(t, cluster, first.Name, t.TempDir())
	must(t, cluster.Coordinators[0].Start(ctx))
	early.refused(t, ctx, "the name "+first.Name+" ")
	id := submit(t, ctx, c, spec)
	busy(id, "on the first", 1)
	startTwin(t, cluster, first.Name, t.TempDir()).refused(t, ctx, "start this one with another --name")
	if runs := runsOf(id); len(runs) != 1 || runs[0].Exit != 0 || !first.Alive() {
		t.Fatalf("the first worker lost its run to one that was refused: %v", runs)
	}

	// A copy of the folder is the same worker, started later.
	copied := t.TempDir()
	b, err := os.ReadFile(filepath.Join(first.Dir, "folder-id"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(copied, "folder-id"), b, 0o644))
	second := startTwin(t, cluster, first.Name, copied)
	for first.Alive() {
		if ctx.Err() != nil {
			t.Fatal("the elder of two workers in one folder goes on")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if b, _ := os.ReadFile(first.Log); !strings.Contains(string(b), "was started again at") {
		t.Errorf("it does not say why it ended:\n%s", b)
	}
	busy(id, "on the copy", 2)

	// The machine is lost and replaced: nobody has to do anything.
	second.kill()
	third := startTwin(t, cluster, first.Name, t.TempDir())
	busy(id, "on the replacement", 3)
	workers, err := c.Workers(ctx)
	must(t, err)
	if len(workers) != 1 || workers[0].State != "ready" {
		t.Errorf("workers %v", workers)
	}
	select {
	case <-third.gone:
		t.Errorf("the replacement ended:\n%s", &third.log)
	default:
	}
}
