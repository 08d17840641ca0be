package board

import (
	"cmp"
	"encoding/json"
	"slices"

	"atelier/common/trial"
	"atelier/coordinator/history"
	"atelier/coordinator/state"
)

// RowsOf is what the board tells of a trial.
func RowsOf(s *state.Sweep, t *state.Trial) TrialRows {
	r := TrialRows{Sweep: s.ID, Trial: t.Number, Maximize: s.Objective.Maximize, Checkpoints: checkpointsOf(s, t)}
	if t.HasValue {
		row := rowOf(s, t)
		r.Row = &row
	}
	return r
}

// rowOf is a trial's row as the state has it; Redis holds the same.
func rowOf(s *state.Sweep, t *state.Trial) Row {
	r := Row{Row: trial.Row{
		Trial: t.Number, Status: t.Status, Value: trial.Number(t.Value), Params: json.RawMessage(t.ParamsJSON), Epoch: t.ValueEpoch,
	}}
	if c := t.BestCheckpoint(s.Objective); c != nil {
		r.Checkpoint = trial.Location(c.Location)
	}
	r.Metrics = map[string]trial.Number{}
	for _, m := range s.Reported(t) {
		r.Metrics[m.Name] = trial.Number(m.Value)
	}
	for i := range t.Runs {
		r.OtherData = r.OtherData || !trial.SameData(s.Data, t.Runs[i].Data)
	}
	if len(s.Objectives) > 1 {
		measured := s.Measured(t, t.Epoch())
		for _, o := range s.Objectives {
			for _, m := range measured {
				if m.Name == o.Metric {
					r.Values = append(r.Values, trial.Number(m.Value))
				}
			}
		}
		r.Goals = history.Goals(s, t)
	}
	return r
}

// ranked numbers all rows of a sweep, best first, marks the Pareto front where it
// has several objectives, and leaves the first top of them, all with top 0.
func ranked(s *state.Sweep, all []Row, top int) []trial.Row {
	var front map[int64]bool
	if len(s.Objectives) > 1 {
		goals := map[int64][]float64{}
		for _, r := range all {
			if r.Goals != nil {
				goals[r.Trial] = r.Goals
			}
		}
		front = history.Front(s, goals)
	}
	if top > 0 {
		all = all[:min(top, len(all))]
	}
	rows := make([]trial.Row, len(all))
	for i, r := range all {
		rows[i] = r.Row
		rows[i].Rank, rows[i].Front = int64(i)+1, front[r.Trial]
	}
	return rows
}

// depth is how many of the best rows have to be looked at for the first top: the
// Pareto front is one of all.
func depth(s *state.Sweep, top int) int {
	if len(s.Objectives) > 1 {
		return 0
	}
	return top
}

// checkpointsOf lists by epoch, then token, as the sorted set in Redis does.
func checkpointsOf(s *state.Sweep, t *state.Trial) []trial.Checkpoint {
	if len(t.Checkpoints) == 0 {
		return nil
	}
	out := make([]trial.Checkpoint, len(t.Checkpoints))
	for i := range t.Checkpoints {
		out[i] = t.Checkpoints[i].Record(s.ID, t.Number)
	}
	slices.SortFunc(out, func(a, b trial.Checkpoint) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Token, b.Token))
	})
	return out
}

// LeaderboardOf answers from the state what Redis.Leaderboard answers.
func LeaderboardOf(s *state.Sweep, top int) []trial.Row {
	trials := s.Leaderboard(depth(s, top))
	rows := make([]Row, len(trials))
	for i, t := range trials {
		rows[i] = rowOf(s, t)
	}
	return ranked(s, rows, top)
}

// CheckpointsOf answers from the state what Redis.Checkpoints answers.
func CheckpointsOf(s *state.Sweep, number int64) []trial.Checkpoint {
	var out []trial.Checkpoint
	if number != 0 {
		if t := s.Trial(number); t != nil {
			out = checkpointsOf(s, t)
		}
		return out
	}
	for t := range s.Trials(1) {
		out = append(out, checkpointsOf(s, t)...)
	}
	return out
}
