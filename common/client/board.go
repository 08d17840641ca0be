package client

import (
	"context"
	"encoding/json"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// From says where a leaderboard or a list of checkpoints is read.
type From struct {
	Source  string // redis, state, or "": Redis when configured and up to date, else state
	AtLeast uint64 // raft index that the answer has to reflect; waited for, a while
}

// Freshness says where an answer was read and what it reflects.
type Freshness struct {
	Source   string        // redis, state
	Index    uint64        // raft index
	Age      time.Duration // how long ago Redis was known to lack nothing, negative = unknown; 0 from state
	NoLeader string        // why there is no leader, where the node that answers knows of none
}

func freshness(m interface {
	GetSource() string
	GetIndex() uint64
	GetAgeMs() int64
	GetNoLeader() string
}) Freshness {
	return Freshness{m.GetSource(), m.GetIndex(), time.Duration(m.GetAgeMs()) * time.Millisecond, m.GetNoLeader()}
}

// Board is a leaderboard.
type Board struct {
	Rows       []trial.Row
	Objectives []trial.Objective // that of the ranking first
	Freshness
}

// Leaderboard lists a sweep's trials by best objective value: the best top of them,
// 0 = all, or only those on the Pareto front of all objectives.
func (c *Client) Leaderboard(ctx context.Context, id string, top int, pareto bool, from From) (Board, error) {
	m, err := ask(ctx, c.raw.Sweeps.GetLeaderboard, &atelierv1.GetLeaderboardRequest{Id: id, Top: int32(top), Pareto: pareto, Source: from.Source, AtLeast: from.AtLeast})
	objectives := wire.List(m.GetObjectives(), wire.Objective)
	if len(objectives) == 0 {
		objectives = append(objectives, wire.Objective(m.GetObjective()))
	}
	return Board{wire.List(m.GetRows(), wire.Row), objectives, freshness(m)}, err
}

// Checkpoints lists those of a sweep, or of one trial of it where number is not 0.
func (c *Client) Checkpoints(ctx context.Context, id string, number int64, from From) ([]trial.Checkpoint, Freshness, error) {
	m, err := ask(ctx, c.raw.Sweeps.ListCheckpoints, &atelierv1.ListCheckpointsRequest{Id: id, Trial: number, Source: from.Source, AtLeast: from.AtLeast})
	return wire.List(m.GetCheckpoints(), wire.Checkpoint), freshness(m), err
}

// Verification says whether a sweep's proposals are what search computes again
// from what it knew when they were made.
type Verification struct {
	Checked, Unchecked int64 // the latter were made by other means than search, or before it was recorded
	Index              uint64
	Differences        []Difference
}

// Difference is a proposal that came out another way.
type Difference struct {
	Trial    int64           `json:"trial"`
	Source   trial.Source    `json:"source"`
	Seen     int64           `json:"seen"` // findings that its proposer knew
	Recorded json.RawMessage `json:"recorded"`
	Computed json.RawMessage `json:"computed"` // null: the search method proposes nothing there

	// The checkpoints that the trial starts from, of population-based training;
	// nil: from scratch.
	RecordedOrigin *trial.Origin `json:"recorded_origin"`
	ComputedOrigin *trial.Origin `json:"computed_origin"`
}

func difference(d *atelierv1.ProposalDifference) Difference {
	origin := func(o *atelierv1.Origin) *trial.Origin {
		if o.GetTrial() == 0 {
			return nil
		}
		return new(wire.Origin(o))
	}
	return Difference{d.GetTrial(), wire.Source(d.GetSource()), d.GetSeen(), wire.Object(d.GetRecordedJson()), wire.Object(d.GetComputedJson()),
		origin(d.GetRecordedOrigin()), origin(d.GetComputedOrigin())}
}

// Verify has every proposal of a sweep computed again, in as many calls as it takes.
func (c *Client) Verify(ctx context.Context, id string) (Verification, error) {
	v := Verification{Differences: []Difference{}}
	for after := int64(0); ; {
		m, err := ask(ctx, c.raw.Sweeps.VerifySweep, &atelierv1.VerifySweepRequest{Id: id, After: after, WaitMs: 10_000})
		if err != nil {
			return v, err
		}
		v.Differences = append(v.Differences, wire.List(m.GetDifferences(), difference)...)
		v.Checked, v.Unchecked, v.Index = v.Checked+m.GetChecked(), v.Unchecked+m.GetUnchecked(), m.GetIndex()
		if m.GetThrough() >= m.GetTrials() || m.GetThrough() <= after {
			return v, nil
		}
		after = m.GetThrough()
	}
}

// Importance says which parameters matter, most important first.
type Importance struct {
	Parameters []ParameterImportance
	Method     string
	Trials     int64 // it was computed from
	Index      uint64
}

// ParameterImportance is one parameter's share; they add up to 1.
type ParameterImportance struct {
	Parameter  string       `json:"parameter"`
	Importance trial.Number `json:"importance"`
}

// Importance asks for it, from the trials so far.
func (c *Client) Importance(ctx context.Context, id string) (Importance, error) {
	m, err := ask(ctx, c.raw.Sweeps.GetImportance, &atelierv1.GetImportanceRequest{Id: id})
	return Importance{wire.List(m.GetParameters(), func(p *atelierv1.ParameterImportance) ParameterImportance {
		return ParameterImportance{p.GetName(), trial.Number(p.GetImportance())}
	}), m.GetMethod(), m.GetTrials(), m.GetIndex()}, err
}

// ProgressPoint is one trial that ended with a value.
type ProgressPoint struct {
	Ended     int64        `json:"ended"` // how many had ended, this one counted
	Trial     int64        `json:"trial"`
	Value     trial.Number `json:"value"`
	Best      trial.Number `json:"best"` // so far
	BestTrial int64        `json:"best_trial"`
	TimeMS    int64        `json:"time_ms"` // of the end, since the sweep was made
	Epochs    int64        `json:"epochs"`  // of all trials ended so far
}

// Progress lists the trials that ended with a value, in the order of their ends,
// with the objective.
func (c *Client) Progress(ctx context.Context, id string) ([]ProgressPoint, trial.Objective, error) {
	m, err := ask(ctx, c.raw.Sweeps.GetProgress, &atelierv1.GetProgressRequest{Id: id})
	return wire.List(m.GetPoints(), func(p *atelierv1.ProgressPoint) ProgressPoint {
		return ProgressPoint{p.GetEnded(), p.GetTrial(), trial.Number(p.GetValue()), trial.Number(p.GetBest()), p.GetBestTrial(), p.GetTimeMs(), p.GetEpochs()}
	}), wire.Objective(m.GetObjective()), err
}
