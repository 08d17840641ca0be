package session

import (
	"context"
	"encoding/json"
	"fmt"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// Single is a sweep of one trial: how a training or an inference is sent to a
// cluster.
type Single struct {
	API *client.Client
	ID  string
}

// trialNumber is the only one.
const trialNumber = 1

// SingleSpec is such a sweep, for people and the cluster alike; JSON is YAML. Its
// space is a parameter with one value.
func SingleSpec(name string, seed uint64, metric, direction, parameter string, value, training any) ([]byte, error) {
	type axis struct {
		Type    string `json:"type"`
		Choices []any  `json:"choices"`
	}
	return json.MarshalIndent(struct {
		Name      string            `json:"name"`
		Method    string            `json:"search_method"`
		Seed      uint64            `json:"seed"`
		Objective map[string]string `json:"objective"`
		Budget    map[string]int    `json:"budget"`
		Parallel  int               `json:"parallelism"`
		Trainer   string            `json:"trainer"`
		Space     map[string]axis   `json:"space"`
		Training  any               `json:"training"`
	}{name, "grid_search", seed, map[string]string{"metric": metric, "direction": direction}, map[string]int{"trials": 1}, 1, "torch",
		map[string]axis{parameter: {"categorical", []any{value}}}, training}, "", "  ")
}

// Trial is nil until it was proposed.
func (s Single) Trial(ctx context.Context) (*v1.Trial, error) {
	r, err := s.API.Trials.GetTrial(ctx, connect.NewRequest(&v1.GetTrialRequest{SweepId: s.ID, Trial: trialNumber}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.Msg.GetTrial(), nil
}

// Reports are the trial's, in order.
func (s Single) Reports(ctx context.Context) ([]*v1.Report, error) {
	r, err := s.API.Trials.GetCurve(ctx, connect.NewRequest(&v1.GetCurveRequest{SweepId: s.ID, Trial: trialNumber}))
	if err != nil {
		return nil, err
	}
	return r.Msg.GetReports(), nil
}

// Checkpoints are those that the leader knows of.
func (s Single) Checkpoints(ctx context.Context) ([]*v1.Checkpoint, error) {
	r, err := s.API.Sweeps.ListCheckpoints(ctx, connect.NewRequest(&v1.ListCheckpointsRequest{Id: s.ID, Trial: trialNumber, Source: "state"}))
	if err != nil {
		return nil, err
	}
	return r.Msg.GetCheckpoints(), nil
}

// Failure says why a trial has not finished, or did not even begin (t is nil),
// once its sweep has ended.
func (s Single) Failure(sweep *v1.Sweep, t *v1.Trial) *Failure {
	if t == nil {
		status := wire.SweepStatus(sweep.GetStatus()).String()
		return &Failure{Class: status, Message: fmt.Sprintf("sweep %s ended before its trial began: %s %s", s.ID, status, sweep.GetFailure()), Remote: true}
	}
	f := &Failure{Class: trial.ExitCrashed.String(), Message: t.GetFailure(), Remote: true}
	if runs := t.GetRuns(); len(runs) > 0 {
		end := runs[len(runs)-1]
		f.Class = wire.Exit(end.GetExit()).String()
		if f.Message == "" {
			f.Message = end.GetMessage()
		}
	}
	if status := wire.Status(t.GetStatus()); status == trial.Cancelled || status == trial.Stopped {
		f.Class, f.Message = status.String(), fmt.Sprintf("sweep %s was %s", s.ID, status)
	}
	return f
}
