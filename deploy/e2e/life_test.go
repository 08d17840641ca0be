package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

const lifeSpec = `name: life
search_method: bayesian
algorithm: tpe
seed: 11
objective: {metric: val_loss, direction: minimize}
budget: {trials: 12, epochs: 60}
parallelism: 4
trainer: sim
priority: 2
checkpoints: {budget: 40KB}
enqueue: [{lr: 0.003, depth: 3}]
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
  depth: {type: int, low: 1, high: 5}
training: {epochs: 4, epoch_seconds: 0.1, checkpoint_bytes: 8000}
`

// must0 runs the command and wants exit code 0.
func must0(t *testing.T, ctx context.Context, cluster *local.Cluster, args ...string) string {
	t.Helper()
	stdout, stderr, code := atelier(t, ctx, cluster, args...)
	if code != 0 {
		t.Fatalf("atelier %s: exit %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// A sweep from its first point to the sweep that learns from it: given points,
// pause and resume, the leader killed in between, an extension, a budget for
// checkpoints that the workers' disks keep to, and every proposal computed again.
func TestLifeOfASweep(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 2, SlotsPerWorker: 2, Redis: true, Shared: true})
	c := cluster.Client()
	spec := write(t, "life.yaml", lifeSpec)
	id := strings.TrimSpace(must0(t, ctx, cluster, "sweep", "submit", "-q", spec))
	await(t, ctx, c, id, "two trials have ended", func(s *trial.Sweep) bool { return s.Counts.Finished >= 2 })
	must0(t, ctx, cluster, "sweep", "pause", id)
	must0(t, ctx, cluster, "sweep", "enqueue", id, "--params", `{"lr":0.001,"depth":2}`)
	await(t, ctx, c, id, "the trials that ran have ended", func(s *trial.Sweep) bool { return s.Counts.Running == 0 })

	changed := write(t, "changed.yaml", strings.Replace(lifeSpec, "parallelism: 4", "parallelism: 8", 1))
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "resume", id, changed); code != 1 || !strings.Contains(stderr, "changed.yaml:7") || !strings.Contains(stderr, "parallelism: 4") {
		t.Errorf("resume with another spec: exit %d: %s", code, stderr)
	}
	leader, err := cluster.Leader(ctx)
	must(t, err)
	must(t, leader.Kill())
	must0(t, ctx, cluster, "sweep", "resume", id, spec)
	must0(t, ctx, cluster, "sweep", "wait", id, "-q")
	must(t, leader.Start(ctx))
	must0(t, ctx, cluster, "sweep", "extend", id, "--trials", "4")
	must0(t, ctx, cluster, "sweep", "wait", id, "-q")

	s, err := c.Sweep(ctx, id)
	must(t, err)
	if s.Status != trial.SweepFinished || s.Epochs > 60 || s.Counts.Proposed > 16 || s.Ending == "" || s.Algorithm != "tpe" {
		t.Errorf("ended %v", s)
	}
	// Every trial trains four epochs: sixteen of them would be 64.
	if s.Epochs != 60 || !strings.Contains(s.Ending, "60 epochs") {
		t.Errorf("%d epochs: %s", s.Epochs, s.Ending)
	}
	all := trials(t, ctx, c, id)
	given := 0
	for _, tr := range all {
		if tr.Source == trial.SourceEnqueued {
			given++
		}
	}
	if string(all[0].Params) != `{"lr":0.003,"depth":3}` || given != 2 {
		t.Errorf("%d given trials, the first of all %v", given, all[0])
	}
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "verify", id); code != 0 || !strings.Contains(stderr, fmt.Sprintf("%d proposals recomputed", len(all))) {
		t.Errorf("verify: exit %d: %s", code, stderr)
	}
	var progress []struct{ Best float64 }
	must(t, json.Unmarshal([]byte(must0(t, ctx, cluster, "sweep", "progress", id, "-o", "json")), &progress))
	if len(progress) == 0 || progress[len(progress)-1].Best != float64(s.Best.Value) {
		t.Errorf("progress %v, best %v", progress, s.Best)
	}
	if out := must0(t, ctx, cluster, "sweep", "importance", id, "-o", "csv"); !strings.HasPrefix(out, "parameter,importance\n") || strings.Count(out, "\n") != 3 {
		t.Errorf("importance %q", out)
	}
	if s.StoredBytes > 40_000 {
		t.Errorf("the index has %d bytes of checkpoints", s.StoredBytes)
	}
	var listed []struct{ Location string }
	must(t, json.Unmarshal([]byte(must0(t, ctx, cluster, "checkpoint", "list", id, "-o", "json")), &listed))
	if len(listed) == 0 {
		t.Error("no checkpoint is left")
	}
	var bytes int64
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if bytes = checkpointBytes(t, filepath.Join(cluster.SharedDir, id)); bytes <= 40_000+4*9_000 { // beside them what runs wrote last and nobody has asked about
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of checkpoints on the disk, the budget is 40000", bytes)
		}
	}

	warm := write(t, "warm.yaml", strings.NewReplacer("name: life", "name: warm", "low: 1.0e-4", "low: 5.0e-4", "enqueue: [{lr: 0.003, depth: 3}]", "warm_start: "+id,
		"budget: {trials: 12, epochs: 60}", "budget: {trials: 3}").Replace(lifeSpec))
	second := strings.TrimSpace(must0(t, ctx, cluster, "sweep", "submit", "-q", warm))
	must0(t, ctx, cluster, "sweep", "wait", second, "-q")
	if s, err = c.Sweep(ctx, second); err != nil || s.WarmTrials == 0 || s.WarmStart != id {
		t.Errorf("the warm start took %v, %v", s, err)
	}
	must0(t, ctx, cluster, "sweep", "verify", second)
	checkReplicasAgree(t, ctx, cluster)
}

