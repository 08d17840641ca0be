package tune

import (
	"context"
	"encoding/json"
	"fmt"

	"atelier/common/client"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/tuner/tune/report"
)

// Collect reads a sweep with all its trials and their curves from a cluster.
func Collect(ctx context.Context, api *client.Client, id string) (*report.Sweep, error) {
	s, err := api.Sweep(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.Kind == trial.Inference {
		return nil, fmt.Errorf("sweep %s is an inference, not a tuning: there is no report of it; `atelier trial show %s 1` shows the run, `atelier checkpoint pull %s` fetches its results", s.ID, s.ID, s.ID)
	}
	asked, err := spec.Decode(s.SpecJSON)
	if err != nil {
		return nil, fmt.Errorf("sweep %s: %w", s.ID, err)
	}
	out := &report.Sweep{ID: s.ID, Name: s.Name, SearchMethod: s.SearchMethod, Algorithm: s.Algorithm, Trainer: s.Trainer, Seed: s.Seed,
		Metric: s.Objective.Metric, Maximize: s.Objective.Maximize, Objectives: s.Objectives,
		Status: s.Status, Ending: s.Ending, Space: asked.Space, Training: json.RawMessage(asked.TrainingJSON), Budget: s.BudgetTrials,
		Parallelism: s.Parallelism, Base: s.BaseDir, CreatedMS: s.CreatedMS, EndedMS: s.EndedMS}
	if f := s.Failure; f != "" {
		out.Ending = f
	}
	if _, searched := asked.Space.Lookup("model"); !searched {
		var t struct {
			Model string `json:"model"`
		}
		if json.Unmarshal(out.Training, &t) == nil {
			out.Model = t.Model
		}
	}
	for t, err := range api.Trials(ctx, id, client.Which{}) {
		if err != nil {
			return nil, err
		}
		x, err := trialOf(ctx, api, out, t)
		if err != nil {
			return nil, fmt.Errorf("trial %d: %w", t.Number, err)
		}
		out.Trials = append(out.Trials, x)
	}
	return out, nil
}

// trialOf reads a trial's curve, too, if it has reported anything.
func trialOf(ctx context.Context, api *client.Client, s *report.Sweep, t *trial.Trial) (report.Trial, error) {
	out := report.Trial{Number: t.Number, Status: t.Status, HasValue: t.Value != nil, ValueEpoch: int(t.ValueEpoch),
		Epochs: int(t.Epoch), StartedMS: t.StartedMS, EndedMS: t.EndedMS, Failure: t.Failure, StopReason: t.StopReason, OtherData: t.OtherData, Runs: t.Runs}
	if t.Value != nil {
		out.Value = float64(*t.Value)
	}
	var err error
	if out.Point, err = s.Space.Decode(string(t.Params)); err != nil {
		return out, err
	}
	if out.Epochs == 0 {
		return out, nil
	}
	out.Curve, err = api.Curve(ctx, s.ID, t.Number)
	return out, err
}
