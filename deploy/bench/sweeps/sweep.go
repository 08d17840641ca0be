package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/client"
	"atelier/common/trial"
)

// searches holds the keys of a spec in which the methods differ.
var searches = map[string]string{
	"gp+asha": "search_method: bayesian\nalgorithm: gp\nstopping: {rule: asha, min_epochs: 3, reduction: 3}\n",
	"gp":      "search_method: bayesian\nalgorithm: gp\n",
	"tpe":     "search_method: bayesian\nalgorithm: tpe\n",
	"genetic": "search_method: genetic\n",
	"random":  "search_method: random\n",
}

func names() []string { return slices.Sorted(maps.Keys(searches)) }

// spec of a sweep over six settings of one training.
func spec(t task, r recipe) string {
	return fmt.Sprintf(`name: %s-%d
%sseed: %d
objective: {metric: val_acc, direction: maximize}
budget: {trials: %d}
parallelism: %d
trainer: torch
space:
  lr:              {type: float, low: 1.0e-4, high: 3.0e-1, log: true}
  weight_decay:    {type: float, low: 1.0e-6, high: 3.0e-2, log: true}
  momentum:        {type: float, low: 0.0, high: 0.98}
  label_smoothing: {type: float, low: 0.0, high: 0.4}
  batch_size:      {type: categorical, choices: [8, 16, 32, 64]}
  augmentation.rotation: {type: float, low: 0.0, high: 45.0}
training:
  model: %s
  optimizer: sgd
  schedule: cosine
  epochs: %d
  image_size: %d
  data: {train: %q, validation: %q}
`, t.Method, t.Seed, searches[t.Method], t.Seed, r.Trials, r.Slots, r.Model, r.Epochs, r.ImageSize, filepath.Join(r.Data, "train"), filepath.Join(r.Data, "validation"))
}

// figures of one sweep.
type figures struct {
	Status   string   `json:"status"`
	Best     float64  `json:"best"`     // validation accuracy
	BestAt   int64    `json:"best_at"`  // its trial
	Test     float64  `json:"test"`     // accuracy of its checkpoint on images that no sweep saw
	Epochs   int64    `json:"epochs"`   // of all trials
	Training float64  `json:"training"` // seconds of all runs together
	Wall     float64  `json:"wall"`     // seconds the sweep ran
	Proposed int64    `json:"proposed"` // trials
	Failed   int64    `json:"failed"`   // and diverged
	Trials   []result `json:"trials"`
}

// result of one trial.
type result struct {
	Value    float64 `json:"value"` // 0 for none
	Epochs   int32   `json:"epochs"`
	Training float64 `json:"training"` // seconds
}

// bestAfter is the best value of the first n trials.
func (f *figures) bestAfter(n int) float64 {
	best := 0.0
	for _, t := range f.Trials[:min(n, len(f.Trials))] {
		best = max(best, t.Value)
	}
	return best
}

// sweep runs one and gathers its figures.
func (b *bench) sweep(ctx context.Context, t task) (f figures, err error) {
	if err := b.start(ctx); err != nil {
		return f, err
	}
	c := b.cluster.Client()
	made, _, err := c.Submit(ctx, client.Submission{Spec: spec(t, b.recipe), Name: t.Method + ".yaml"})
	if err != nil {
		return f, err
	}
	id := made.ID
	b.Say("%s, seed %d: sweep %s at %s", t.Method, t.Seed, id, strings.Join(b.cluster.APIAddrs(), ","))
	s, err := b.follow(ctx, id)
	if err != nil {
		return f, err
	}
	f.Status = s.Status.String()
	if s.Status != trial.SweepFinished || s.Best == nil {
		return f, fmt.Errorf("sweep %s is %s: %s", id, f.Status, s.Failure)
	}
	f.Best, f.BestAt, f.Epochs, f.Wall = float64(s.Best.Value), s.Best.Trial, s.Epochs, float64(s.SpentMS)/1000
	f.Proposed, f.Failed = s.Counts.Proposed, s.Counts.Failed+s.Counts.Diverged
	if f.Trials, err = b.trials(ctx, id); err != nil {
		return f, err
	}
	for _, t := range f.Trials {
		f.Training += t.Training
	}
	f.Test, err = b.test(ctx, id)
	return f, err
}

// follow waits for the end of a sweep.
func (b *bench) follow(ctx context.Context, id string) (*trial.Sweep, error) {
	said := int64(-1)
	return b.cluster.Client().Follow(ctx, id, func(s *trial.Sweep) error {
		ended := s.Counts.Finished + s.Counts.Stopped + s.Counts.Failed + s.Counts.Diverged
		if ended/5 != said/5 || said < 0 {
			said = ended
			best := 0.0
			if s.Best != nil {
				best = float64(s.Best.Value)
			}
			b.Say("  %4.0f s: %d of %d trials, %d epochs, best %.4f", float64(s.SpentMS)/1000, ended, s.BudgetTrials, s.Epochs, best)
		}
		return nil
	})
}

// trials lists what each trial came to, in their order.
func (b *bench) trials(ctx context.Context, id string) ([]result, error) {
	var out []result
	for t, err := range b.cluster.Client().Trials(ctx, id, client.Which{}) {
		if err != nil {
			return nil, err
		}
		r := result{Epochs: t.Epoch}
		if t.Value != nil {
			r.Value = float64(*t.Value)
		}
		for _, n := range t.Runs {
			r.Training += float64(n.EndedMS-n.StartedMS) / 1000
		}
		out = append(out, r)
	}
	return out, nil
}

// test measures the sweep's best checkpoint on the images set apart.
func (b *bench) test(ctx context.Context, id string) (float64, error) {
	model := filepath.Join(b.cluster.Dir, id+".pth")
	defer os.Remove(model)
	pull := exec.CommandContext(ctx, filepath.Join(b.Bin, "atelier"), "checkpoint", "pull", id, "--to", model, "--shared", b.cluster.SharedDir)
	pull.Env = append(os.Environ(), "ATELIER_ADDR="+strings.Join(b.cluster.APIAddrs(), ","))
	if out, err := pull.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("checkpoint pull: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.Bin, "atelier-trainer"), "evaluate", "--checkpoint", model, "--data", filepath.Join(b.Data, "test"),
		"--cache", filepath.Join(b.cluster.Dir, "cache"), "--threads", "1", "--device", "cpu")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("atelier-trainer evaluate: %w", err)
	}
	var m struct {
		Accuracy *float64 `json:"accuracy"`
	}
	if err := json.Unmarshal(out, &m); err != nil || m.Accuracy == nil {
		return 0, errors.Join(fmt.Errorf("atelier-trainer evaluate says %.200q", out), err)
	}
	return *m.Accuracy, nil
}
