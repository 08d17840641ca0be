package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/client"
)

// unread is a pipe whose reader takes one line of a program's messages and goes,
// as after a restart of the journal or of tee.
func unread(t *testing.T) (w *os.File, gone <-chan struct{}) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { w.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		bufio.NewReader(r).ReadString('\n')
		r.Close()
	}()
	return w, done
}

// closedPipe is one that nobody reads from the start.
func closedPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}

// A reader of standard error that ends takes neither a coordinator, a worker nor
// a command with work to do with it; one of standard output ends a command that
// only prints, quietly.
func TestNobodyReadsTheMessages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	daemon := func(name, file string, args ...string) (at struct{ API, Gossip string }) {
		t.Helper()
		w, gone := unread(t)
		cmd := exec.Command(filepath.Join(bin, name), append(args, "--data", filepath.Join(dir, file), "--address-file", filepath.Join(dir, file+".json"))...)
		cmd.Stdout, cmd.Stderr = w, w
		must(t, cmd.Start())
		t.Cleanup(func() {
			// It is still there to be asked to end, and does.
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s ended with %v", name, err)
			}
		})
		<-gone
		for {
			if b, err := os.ReadFile(filepath.Join(dir, file+".json")); err == nil && json.Unmarshal(b, &at) == nil {
				return at
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%s never served", name)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	c := daemon("atelier-coordinator", "c", "--id", "c", "--bootstrap", "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
	daemon("atelier-worker", "w", "--name", "w", "--addr", c.API, "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--join", c.Gossip, "--slots", "1")

	spec := filepath.Join(dir, "spec.yaml")
	must(t, os.WriteFile(spec, []byte("search_method: random\nseed: 1\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 3}\ntrainer: sim\n"+
		"space: {lr: {type: float, low: 1.0e-5, high: 0.1, log: true}}\ntraining: {epochs: 3, epoch_seconds: 0.05}\n"), 0o644))
	run := func(out, errs *os.File, args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), append([]string{"--addr", c.API}, args...)...)
		cmd.Stdout, cmd.Stderr = out, errs
		err := cmd.Run()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd
	}
	// The sweep ends, so its code is that of a sweep that ended well; it trains
	// while both daemons have nobody to speak to.
	if cmd := run(closedPipe(t), closedPipe(t), "sweep", "submit", spec, "--follow"); cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("sweep submit --follow: %v", cmd.ProcessState)
	}
	list, err := os.CreateTemp(dir, "list")
	must(t, err)
	if cmd := run(list, closedPipe(t), "sweep", "list", "-q"); cmd.ProcessState.ExitCode() != 0 {
		t.Fatalf("sweep list: %v", cmd.ProcessState)
	}
	b, err := os.ReadFile(list.Name())
	must(t, err)
	id := strings.TrimSpace(string(b))
	api := client.New([]string{c.API})
	defer api.Close()
	if s, err := api.Sweep(ctx, id); err != nil || s.Counts.Finished != 3 {
		t.Errorf("sweep %q: %v, %v", id, s, err)
	}
	// As `| head` leaves it.
	said, err := os.CreateTemp(dir, "said")
	must(t, err)
	cmd := run(closedPipe(t), said, "leaderboard", id)
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGPIPE {
		t.Errorf("leaderboard into a closed pipe: %v, want the end by SIGPIPE", cmd.ProcessState)
	}
	if b, _ := os.ReadFile(said.Name()); strings.Contains(string(b), "pipe") {
		t.Errorf("it complains: %s", b)
	}
}

// The same of a training on this machine: its trainer is a child that speaks to
// the same standard error.
func TestNobodyReadsTheTraining(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	out := filepath.Join(t.TempDir(), "out")
	w, _ := unread(t)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "3",
		"--no-mlflow", "--set", "image_size=32", "--set", "threads=1", "--out", out)
	cmd.Stdout, cmd.Stderr = closedPipe(t), w
	if err := cmd.Run(); err != nil {
		t.Fatalf("train: %v", err)
	}
	if h, err := readHistory(out); err != nil || len(h.Epochs) != 3 {
		t.Errorf("history %+v, %v", h, err)
	}
}

// A trainer of one's own begins with the system's disposition of SIGPIPE, not
// with an ignored one.
func TestChildrenKnowSIGPIPE(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "spec.yaml"), []byte("search_method: random\nseed: 1\nobjective: {metric: x, direction: minimize}\nbudget: {trials: 1}\ntrainer: external\nspace: {x: {type: float, low: 0, high: 1}}\n"), 0o644))
	script := filepath.Join(dir, "child.sh")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\ngrep SigIgn /proc/self/status >&2\nread -r line\necho '{\"trial\":1,\"value\":0.5}'\n"), 0o755))
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "sweep", "simulate", filepath.Join(dir, "spec.yaml"), "--exec", "exec "+script)
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	_, mask, _ := strings.Cut(errs.String(), "SigIgn:")
	mask, _, _ = strings.Cut(strings.TrimSpace(mask), "\n")
	ignored, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		t.Fatalf("the child did not say: %s", errs.String())
	}
	if ignored>>(uint(syscall.SIGPIPE)-1)&1 != 0 {
		t.Errorf("the child ignores SIGPIPE: %s", mask)
	}
}