// checkpointBytes adds up what lies below a folder.
func checkpointBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	}))
	return n
}

// A sweep that can come to nothing says why, in its state and on exit.
func TestHopelessSweepsSayWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 4})
	fast := strings.NewReplacer("parallelism: 2", "parallelism: 4", "epochs: 2, epoch_seconds: 0.02", "epochs: 1, epoch_seconds: 0", "budget: {trials: 2}", "budget: {trials: 30}").Replace(goodSpec)
	for name, c := range map[string]struct {
		old, new string
		says     []string
	}{
		"objective missing":       {"metric: val_loss", "metric: val_los", []string{"no report carried the objective val_los", "metrics seen: ", "val_loss"}},
		"always NaN":              {"training: {", "training: {nan_at_epoch: 1, ", []string{"none of the first 20 trials has a value of val_loss", "diverged"}},
		"constraints never met":   {"parallelism: 4", "parallelism: 4\nconstraints: [{metric: val_acc, min: 2}]", []string{"none of 30 trials met the constraints val_acc >= 2", "the nearest val_acc was 0."}},
		"constraint not reported": {"parallelism: 4", "parallelism: 4\nconstraints: [{metric: latency_ms, max: 5}]", []string{"latency_ms was never reported"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(fast, c.old, c.new, 1)
			if text == fast {
				t.Fatal("the spec has not changed")
			}
			stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", "--follow", write(t, "spec.yaml", text))
			if code != 6 {
				t.Errorf("exit %d: %s", code, stderr)
			}
			shown := must0(t, ctx, cluster, "sweep", "show", strings.TrimSpace(stdout), "-o", "json")
			for _, say := range c.says {
				if !strings.Contains(stderr, say) || !strings.Contains(strings.NewReplacer(`\u003e`, ">", `\u003c`, "<").Replace(shown), say) {
					t.Errorf("not said: %q\n%s\n%s", say, stderr, shown)
				}
			}
		})
	}
	for _, budget := range []string{"{trials: 0}", "{epochs: 0}", "{time: 0s}", "{}"} {
		text := strings.Replace(goodSpec, "budget: {trials: 2}", "budget: "+budget, 1)
		if _, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "spec.yaml", text)); code != 1 || !strings.Contains(stderr, "spec.yaml:5: budget") {
			t.Errorf("budget %s: exit %d: %s", budget, code, stderr)
		}
	}
}

// The example program trains a sweep from outside; two of it share the trials.
func TestProgramsElsewhere(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	id := strings.TrimSpace(must0(t, ctx, cluster, "sweep", "submit", "-q", write(t, "spec.yaml", `search_method: random
seed: 4
objective: {metric: loss, direction: minimize}
budget: {trials: 6}
max_retries: 0
parallelism: 3
trainer: external
stopping: {rule: median, warmup_epochs: 1, warmup_trials: 2}
space:
  x: {type: float, low: 0, high: 1}
`)))
	train := write(t, "train.py", `import json, os
x = json.loads(os.environ["PARAMS"])["x"]
for epoch in range(3):
    print(x / (epoch + 1), flush=True)
`)
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			cmd := exec.CommandContext(ctx, python, "../docs/external.py", id, python, train)
			cmd.Env = append(os.Environ(), "ATELIER="+filepath.Join(bin, "atelier"), "ATELIER_ADDR="+strings.Join(cluster.APIAddrs(), ","))
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			ended <- err
		}()
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	s, err := cluster.Client().Sweep(ctx, id)
	must(t, err)
	if s.Status != trial.SweepFinished || s.Counts.Finished+s.Counts.Stopped != 6 || s.Counts.Stopped == 0 {
		t.Errorf("ended %v %v", s.Status, s.Counts)
	}
	for _, tr := range trials(t, ctx, cluster.Client(), id) {
		if len(tr.Runs) != 1 || !strings.HasPrefix(tr.Runs[0].Worker, "external/") || tr.Epoch < 1 {
			t.Errorf("trial %v", tr)
		}
	}
}
