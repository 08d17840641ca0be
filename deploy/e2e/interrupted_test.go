package e2e_test

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
)

// Ctrl-C in a cluster: a training continues there, which the next one into its
// folder reports, by the sweep's name; an inference is cancelled, and says so.
func TestInterruptedInACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1})
	addr, dir := strings.Join(cluster.APIAddrs(), ","), t.TempDir()
	data := facades(t, ctx)
	interrupted := func(waits string, says string, args ...string) string {
		t.Helper()
		at := sit(t, ctx, dir, 120, "", append(args, "--addr", addr)...)
		at.sees(waits)
		must(t, at.cmd.Process.Signal(syscall.SIGINT))
		at.sees(says)
		if at.cmd.Wait(); at.cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("%q: %s", args, at.cmd.ProcessState)
		}
		return at.shown()
	}
	train := []string{"train", "--data", data, "--no-mlflow", "--out", "out"}
	shown := interrupted("waiting for a worker", "the training continues as sweep s-", train...)
	sweep := strings.Fields(strings.Split(shown, "the training continues as sweep ")[1])[0]
	sweep = strings.TrimSuffix(sweep, ";")
	train[len(train)-1] = filepath.Join(dir, "out")
	if _, stderr, code := atelier(t, ctx, cluster, train...); code != 1 || !strings.Contains(stderr, "a training that continues in the cluster as sweep "+sweep) {
		t.Errorf("once more: exit %d\n%s", code, stderr)
	}
	shown = interrupted("waiting for a worker", "the training continues as sweep s-", append(train, "--overwrite")...)
	if !strings.Contains(shown, "atelier sweep cancel "+sweep) {
		t.Errorf("no word of the one that was replaced:\n%q", shown)
	}
	shown = interrupted("waiting for a worker", "was cancelled", "infer", "--no-mlflow", "--checkpoint", "/somewhere/best_model.pth", "--image-dir", data, "--output-dir", "results")
	if !strings.Contains(shown, "interrupted: the results are incomplete") {
		t.Errorf("%q", shown)
	}
}
