package session

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"atelier/common/client"
	"atelier/common/trial"
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
func (s Single) Trial(ctx context.Context) (*trial.Trial, error) {
	t, err := s.API.Trial(ctx, s.ID, trialNumber)
	if client.CodeOf(err) == client.CodeNotFound {
		return nil, nil
	}
	return t, err
}

// Reports are the trial's, in order.
func (s Single) Reports(ctx context.Context) ([]trial.Report, error) {
	return s.API.Curve(ctx, s.ID, trialNumber)
}

// Checkpoints are those that the leader knows of.
func (s Single) Checkpoints(ctx context.Context) ([]trial.Checkpoint, error) {
	return s.API.IndexedCheckpoints(ctx, s.ID, trialNumber)
}

// Failure says why a trial has not finished, or did not even begin (t is nil),
// once its sweep has ended.
func (s Single) Failure(sweep *trial.Sweep, t *trial.Trial) *Failure {
	if t == nil {
		return &Failure{Class: sweep.Status.String(), Message: fmt.Sprintf("sweep %s ended before its trial began: %s %s", s.ID, sweep.Status, sweep.Failure), Remote: true}
	}
	f := &Failure{Class: trial.ExitCrashed.String(), Message: t.Failure, Remote: true}
	if end := t.LastRun(); end != nil {
		f.Class, f.Message = end.Exit.String(), cmp.Or(f.Message, end.Message)
	}
	if t.Status == trial.Cancelled || t.Status == trial.Stopped {
		f.Class, f.Message = t.Status.String(), fmt.Sprintf("sweep %s was %s", s.ID, t.Status)
	}
	return f
}
