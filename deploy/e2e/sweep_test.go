package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// A grid of 24 points, 5 workers: each point once. Both leaderboards agree.
func TestGridRunsEachPointOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 5, Redis: true, Shared: true})
	spec := write(t, "grid.yaml", `
name: grid
search_method: grid_search
seed: 1
objective: {metric: val_acc, direction: maximize}
parallelism: 7
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true, steps: 4}
  depth: {type: int, low: 1, high: 3}
  optimizer: {type: categorical, choices: [sgd, adamw]}
training: {epochs: 3, epoch_seconds: 0.05}
`)
	stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", spec, "-q")
	if code != 0 {
		t.Fatalf("submit: exit %d: %s", code, stderr)
	}
	id := strings.TrimSpace(stdout)
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "wait", id, "--timeout", "90s"); code != 0 {
		t.Fatalf("wait: exit %d: %s", code, stderr)
	}
	seen := map[string]int{}
	for _, tr := range trials(t, ctx, cluster.Client(), id) {
		seen[string(tr.Params)]++
	}
	if len(seen) != 24 {
		t.Errorf("%d distinct points, want 24: %v", len(seen), seen)
	}
	for p, n := range seen {
		if n != 1 {
			t.Errorf("point %s was run %d times", p, n)
		}
	}
	state := rows(t, ctx, cluster, id, "state")
	redis := ""
	// Redis is told of a trial's end a moment after it.
	for deadline := time.Now().Add(60 * time.Second); redis != state && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		redis = rows(t, ctx, cluster, id, "redis")
	}
	if redis != state || strings.Count(state, `"rank"`) != 24 {
		t.Errorf("leaderboards differ or lack rows.\nredis: %s\nstate: %s", redis, state)
	}
}

// rows is `leaderboard -o json` from one source.
func rows(t *testing.T, ctx context.Context, cluster *local.Cluster, id, source string) string {
	t.Helper()
	stdout, stderr, code := atelier(t, ctx, cluster, "leaderboard", id, "-o", "json", "--source", source)
	if code != 0 {
		t.Fatalf("leaderboard from %s: exit %d: %s", source, code, stderr)
	}
	if !json.Valid([]byte(stdout)) || !strings.Contains(stderr, source) {
		t.Fatalf("leaderboard from %s is no JSON, or from elsewhere: %s%s", source, stdout, stderr)
	}
	return stdout
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodSpec = `name: good
search_method: random
seed: 1
objective: {metric: val_loss, direction: minimize}
budget: {trials: 2}
parallelism: 2
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
  batch_size: {type: categorical, choices: [16, 32]}
training: {epochs: 2, epoch_seconds: 0.02}
`

func TestBadSpecsAreRefusedClearly(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	for name, c := range map[string]struct {
		old, new string
		says     []string
		code     int
	}{
		"unknown key":    {"parallelism: 2", "paralelism: 2", []string{"spec.yaml:6", "paralelism", "parallelism"}, 1},
		"empty choices":  {"choices: [16, 32]", "choices: []", []string{"spec.yaml:10", "batch_size", "choices"}, 1},
		"low above high": {"low: 1.0e-4, high: 1.0e-1", "low: 0.5, high: 0.1", []string{"spec.yaml:9", "lr", "low"}, 1},
		"log of zero":    {"low: 1.0e-4", "low: 0", []string{"spec.yaml:9", "lr", "log"}, 1},
		"huge grid":      {"search_method: random", "search_method: grid_search", []string{"spec.yaml", "10000000"}, 1},
		"no data":        {"training: {", "training: {data: {train: no/such/folder, validation: no/such/folder}, ", []string{"no/such/folder"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(goodSpec, c.old, c.new, 1)
			if text == goodSpec {
				t.Fatal("the spec has not changed")
			}
			if name == "huge grid" {
				text = strings.Replace(text, "budget: {trials: 2}\n", "", 1)
				text = strings.Replace(text, "{type: float, low: 1.0e-4, high: 1.0e-1, log: true}", "{type: int, low: 1, high: 6000000}", 1)
			}
			stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "spec.yaml", text))
			if code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			if stdout != "" {
				t.Errorf("data on stdout: %s", stdout)
			}
			for _, s := range c.says {
				if !strings.Contains(stderr, s) {
					t.Errorf("message lacks %q:\n%s", s, stderr)
				}
			}
		})
	}
	if stdout, _, _ := atelier(t, ctx, cluster, "sweep", "list", "-o", "json"); strings.Contains(stdout, `"id"`) {
		t.Errorf("a refused spec made a sweep: %s", stdout)
	}
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "spec.yaml", goodSpec), "--follow"); code != 0 {
		t.Errorf("the good spec: exit %d: %s", code, stderr)
	}
}

func TestExitCodes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	failing := strings.Replace(goodSpec, "epoch_seconds: 0.02", "epoch_seconds: 0.02, fail_class: bad_spec, fail_at_epoch: 1", 1)
	endless := strings.Replace(goodSpec, "epochs: 2, epoch_seconds: 0.02", "epochs: 1000, epoch_seconds: 1", 1)
	for _, c := range []struct {
		what string
		args []string
		code int
		says string
	}{
		{"unknown sweep", []string{"sweep", "show", "s-nosuch"}, 3, "s-nosuch"},
		{"unknown command", []string{"sweep", "sbmit"}, 2, "submit"},
		{"unknown flag", []string{"sweep", "list", "--colour"}, 2, "colour"},
		{"no coordinator", []string{"--addr", "127.0.0.1:1", "sweep", "list"}, 5, "127.0.0.1:1"},
		{"sweep that fails", []string{"sweep", "submit", write(t, "f.yaml", failing), "--follow"}, 6, "bad spec"},
		{"time-out", []string{"sweep", "submit", write(t, "e.yaml", endless), "--follow", "--timeout", "1s"}, 124, ""},
	} {
		_, stderr, code := atelier(t, ctx, cluster, c.args...)
		if code != c.code || !strings.Contains(strings.ToLower(stderr), c.says) {
			t.Errorf("%s: exit %d, want %d; message should say %q:\n%s", c.what, code, c.code, c.says, stderr)
		}
	}
}

// A full disk at a checkpoint ends that run with a clear class; when there is
// room again the sweep goes on, and nothing acknowledged is lost.
func TestFullDiskAtCheckpoint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	filler := filepath.Join(dir, "filler")
	must(t, os.WriteFile(filler, make([]byte, 200<<10), 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": {"--shared", dir}}})
	c := cluster.Client()
	id := submit(t, ctx, c, strings.Replace(strings.Replace(goodSpec, "budget: {trials: 2}", "budget: {trials: 1}\nmax_retries: 100", 1),
		"epochs: 2, epoch_seconds: 0.02", "epochs: 3, epoch_seconds: 0.2, checkpoint_bytes: 65000", 1))
	var message string
	for deadline := time.Now().Add(30 * time.Second); message == ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the full disk was never named: %v", trials(t, ctx, c, id))
		}
		for _, tr := range trials(t, ctx, c, id) {
			for _, r := range tr.Runs {
				if r.Exit == trial.ExitDiskFull {
					message = r.Message
				}
			}
		}
	}
	if !strings.Contains(message, "space") || !strings.Contains(message, dir) {
		t.Errorf("message %q does not say what is full and where", message)
	}
	must(t, os.Remove(filler))
	s := await(t, ctx, c, id, "the end", ended)
	if s.Counts.Finished != 1 {
		t.Errorf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
}
