package api

import (
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/board"
	"atelier/coordinator/state"
)

func objectiveOf(o state.Objective) *atelierv1.Objective {
	m := &atelierv1.Objective{Metric: o.Metric, Direction: atelierv1.Direction_DIRECTION_MINIMIZE}
	if o.Maximize {
		m.Direction = atelierv1.Direction_DIRECTION_MAXIMIZE
	}
	return m
}

func sweepOf(s *state.Sweep) *atelierv1.Sweep {
	m := &atelierv1.Sweep{
		Id: s.ID, Name: s.Name, Status: s.Status, Failure: s.Failure, SpecYaml: s.SpecYAML, Seed: s.Seed,
		Objective: objectiveOf(s.Objective), SearchMethod: s.SearchMethod, Algorithm: s.Algorithm, Trainer: s.Trainer,
		BudgetTrials: s.Budget, Parallelism: s.Parallelism, Exhausted: s.Exhausted, CreatedMs: s.CreatedMS, EndedMs: s.EndedMS,
		DefaultDir: s.BaseDir, MaxRetries: s.MaxRetries,
		Counts: &atelierv1.SweepCounts{
			Proposed: s.Counts.Proposed, Waiting: s.Counts.Waiting, Running: s.Counts.Running, Paused: s.Counts.Paused,
			Finished: s.Counts.Finished, Stopped: s.Counts.Stopped, Diverged: s.Counts.Diverged, Failed: s.Counts.Failed,
			Cancelled: s.Counts.Cancelled, Runs: s.Counts.Runs, Reports: s.Counts.Reports,
		},
	}
	if b := s.Best(); b != nil {
		m.Best = trialOf(s, b)
	}
	return m
}

func trialOf(s *state.Sweep, t *state.Trial) *atelierv1.Trial {
	m := &atelierv1.Trial{
		SweepId: s.ID, Number: t.Number, Status: t.Status, ParamsJson: t.ParamsJSON, HasValue: t.HasValue,
		ValueEpoch: t.ValueEpoch, Epoch: t.Epoch(), CreatedMs: t.CreatedMS, StartedMs: t.StartedMS, EndedMs: t.EndedMS,
		Failure: t.Failure, Verdict: t.Verdict, StopReason: t.StopReason,
	}
	if t.HasValue {
		m.Value = t.Value
	}
	for i := range t.Runs {
		r := &t.Runs[i]
		m.Runs = append(m.Runs, &atelierv1.Run{
			Number: r.Number, Token: r.Token, Worker: r.Worker, Slot: r.Slot, StartedMs: r.StartedMS, EndedMs: r.EndedMS,
			Exit: r.Exit, Message: r.Message, ResumedEpoch: r.ResumedEpoch,
		})
	}
	for i := range t.Checkpoints {
		m.Checkpoints = append(m.Checkpoints, board.Checkpoint(s.ID, t.Number, &t.Checkpoints[i]))
	}
	return m
}
