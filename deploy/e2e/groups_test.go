package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// groupSpec is a sweep of trials that several slots carry out together.
func groupSpec(trainer string, trials int, training string) string {
	return fmt.Sprintf(`
name: group
search_method: random
seed: 4
objective: {metric: val_loss, direction: minimize}
budget: {trials: %d}
parallelism: %[1]d
trainer: %s
space:
  lr: {type: float, low: 1.0e-3, high: 1.0e-2, log: true}
training: {%s}
`, trials, trainer, training)
}

// A training over two machines: one trainer is killed, another takes its place, and
// the model is bit for bit that of one process.
func TestGroupLosesATrainer(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	data, dir := facades(t, ctx), t.TempDir()
	alone, together := filepath.Join(dir, "alone"), filepath.Join(dir, "together")
	train := func(out, members string) []string {
		return []string{"train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "30", "--batch-size", "16", "--lr", "0.002", "--no-mlflow", "--seed", "7",
			"--set", "image_size=32", "--set", "augmentation.cutmix.enabled=true", "--set", "augmentation.rotation=10", "--set", "ema_decay=0.9",
			"--set", "shards=2", "--set", "members.min=1", "--set", "members.max=" + members, "--out", out}
	}
	if _, stderr, code := atelier(t, ctx, nil, train(alone, "1")...); code != 0 {
		t.Fatalf("one process: exit %d:\n%s", code, stderr)
	}

	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, ThreadsPerSlot: 1, ExtraArgs: map[string][]string{"worker": {"--trainer-bin", trainer}}})
	c := cluster.Client()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), train(together, "2")...)
	cmd.Env = append(os.Environ(), "ATELIER_ADDR="+strings.Join(cluster.APIAddrs(), ","))
	var words bytes.Buffer
	cmd.Stderr = &words
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	var id string
	run := func() *trial.Run {
		if id == "" {
			all, err := c.Sweeps(ctx, 10)
			must(t, err)
			if len(all) == 0 {
				return nil
			}
			id = all[0].ID
		}
		if all := trials(t, ctx, c, id); len(all) > 0 {
			return all[0].LastRun()
		}
		return nil
	}
	until := func(what string, is func(*trial.Run) bool) *trial.Run {
		t.Helper()
		for {
			if r := run(); r != nil && r.Group != nil && is(r) {
				return r
			}
			select {
			case err := <-ended:
				t.Fatalf("the training ended (%v) before: %s\n%s", err, what, words.String())
			case <-ctx.Done():
				t.Fatalf("never came: %s; run %+v", what, run())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	two := func(r *trial.Run) bool { return r.Group.View() != nil && len(r.Group.View().Members) == 2 }
	first := until("two members compute together", two)
	reporter := first.Group.Members[first.Group.Reporter()]
	worker := cluster.Workers[slices.IndexFunc(cluster.Workers, func(w *local.Process) bool { return w.Name == reporter.Worker })]
	pid := trainerOf(t, worker, reporter.Slot)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	until("the member that reported is lost", func(r *trial.Run) bool { return !slices.Contains(r.Group.View().Members, reporter.ID) })
	until("another is there in its place", two)
	if err := <-ended; err != nil {
		t.Fatalf("the training: %v\n%s", err, words.String())
	}

	if one, two := digest(t, alone), digest(t, together); one != two {
		t.Errorf("best_model.pth of one process is %s, of two members %s", one, two)
	}
	tr := trials(t, ctx, c, id)[0]
	if len(tr.Runs) != 1 || len(tr.Runs[0].Group.Ended) == 0 {
		t.Errorf("runs %+v; want one, with the end of a member", tr.Runs)
	}
	curve, err := c.Curve(ctx, id, 1)
	must(t, err)
	for i, r := range curve {
		if r.Epoch != int32(i+1) {
			t.Errorf("report %d is of epoch %d", i+1, r.Epoch)
		}
	}
	if len(curve) != 30 {
		t.Errorf("%d reports, want 30", len(curve))
	}
	shown, stderr, code := atelier(t, ctx, cluster, "trial", "show", id, "1")
	if code != 0 || !strings.Contains(shown, reporter.Name()) {
		t.Errorf("trial show: exit %d: %s; want the lost member %s in it:\n%s", code, stderr, reporter.Name(), shown)
	}
}

// digest is the SHA-256 of a training's model.
func digest(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "best_model.pth"))
	must(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// trainerOf is the process that works in a worker's slot: it has memory that it shares
// with other members, which one that stands by has not.
func trainerOf(t *testing.T, w *local.Process, slot string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(w.Dir, "pids", "*.json"))
	must(t, err)
	for _, name := range names {
		var p struct {
			PID  int    `json:"pid"`
			Slot string `json:"slot"`
		}
		if b, err := os.ReadFile(name); err != nil || json.Unmarshal(b, &p) != nil || p.Slot != slot {
			continue
		}
		open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
		must(t, err)
		for _, fd := range open {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "/memfd:") {
				return p.PID
			}
		}
	}
	t.Fatalf("no trainer of a group in slot %s of %s", slot, w.Name)
	return 0
}

