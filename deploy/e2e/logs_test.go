package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

const loggedSpec = `
name: logged
search_method: random
seed: 7
objective: {metric: val_loss, direction: minimize}
budget: {trials: 1}
trainer: sim
space: {lr: {type: float, low: 1.0e-5, high: 0.1, log: true}}
training: {%s}
`

// What a run's trainer wrote is there after its worker has died, as far as it was
// sent.
func TestLogsOutliveTheirWorker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, LeaseTTL: 2 * time.Second})
	c := cluster.Client()
	id := submit(t, ctx, c, fmt.Sprintf(loggedSpec, "epochs: 10000, epoch_seconds: 0.1, stderr_bytes: 100000"))
	await(t, ctx, c, id, "a run", func(s *trial.Sweep) bool { return s.Counts.Running == 1 })
	whole := ""
	for ctx.Err() == nil && len(whole) < 100000 {
		whole, _, _ = atelier(t, ctx, cluster, "trial", "logs", id, "1")
	}
	// On a build that sends nothing this times out below, not here.
	for range 100 {
		resp, err := http.Get("http://" + cluster.Coordinators[0].Addr + "/runlogs/" + id + "/1/1")
		must(t, err)
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == 200 && len(b) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	must(t, cluster.Workers[0].Kill())
	for {
		out, errs, code := atelier(t, ctx, cluster, "trial", "logs", id, "1", "--run", "1")
		if code == 0 && strings.Contains(errs, "worker w1 is lost (last heard ") && strings.Contains(errs, "KiB it sent, at ") {
			if len(out) < 60<<10 || len(out) > trial.KeptLog || !strings.HasSuffix(whole, out) {
				t.Errorf("%d bytes, and they end the log of %d: %v", len(out), len(whole), strings.HasSuffix(whole, out))
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("exit %d: %s", code, errs)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if out, _, code := atelier(t, ctx, cluster, "trial", "logs", id, "1", "--run", "1", "--tail", "2"); code != 0 || strings.Count(strings.TrimSuffix(out, "\n"), "\n") != 1 {
		t.Errorf("exit %d, --tail 2: %q", code, out)
	}
}

// A log is followed to the end of the trial, each line once; its end and its newest
// part can be asked for.
func TestLogsAreFollowed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	c := cluster.Client()
	id := submit(t, ctx, c, fmt.Sprintf(loggedSpec, "epochs: 10, epoch_seconds: 0.2, log_epochs: true"))
	await(t, ctx, c, id, "a trial", func(s *trial.Sweep) bool { return s.Counts.Running+s.Counts.Over() > 0 })
	out, errs, code := atelier(t, ctx, cluster, "trial", "logs", id, "1", "-f")
	var want strings.Builder
	for i := range 10 {
		fmt.Fprintf(&want, "epoch %d\n", i+1)
	}
	if code != 0 || out != want.String() {
		t.Fatalf("exit %d: %q, want %q\n%s", code, out, want.String(), errs)
	}
	for args, want := range map[string]string{"--tail 2": "epoch 9\nepoch 10\n", "--tail 0": "", "--since 1h": out} {
		if got, errs, code := atelier(t, ctx, cluster, append([]string{"trial", "logs", id, "1"}, strings.Fields(args)...)...); code != 0 || got != want {
			t.Errorf("%s: exit %d: %q, want %q\n%s", args, code, got, want, errs)
		}
	}
	// What the run ended with was sent, too.
	defer func() {
		must(t, cluster.Workers[0].Kill())
		for got := ""; got != out; got, _, _ = atelier(t, ctx, cluster, "trial", "logs", id, "1") {
			if ctx.Err() != nil {
				t.Fatalf("kept: %q", got)
			}
		}
	}()
	// A part of the log by time: some of the ten lines, and the last ones.
	if got, _, code := atelier(t, ctx, cluster, "trial", "logs", id, "1", "--since", sinceEpoch(t, ctx, cluster, id, 8).String()); code != 0 || got == "" || got == out || !strings.HasSuffix(out, got) {
		t.Errorf("exit %d: %q", code, got)
	}
}

// sinceEpoch is how long ago an epoch was reported.
func sinceEpoch(t *testing.T, ctx context.Context, cluster *local.Cluster, id string, epoch int) time.Duration {
	t.Helper()
	reports, err := cluster.Client().Curve(ctx, id, 1)
	must(t, err)
	return time.Since(time.UnixMilli(reports[epoch-1].TimeMS))
}
