package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/mlflow/mlflowtest"
)

// A sweep that is followed is shown in MLflow while it goes on, through the
// loss of its leader and of answers; exporting it again adds nothing.
func TestSweepInMLflow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	server := mlflowtest.New(t)
	server.Fault(func(call string, n int) mlflowtest.Fault {
		switch {
		case n%5 == 1:
			return mlflowtest.LoseAnswer
		case n%7 == 2:
			return mlflowtest.Unavailable
		}
		return mlflowtest.None
	})
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 2, Shared: true})
	spec := write(t, "tracked.yaml", `
name: tracked
search_method: random
seed: 3
budget: {trials: 8}
objective: {metric: val_loss, direction: minimize}
parallelism: 4
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
training: {epochs: 6, epoch_seconds: 0.3}
`)
	type result struct {
		out, err string
		code     int
	}
	done := make(chan result, 1)
	go func() {
		out, err, code := atelier(t, ctx, cluster, "sweep", "submit", spec, "--follow", "-q", "--mlflow", "--mlflow-uri", server.URL)
		done <- result{out, err, code}
	}()
	// Once the first trial is shown, the leader dies.
	for len(server.Runs("architectural-style-tuning")) < 2 {
		select {
		case r := <-done:
			t.Fatalf("ended before anything was shown: exit %d: %s", r.code, r.err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	leader, err := cluster.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.code != 0 {
		t.Fatalf("submit: exit %d: %s", r.code, r.err)
	}
	id := strings.TrimSpace(r.out)
	look := func() string {
		var b strings.Builder
		runs := server.Runs("architectural-style-tuning")
		for i, run := range runs {
			fmt.Fprintf(&b, "%s %s %d %d %s\n", run.ID, run.Name, len(run.Params), len(run.Metrics), run.Status)
			steps := map[string]bool{}
			for _, m := range run.Metrics {
				key := fmt.Sprintf("%s %d", m.Key, m.Step)
				if steps[key] {
					t.Errorf("%s has %s twice", run.Name, key)
				}
				steps[key] = true
			}
			switch {
			case run.Status != "FINISHED" || run.Tags["atelier.sweep"] != id:
				t.Errorf("%+v", run)
			case i > 0 && (run.Tags["mlflow.parentRunId"] != runs[0].ID || run.Params["lr"] == "" || !steps["val_loss 6"] || !steps["val_loss 1"]):
				t.Errorf("%s: %v %v", run.Name, run.Params, steps)
			}
		}
		if len(runs) != 9 {
			t.Errorf("%d runs, want the sweep and its 8 trials", len(runs))
		}
		return b.String()
	}
	export := func() {
		t.Helper()
		// A pass that such a server breaks off is taken up by the next.
		for try := 1; ; try++ {
			_, stderr, code := atelier(t, ctx, cluster, "sweep", "export-mlflow", id, "--mlflow-uri", server.URL)
			if code == 0 {
				return
			}
			if try == 5 {
				t.Fatalf("export: exit %d: %s", code, stderr)
			}
		}
	}
	export()
	before := look()
	export()
	if after := look(); after != before {
		t.Errorf("exporting again changed\n%s into\n%s", before, after)
	}
}