// What a person asks of groups that cannot be is refused with what is wrong and what
// to do, before anything starts.
func TestGroupsThatCannotBe(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 3})
	for _, bad := range []struct {
		name, training string
		set            []string // the same for atelier train
		says           []string
	}{
		{"members above shards", "members: 8, shards: 4, batch_size: 32", []string{"members=8", "shards=4", "batch_size=32"}, []string{"8 members", "4 shards", "set shards to 8, or members to 4"}},
		{"a batch that shards do not divide", "members: 2, shards: 8, batch_size: 30", []string{"members=2", "shards=8", "batch_size=30"}, []string{"batch_size of 30", "8 shards", "take 24 or 32"}},
		{"least above most", "members: {min: 4, max: 2}, shards: 4", []string{"members.min=4", "members.max=2", "shards=4"}, []string{"members.min 4 is above members.max 2"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			spec := write(t, "group.yaml", groupSpec("sim", 1, "epochs: 2, "+bad.training))
			_, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", spec)
			checkRefused(t, "sweep submit", stderr, code, append(bad.says, "group.yaml:"))
			args := []string{"train", "--local", "--data", data, "--out", filepath.Join(t.TempDir(), "results"), "--no-mlflow"}
			for _, pair := range bad.set {
				args = append(args, "--set", pair)
			}
			_, stderr, code = atelier(t, ctx, nil, args...)
			checkRefused(t, "train", stderr, code, bad.says)
		})
	}
	if all, err := cluster.Client().Sweeps(ctx, 10); err != nil || len(all) != 0 {
		t.Errorf("%d sweeps were made (%v)", len(all), err)
	}
}

func checkRefused(t *testing.T, what, stderr string, code int, says []string) {
	t.Helper()
	if code == 0 {
		t.Errorf("%s: accepted", what)
	}
	for _, s := range says {
		if !strings.Contains(stderr, s) {
			t.Errorf("%s: %q is not in:\n%s", what, s, stderr)
		}
	}
}

