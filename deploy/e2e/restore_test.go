package e2e_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

// A state is saved, trials train on so far that the files which it names are
// gone, and it is restored: runs end and begin anew from what is there, curves
// have no hole, the index names files that exist, Redis and all coordinators hold
// the same.
func TestRestoreWithWorkersAtWork(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 2, Redis: true, LeaseTTL: 6 * time.Second})
	c := cluster.Client()
	const epochs = 40
	id := submit(t, ctx, c, `
name: restored
search_method: random
seed: 3
objective: {metric: val_loss, direction: minimize}
budget: {trials: 4}
parallelism: 2
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
training: {epochs: 40, epoch_seconds: 0.1, checkpoint_bytes: 10000}
`)
	reports := func(n int64) func(*trial.Sweep) bool {
		return func(s *trial.Sweep) bool { return s.Counts.Reports >= n }
	}
	await(t, ctx, c, id, "some reports", reports(12))
	file := filepath.Join(t.TempDir(), "state.snap")
	if _, stderr, code := atelier(t, ctx, cluster, "cluster", "snapshot", file); code != 0 {
		t.Fatalf("snapshot: exit %d: %s", code, stderr)
	}
	saved := await(t, ctx, c, id, "an answer", reports(0)).Counts.Reports
	await(t, ctx, c, id, "more reports", reports(saved+24))
	later := submit(t, ctx, c, "name: later\nsearch_method: random\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 1}\nparallelism: 1\ntrainer: sim\nspace:\n  lr: {type: float, low: 0.1, high: 1}\ntraining: {epochs: 1}\n")

	// One letter of the sweep's name is another one: nothing is restored.
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.snap")
	if err := os.WriteFile(bad, []byte(strings.Replace(string(good), "name: restored", "name: restorex", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := atelier(t, ctx, cluster, "cluster", "restore", bad, "--yes"); code != 1 || !strings.Contains(stderr, "damaged") {
		t.Errorf("a damaged file: exit %d: %s", code, stderr)
	}
	if _, err := c.Sweep(ctx, later); err != nil {
		t.Errorf("a damaged file changed something: %v", err)
	}

	_, stderr, code := atelier(t, ctx, cluster, "cluster", "restore", file, "--yes")
	if code != 0 || !strings.Contains(stderr, "restored: 1 sweep,") || !strings.Contains(stderr, "their leases have ended") {
		t.Fatalf("restore: exit %d: %s", code, stderr)
	}
	if _, err := c.Sweep(ctx, later); client.CodeOf(err) != client.CodeNotFound {
		t.Errorf("a sweep later than the snapshot: %v", err)
	}
	s := await(t, ctx, c, id, "the end", ended)
	if s.Status != trial.SweepFinished || s.Counts.Finished != 4 {
		t.Fatalf("sweep ended as %v with %v: %s", s.Status, s.Counts, s.Failure)
	}
	fenced := 0
	for _, tr := range trials(t, ctx, c, id) {
		got := epochsOf(t, ctx, c, id, tr.Number)
		for i, e := range got {
			if e != int32(i)+1 {
				t.Fatalf("trial %d has a hole in its curve: %v", tr.Number, got)
			}
		}
		if len(got) != epochs {
			t.Errorf("trial %d has %d epochs of %d", tr.Number, len(got), epochs)
		}
		for i, run := range tr.Runs {
			switch run.Exit {
			case trial.ExitRestored:
				fenced++
			case trial.ExitFinished:
			default:
				t.Errorf("trial %d: run %d ended %v: %s", tr.Number, i+1, run.Exit, run.Message)
			}
		}
	}
	if fenced == 0 {
		t.Error("no run was ended by the restore")
	}
	rows, err := c.IndexedCheckpoints(ctx, id, 0)
	if err != nil || len(rows) == 0 {
		t.Fatalf("checkpoints %v, %v", rows, err)
	}
	for _, row := range rows {
		resp, err := http.Get(string(row.Location))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || n != row.Size {
			t.Errorf("the index names %s of %d bytes: answer %s with %d", row.Location, row.Size, resp.Status, n)
		}
	}
	checkRedisEqualsStateRows(t, ctx, c, id, 4)
	checkReplicasAgree(t, ctx, cluster)
}
