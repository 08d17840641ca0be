package tune

import (
	"context"
	"encoding/json"
	"fmt"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/spec"
	"atelier/common/trial/wire"
	"atelier/tuner/tune/report"

	"connectrpc.com/connect"
)

// Collect reads a sweep with all its trials and their curves from a cluster.
func Collect(ctx context.Context, api *client.Client, id string) (*report.Sweep, error) {
	s, err := api.Sweep(ctx, id)
	if err != nil {
		return nil, err
	}
	asked, err := spec.Decode(s.GetSpecJson())
	if err != nil {
		return nil, fmt.Errorf("sweep %s: %w", s.GetId(), err)
	}
	out := &report.Sweep{ID: s.GetId(), Name: s.GetName(), SearchMethod: s.GetSearchMethod(), Algorithm: s.GetAlgorithm(), Trainer: s.GetTrainer(), Seed: s.GetSeed(),
		Metric: s.GetObjective().GetMetric(), Maximize: wire.Objective(s.GetObjective()).Maximize, Objectives: max(1, len(s.GetObjectives())),
		Status: wire.SweepStatus(s.GetStatus()).String(), Ending: s.GetEnding(), Space: asked.Space, Training: json.RawMessage(asked.TrainingJSON), Budget: s.GetBudgetTrials(),
		Parallelism: s.GetParallelism(), CreatedMS: s.GetCreatedMs(), EndedMS: s.GetEndedMs()}
	if f := s.GetFailure(); f != "" {
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
	return out, api.EachTrial(ctx, id, func(t *v1.Trial) error {
		x, err := trialOf(ctx, api, out, t)
		if err != nil {
			return fmt.Errorf("trial %d: %w", t.GetNumber(), err)
		}
		out.Trials = append(out.Trials, x)
		return nil
	})
}

func trialOf(ctx context.Context, api *client.Client, s *report.Sweep, t *v1.Trial) (report.Trial, error) {
	out := report.Trial{Number: t.GetNumber(), Status: wire.Status(t.GetStatus()).String(), HasValue: t.GetHasValue(), Value: t.GetValue(), ValueEpoch: int(t.GetValueEpoch()),
		Epochs: int(t.GetEpoch()), StartedMS: t.GetStartedMs(), EndedMS: t.GetEndedMs(), Failure: t.GetFailure(), StopReason: t.GetStopReason(), OtherData: t.GetOtherData()}
	var err error
	if out.Point, err = s.Space.Decode(t.GetParamsJson()); err != nil {
		return out, err
	}
	for _, r := range t.GetRuns() {
		out.Runs = append(out.Runs, report.Run{Worker: r.GetWorker(), Slot: r.GetSlot(), StartedMS: r.GetStartedMs(), EndedMS: r.GetEndedMs(), Exit: wire.Exit(r.GetExit()).String()})
	}
	if out.Epochs == 0 {
		return out, nil
	}
	c, err := api.Trials.GetCurve(ctx, connect.NewRequest(&v1.GetCurveRequest{SweepId: s.ID, Trial: t.GetNumber()}))
	if err != nil {
		return out, err
	}
	for _, e := range c.Msg.GetReports() {
		x := report.Epoch{Epoch: int(e.GetEpoch())}
		for _, m := range e.GetMetrics() {
			x.Metrics = append(x.Metrics, report.Metric{Name: m.GetName(), Value: m.GetValue()})
		}
		out.Curve = append(out.Curve, x)
	}
	return out, nil
}