// A group that waits for slots which do not exist says so, takes none, and runs
// once they are there.
func TestGroupWaitsForSlots(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 3})
	c := cluster.Client()
	id := submit(t, ctx, c, groupSpec("sim", 1, "epochs: 4, epoch_seconds: 0.2, members: 4"))
	await(t, ctx, c, id, "what it waits for", func(s *trial.Sweep) bool { return strings.Contains(s.Note, "needs 4 slots, 3 exist") })
	small := submit(t, ctx, c, groupSpec("sim", 6, "epochs: 2, epoch_seconds: 0.1"))
	if s := await(t, ctx, c, small, "the end of small trials", ended); s.Counts.Finished != 6 {
		t.Errorf("small trials ended as %v with %v", s.Status, s.Counts)
	}
	if shown, stderr, code := atelier(t, ctx, cluster, "sweep", "show", id); code != 0 || !strings.Contains(shown, "needs 4 slots, 3 exist") {
		t.Errorf("sweep show: exit %d: %s\n%s", code, stderr, shown)
	}
	_, err := cluster.AddWorker(ctx)
	must(t, err)
	if s := await(t, ctx, c, id, "its end", ended); s.Counts.Finished != 1 {
		t.Errorf("the group ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	// Members leave before the one that reports ends the run, so who holds the lease last is no matter.
	if r := trials(t, ctx, c, id)[0].LastRun(); r.Group == nil || len(r.Group.Views) == 0 || len(r.Group.Views[0].Members) != 4 {
		t.Errorf("run %+v with group %+v; want 4 members in its first view", r, r.Group)
	}
}

// A trainer that knows no groups is named before its job.
func TestTrainerThatKnowsNoGroups(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	script := write(t, "plain.py", `
import json, os
def event(**e): os.write(3, (json.dumps(e) + "\n").encode())
event(event="hello", protocol=1)
input()
`)
	table := write(t, "trainers.yaml", fmt.Sprintf("trainers:\n  plain: {command: [%q, %q]}\n", python, script))
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 2, ExtraArgs: map[string][]string{"worker": {"--trainers", table}}})
	c := cluster.Client()
	id := submit(t, ctx, c, groupSpec("plain", 1, "epochs: 2, members: 2"))
	s := await(t, ctx, c, id, "what is wrong", func(s *trial.Sweep) bool { return ended(s) || strings.Contains(s.Note, "groups") })
	if text := s.Note + s.Failure; !strings.Contains(text, "plain") || !strings.Contains(text, "groups") || !strings.Contains(text, "w1") {
		t.Errorf("sweep %v: note %q, failure %q; want trainer, worker and groups in it", s.Status, s.Note, s.Failure)
	}
}

// Workers that do not reach one another are named, both of them, and the trial ends
// or waits with that; it does not hang.
func TestGroupWithoutAWay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	// Addresses that are for examples: no host has them.
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, ExtraArgs: map[string][]string{
		"w1": {"--insecure", "--listen", "0.0.0.0:0", "--advertise", "198.51.100.1"}, "w2": {"--insecure", "--listen", "0.0.0.0:0", "--advertise", "198.51.100.2"}}})
	c := cluster.Client()
	id := submit(t, ctx, c, strings.Replace(groupSpec("sim", 1, "epochs: 20, epoch_seconds: 0.1, members: 2"), "trainer:", "max_retries: 1\ntrainer:", 1))
	var text string
	await(t, ctx, c, id, "both workers named", func(s *trial.Sweep) bool {
		text = s.Note + " " + s.Failure
		for _, tr := range trials(t, ctx, c, id) {
			text += " " + tr.Note + " " + tr.Failure
			for _, r := range tr.Runs {
				text += " " + r.Message
				if r.Group != nil {
					for _, e := range r.Group.Ended {
						text += " " + e.Message
					}
				}
			}
		}
		return strings.Contains(text, "reach") && strings.Contains(text, "198.51.100.1") && strings.Contains(text, "198.51.100.2") || ended(s)
	})
	for _, want := range []string{"w1", "w2", "reach"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
}

// Members whose trainers would compute other bits are refused by name, with what is
// different.
func TestGroupOfDifferentTrainers(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, ThreadsPerSlot: 1, ExtraArgs: map[string][]string{
		"w1": {"--trainer-bin", trainer}, "w2": wrapped(t, "export ATELIER_KERNELS=none")}})
	c := cluster.Client()
	training := fmt.Sprintf("epochs: 2, model: vanilla, image_size: 32, members: 2, data: {train: %s/train, validation: %[1]s/validation}", data)
	id := submit(t, ctx, c, strings.Replace(groupSpec("torch", 1, training), "trainer:", "max_retries: 1\ntrainer:", 1))
	s := await(t, ctx, c, id, "its end", ended)
	tr := trials(t, ctx, c, id)[0]
	text := s.Failure
	for _, r := range tr.Runs {
		text += " " + r.Message
	}
	if s.Counts.Failed != 1 || !strings.Contains(text, "kernels") || !strings.Contains(text, "w1") || !strings.Contains(text, "w2") {
		t.Errorf("sweep ended as %v with %v: %q; want both members and their kernels", s.Status, s.Counts, text)
	}
}
