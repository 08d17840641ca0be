package state

import atelierv1 "atelier/common/proto/atelier/v1"

// Proto returns the sweep as the API speaks of it.
func (s *Sweep) Proto() *atelierv1.Sweep {
	p := &atelierv1.Sweep{
		Id: s.ID, Name: s.Name, Status: s.Status, Failure: s.Failure, SpecYaml: s.SpecYAML, Seed: s.Seed,
		Objective: s.spec().Objective, SearchMethod: s.SearchMethod, Algorithm: s.Algorithm, Trainer: s.Trainer,
		BudgetTrials: s.Budget, Parallelism: s.Parallelism, Exhausted: s.Exhausted, CreatedMs: s.CreatedMS, EndedMs: s.EndedMS,
		Counts: s.Counts.Proto(), DefaultDir: s.BaseDir, MaxRetries: s.MaxRetries,
	}
	if best := s.Best(); best != nil {
		p.Best = best.Proto(s.ID)
	}
	return p
}

// Proto returns the counts as the API speaks of them.
func (c Counts) Proto() *atelierv1.SweepCounts {
	return &atelierv1.SweepCounts{Proposed: c.Proposed, Waiting: c.Waiting, Running: c.Running, Paused: c.Paused, Finished: c.Finished,
		Stopped: c.Stopped, Diverged: c.Diverged, Failed: c.Failed, Cancelled: c.Cancelled, Runs: c.Runs, Reports: c.Reports}
}

// Proto returns the trial as the API speaks of it, without its curve.
func (t *Trial) Proto(sweep string) *atelierv1.Trial {
	p := &atelierv1.Trial{
		SweepId: sweep, Number: t.Number, Status: t.Status, ParamsJson: t.ParamsJSON, HasValue: t.HasValue, Value: t.Value, ValueEpoch: t.ValueEpoch, Epoch: t.Epoch(),
		CreatedMs: t.CreatedMS, StartedMs: t.StartedMS, EndedMs: t.EndedMS, Failure: t.Failure, Verdict: t.Verdict, StopReason: t.StopReason,
	}
	for i := range t.Runs {
		p.Runs = append(p.Runs, t.Runs[i].Proto())
	}
	for i := range t.Checkpoints {
		p.Checkpoints = append(p.Checkpoints, t.Checkpoints[i].Proto(sweep, t.Number))
	}
	return p
}

// Proto returns the run as the API speaks of it.
func (r *Run) Proto() *atelierv1.Run {
	return &atelierv1.Run{Number: r.Number, Token: r.Token, Worker: r.Worker, Slot: r.Slot, StartedMs: r.StartedMS, EndedMs: r.EndedMS, Exit: r.Exit, Message: r.Message, ResumedEpoch: r.ResumedEpoch}
}

// Proto returns the checkpoint as the API speaks of it.
func (c *Checkpoint) Proto(sweep string, trial int64) *atelierv1.Checkpoint {
	return &atelierv1.Checkpoint{SweepId: sweep, Trial: trial, Epoch: c.Epoch, Metric: c.Metric, HasMetric: c.HasMetric, Size: c.Size, Sha256: c.SHA256, Location: c.Location, Worker: c.Worker, CreatedMs: c.CreatedMS, Token: c.Token}
}

// Proto returns the report as the API speaks of it.
func (r Report) Proto() *atelierv1.Report {
	p := &atelierv1.Report{Epoch: r.Epoch, TimeMs: r.TimeMS}
	for _, metric := range r.Metrics {
		p.Metrics = append(p.Metrics, &atelierv1.Metric{Name: metric.Name, Value: metric.Value})
	}
	return p
}
