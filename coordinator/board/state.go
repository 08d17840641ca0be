package board

import (
	"cmp"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// RowsOf is what the board tells of a trial.
func RowsOf(s *state.Sweep, t *state.Trial) TrialRows {
	r := TrialRows{Sweep: s.ID, Trial: t.Number, Maximize: s.Objective.Maximize, Checkpoints: checkpointsOf(s, t)}
	if t.HasValue {
		r.Row = rowOf(s, t)
	}
	return r
}

func rowOf(s *state.Sweep, t *state.Trial) *atelierv1.LeaderboardRow {
	r := &atelierv1.LeaderboardRow{
		Trial: t.Number, Status: wire.ToStatus(t.Status), Value: t.Value, ParamsJson: t.ParamsJSON, Epoch: t.ValueEpoch,
	}
	if c := t.BestCheckpoint(s.Objective); c != nil {
		r.Checkpoint = c.Location
	}
	return r
}

// checkpointsOf lists by epoch, then token, as the sorted set in Redis does.
func checkpointsOf(s *state.Sweep, t *state.Trial) []*atelierv1.Checkpoint {
	if len(t.Checkpoints) == 0 {
		return nil
	}
	out := make([]*atelierv1.Checkpoint, len(t.Checkpoints))
	for i := range t.Checkpoints {
		out[i] = Checkpoint(s.ID, t.Number, &t.Checkpoints[i])
	}
	slices.SortFunc(out, func(a, b *atelierv1.Checkpoint) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Token, b.Token))
	})
	return out
}

// Checkpoint is a checkpoint of the state as the API speaks it.
func Checkpoint(sweep string, trial int64, c *state.Checkpoint) *atelierv1.Checkpoint {
	return &atelierv1.Checkpoint{
		SweepId: sweep, Trial: trial, Epoch: c.Epoch, Metric: c.Metric, HasMetric: c.HasMetric, Size: c.Size,
		Sha256: c.SHA256, Location: c.Location, Worker: c.Worker, CreatedMs: c.CreatedMS, Token: c.Token,
	}
}

// LeaderboardOf answers from the state what Redis.Leaderboard answers.
func LeaderboardOf(s *state.Sweep, top int) []*atelierv1.LeaderboardRow {
	ranked := s.Leaderboard(top)
	rows := make([]*atelierv1.LeaderboardRow, len(ranked))
	for i, t := range ranked {
		rows[i] = rowOf(s, t)
		rows[i].Rank = int64(i) + 1
	}
	return rows
}

// CheckpointsOf answers from the state what Redis.Checkpoints answers.
func CheckpointsOf(s *state.Sweep, trial int64) []*atelierv1.Checkpoint {
	var out []*atelierv1.Checkpoint
	if trial != 0 {
		if t := s.Trial(trial); t != nil {
			out = checkpointsOf(s, t)
		}
		return out
	}
	for t := range s.Trials(1) {
		out = append(out, checkpointsOf(s, t)...)
	}
	return out
}
