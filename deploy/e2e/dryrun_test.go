package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// The first points of a dry run, which needs no cluster, are the first trials of
// the sweep, whatever the method.
func TestDryRunIsWhatRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1})
	c := cluster.Client()
	const rest = `
seed: 11
objective: {metric: val_loss, direction: minimize}
trainer: sim
parallelism: 6
space:
  lr: {type: float, low: 1.0e-4, high: 0.1, log: true%s}
  depth: {type: int, low: 1, high: 5}
training: {epochs: 8}
`
	steps := ", steps: 4"
	for name, spec := range map[string]string{
		"grid":     "search_method: grid_search" + fmt.Sprintf(rest, steps),
		"random":   "search_method: random\nbudget: {trials: 30}\nstopping: {rule: asha}" + fmt.Sprintf(rest, ""),
		"sobol":    "search_method: sobol\nbudget: {time: 1h}" + fmt.Sprintf(rest, ""),
		"bayesian": "search_method: bayesian\nbudget: {trials: 30}\nenqueue: [{lr: 0.01, depth: 3}]" + fmt.Sprintf(rest, ""),
		"genetic":  "search_method: genetic\nbudget: {epochs: 100}" + fmt.Sprintf(rest, ""),
		"pbt":      "search_method: pbt\npopulation: {interval: 2}" + fmt.Sprintf(rest, ""),
	} {
		file := filepath.Join(t.TempDir(), name+".yaml")
		must(t, os.WriteFile(file, []byte(spec), 0o644))
		// No cluster is addressed that answers.
		out, stderr, code := atelier(t, ctx, nil, "--addr", "127.0.0.1:1", "sweep", "submit", file, "--dry-run", "-o", "json")
		var d struct {
			Points    *int64
			Trials    *int64
			Epochs    *int64
			About     *int64 `json:"about_epochs"`
			Proposals []struct {
				Trial  int64
				Source string
				Params json.RawMessage
			}
		}
		if err := json.Unmarshal([]byte(out), &d); code != 0 || err != nil || len(d.Proposals) != 5 {
			t.Fatalf("%s: exit %d, %v: %s%s", name, code, err, out, stderr)
		}
		switch name {
		case "grid":
			if d.Points == nil || *d.Points != 20 || *d.Trials != 20 || *d.Epochs != 160 {
				t.Errorf("grid of 4 by 5 points and 8 epochs: %s", out)
			}
		case "random":
			if d.Points != nil || *d.Trials != 30 || *d.Epochs != 240 || *d.About < 30 || *d.About > 80 {
				t.Errorf("30 trials under asha: %s", out)
			}
		case "sobol":
			if d.Trials != nil || d.Epochs != nil {
				t.Errorf("an hour of trials: %s", out)
			}
		case "pbt":
			if *d.Trials != 24 || *d.Epochs != 48 {
				t.Errorf("6 members of 4 segments of 2 epochs: %s", out)
			}
		}
		id := submit(t, ctx, c, spec)
		await(t, ctx, c, id, "its first trials", func(s *trial.Sweep) bool { return s.Counts.Proposed >= 5 })
		made := trials(t, ctx, c, id)
		for i, p := range d.Proposals {
			var want, got any
			must(t, json.Unmarshal(p.Params, &want))
			must(t, json.Unmarshal(made[i].Params, &got))
			if fmt.Sprint(want) != fmt.Sprint(got) || p.Source != made[i].Source.String() {
				t.Errorf("%s: trial %d is %s (%s), the dry run has %s (%s)", name, i+1, made[i].Params, made[i].Source, p.Params, p.Source)
			}
		}
	}
}
