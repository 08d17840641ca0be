package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// torch gives the flags that make a worker train with libtorch, or skips.
func torch(t *testing.T) []string {
	t.Helper()
	trainer, err := filepath.Abs(filepath.Join(cmp.Or(os.Getenv("ATELIER_BIN"), "../../bin"), "atelier-trainer"))
	must(t, err)
	if _, err := exec.LookPath(trainer); err != nil {
		t.Skip("no bin/atelier-trainer: make trainer")
	}
	return []string{"--trainer-bin", trainer}
}

// facades draws a small data set.
func facades(t *testing.T, ctx context.Context) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "facades")
	if _, stderr, code := atelier(t, ctx, nil, "data", "synth", dir, "--train", "60", "--validation", "20", "--test", "0", "--size", "48",
		"--style", "gothic", "--style", "modernist", "--style", "colonial"); code != 0 {
		t.Fatalf("data synth: exit %d: %s", code, stderr)
	}
	return dir
}

func torchSpec(data, method, training string) string {
	return fmt.Sprintf(`
name: torch
search_method: %s
seed: 5
objective: {metric: val_acc, direction: maximize}
budget: {trials: 4}
parallelism: 2
trainer: torch
space:
  lr: {type: float, low: 1.0e-3, high: 1.0e-2, log: true}
  batch_size: {type: categorical, choices: [16, 32]}
training:
  model: vanilla
  optimizer: adam
  image_size: 32
  data: {train: %s/train, validation: %s/validation}
  %s
`, method, data, data, training)
}

// Real training: the leader is killed while trials train, they go on; then a
// worker is killed, and its trial goes on from its last checkpoint on the other.
func TestTrainingSurvivesLeaderAndWorker(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 2, Redis: true, Shared: true, LeaseTTL: 4 * time.Second,
		ExtraArgs: map[string][]string{"worker": flags}})
	c := cluster.Client()
	id := submit(t, ctx, c, torchSpec(data, "bayesian", "epochs: 25"))
	await(t, ctx, c, id, "reports of two trials", func(s *trial.Sweep) bool { return s.Counts.Running == 2 && s.Counts.Reports > 4 })

	before := map[int64]int{}
	for _, tr := range trials(t, ctx, c, id) {
		before[tr.Number] = len(tr.Runs)
	}
	leader, err := cluster.Leader(ctx)
	must(t, err)
	must(t, leader.Kill())
	s, err := c.Sweep(ctx, id) // answered by the next leader
	must(t, err)
	reports := s.Counts.Reports
	await(t, ctx, c, id, "reports under the next leader", func(s *trial.Sweep) bool { return s.Counts.Reports > reports })
	for _, tr := range trials(t, ctx, c, id) {
		if n, ok := before[tr.Number]; ok && len(tr.Runs) != n {
			t.Errorf("trial %d began run %d because the leader changed: %v", tr.Number, len(tr.Runs), tr.Runs)
		}
	}
	must(t, leader.Start(ctx))

	victim := cluster.Workers[0]
	var moved int64
	await(t, ctx, c, id, "a checkpoint of "+victim.Name, func(s *trial.Sweep) bool {
		for _, tr := range trials(t, ctx, c, id) {
			if n := len(tr.Runs); n > 0 && tr.Status == trial.Running && tr.Runs[n-1].Worker == victim.Name && len(tr.Checkpoints) > 0 && tr.Epoch < 20 {
				moved = tr.Number
				return true
			}
		}
		return ended(s)
	})
	if moved == 0 {
		t.Fatal("the sweep ended before the worker could be killed")
	}
	must(t, victim.Kill())
	s = await(t, ctx, c, id, "the end", ended)
	if s.Counts.Finished != 4 || s.Counts.Proposed != 4 {
		t.Errorf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	tr, err := c.Trial(ctx, id, moved)
	must(t, err)
	last := tr.LastRun()
	if last.Worker != cluster.Workers[1].Name || last.ResumedEpoch == 0 || tr.Epoch != 25 {
		t.Errorf("trial %d did not go on from its checkpoint on the other worker: %v", moved, tr)
	}
	checkRedisEqualsStateRows(t, ctx, c, id, 4)
	checkReplicasAgree(t, ctx, cluster)
}

// What is wrong with the data is said clearly and ends the sweep as failed;
// a damaged image is named and passed over.
func TestBadImages(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": flags}})

	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.CopyFS(empty, os.DirFS(data)))
	must(t, os.Mkdir(filepath.Join(empty, "train", "brutalist"), 0o755))
	must(t, os.Mkdir(filepath.Join(empty, "validation", "brutalist"), 0o755))
	_, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "empty.yaml", torchSpec(empty, "random", "epochs: 1")), "--follow")
	if code == 0 || !strings.Contains(stderr, "brutalist") {
		t.Errorf("a class without images: exit %d:\n%s", code, stderr)
	}

	names, err := filepath.Glob(filepath.Join(data, "train", "gothic", "*.jpg"))
	must(t, err)
	if len(names) == 0 {
		t.Fatal("no pictures drawn")
	}
	must(t, os.Truncate(names[0], 700))
	stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "truncated.yaml", torchSpec(data, "random", "epochs: 1")), "-q")
	if code != 0 {
		t.Fatalf("submit: exit %d: %s", code, stderr)
	}
	id := strings.TrimSpace(stdout)
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "wait", id); code != 0 {
		t.Fatalf("wait: exit %d: %s", code, stderr)
	}
	logs, stderr, code := atelier(t, ctx, cluster, "trial", "logs", id, "1")
	if code != 0 || !strings.Contains(logs, filepath.Base(names[0])) {
		t.Errorf("trial logs: exit %d: %s; they do not name the truncated %s:\n%s", code, stderr, filepath.Base(names[0]), logs)
	}
}
