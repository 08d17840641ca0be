package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// sweepTime runs one sweep with the simulated trainer and returns its wall time.
func sweepTime(ctx context.Context, b *bench, name, spec string, slots int) (*local.Cluster, time.Duration, error) {
	cluster, err := local.Start(ctx, local.Config{
		Dir: filepath.Join(b.Dir, name), BinDir: b.Bin, Coordinators: 3, Workers: 2, SlotsPerWorker: slots / 2, Shared: true,
		ExtraArgs: map[string][]string{"worker": {"--warm", "sim"}},
	})
	if err != nil {
		return nil, 0, err
	}
	c := cluster.Client()
	time.Sleep(time.Duration(slots) * 50 * time.Millisecond) // until a trainer stands by in each slot
	start := time.Now()
	id, err := createSweep(ctx, c, spec)
	if err != nil {
		return cluster, 0, err
	}
	said := start
	_, err = waitSweep(ctx, c, id, func(s *trial.Sweep) {
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			b.Say("%5.0f s: %d of %d trials, %d reports", time.Since(start).Seconds(), s.Counts.Finished, s.BudgetTrials, s.Counts.Reports)
		}
	})
	return cluster, time.Since(start), err
}

func memory(ps []*local.Process) (largest int64) {
	for _, p := range ps {
		if m, err := rss(p.PID()); err == nil {
			largest = max(largest, m)
		}
	}
	return largest
}

// trials: how close many short trials come to the ideal time. Every
// proposal, grant, report and end is durable on three nodes.
func (b *bench) trials(ctx context.Context) error {
	n, slots := b.size(10_000, 160), 16
	cluster, took, err := sweepTime(ctx, b, "trials", fmt.Sprintf(`
name: many-short-trials
search_method: random
seed: 1
objective: {metric: val_loss, direction: minimize}
budget: {trials: %d}
parallelism: %d
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
  momentum: {type: float, low: 0.0, high: 0.99}
training: {epochs: 1, epoch_seconds: 1.0, checkpoint_every: 0}
`, n, 3*slots), slots)
	if cluster != nil {
		defer cluster.Close()
	}
	if err != nil {
		return err
	}
	ideal := float64(n) / float64(slots)
	b.figure("trials", map[string]any{"trials": n, "slots": slots, "seconds": took.Seconds(), "ideal_seconds": ideal,
		"over_ideal": took.Seconds()/ideal - 1, "agent_rss_mib": memory(cluster.Workers) >> 20, "coordinator_rss_mib": memory(cluster.Coordinators) >> 20})
	return nil
}

// reports: many runs that report often.
func (b *bench) reports(ctx context.Context) error {
	runs, epochs := 96, b.size(1000, 50)
	cluster, took, err := sweepTime(ctx, b, "reports", fmt.Sprintf(`
name: frequent-reports
search_method: random
seed: 1
objective: {metric: val_loss, direction: minimize}
budget: {trials: %d}
parallelism: %d
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
training: {epochs: %d, epoch_seconds: 0.1, checkpoint_every: 0}
`, runs, runs, epochs), runs)
	if cluster != nil {
		defer cluster.Close()
	}
	if err != nil {
		return err
	}
	b.figure("reports", map[string]any{"runs": runs, "reports": runs * epochs, "seconds": took.Seconds(),
		"ideal_seconds": float64(epochs) / 10, "agent_rss_mib": memory(cluster.Workers) >> 20, "coordinator_rss_mib": memory(cluster.Coordinators) >> 20})
	return nil
}
