package api

import (
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/history"
	"atelier/coordinator/state"
	"atelier/tuner/search"
)

// markFront writes the values of all objectives into rows of a leaderboard, and
// which of them stand on the Pareto front of the trials that have ended.
func markFront(sw *state.Sweep, rows []*atelierv1.LeaderboardRow) error {
	problem, known, err := history.Now(sw)
	if err != nil {
		return err
	}
	front := map[int64]bool{} // looked up only
	for _, n := range search.Front(problem, known) {
		front[n] = true
	}
	for _, r := range rows {
		r.Front = front[r.Trial]
		t := sw.Trial(r.Trial)
		measured := sw.Measured(t, t.Epoch())
		for _, o := range sw.Objectives {
			for _, m := range measured {
				if m.Name == o.Metric {
					r.Values = append(r.Values, m.Value)
				}
			}
		}
	}
	return nil
}
