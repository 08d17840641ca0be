package tune

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/tuner/sweep"
	"atelier/tuner/tune/report"

	"connectrpc.com/connect"
)

const pageTrials = 500

// Collect reads a sweep with all its trials and their curves from a cluster.
func Collect(ctx context.Context, api *client.Client, id string) (*report.Sweep, error) {
	r, err := api.Sweeps.GetSweep(ctx, connect.NewRequest(&v1.GetSweepRequest{Id: id}))
	if err != nil {
		return nil, err
	}
	s := r.Msg.GetSweep()
	spec, err := sweep.Stored("sweep "+s.GetId(), []byte(s.GetSpecYaml()))
	if err != nil {
		return nil, fmt.Errorf("read the spec of sweep %s: %w", s.GetId(), err)
	}
	out := &report.Sweep{ID: s.GetId(), Name: s.GetName(), SearchMethod: s.GetSearchMethod(), Algorithm: s.GetAlgorithm(), Trainer: s.GetTrainer(), Seed: s.GetSeed(),
		Metric: s.GetObjective().GetMetric(), Maximize: s.GetObjective().GetDirection() == v1.Direction_DIRECTION_MAXIMIZE, Objectives: max(1, len(s.GetObjectives())),
		Status: word(s.GetStatus().String(), "SWEEP_STATUS_"), Ending: s.GetEnding(), Space: spec.Space, Training: json.RawMessage(spec.TrainingJSON), Budget: s.GetBudgetTrials(),
		Parallelism: s.GetParallelism(), CreatedMS: s.GetCreatedMs(), EndedMS: s.GetEndedMs()}
	if f := s.GetFailure(); f != "" {
		out.Ending = f
	}
	if _, searched := spec.Space.Lookup("model"); !searched {
		var t struct {
			Model string `json:"model"`
		}
		if json.Unmarshal(out.Training, &t) == nil {
			out.Model = t.Model
		}
	}
	for after := int64(0); ; {
		page, err := api.Trials.ListTrials(ctx, connect.NewRequest(&v1.ListTrialsRequest{SweepId: id, After: after, Limit: pageTrials}))
		if err != nil {
			return nil, err
		}
		for _, t := range page.Msg.GetTrials() {
			after = t.GetNumber()
			x, err := trialOf(ctx, api, out, t)
			if err != nil {
				return nil, fmt.Errorf("trial %d: %w", t.GetNumber(), err)
			}
			out.Trials = append(out.Trials, x)
		}
		if len(page.Msg.GetTrials()) < pageTrials {
			return out, nil
		}
	}
}

func trialOf(ctx context.Context, api *client.Client, s *report.Sweep, t *v1.Trial) (report.Trial, error) {
	out := report.Trial{Number: t.GetNumber(), Status: word(t.GetStatus().String(), "TRIAL_STATUS_"), HasValue: t.GetHasValue(), Value: t.GetValue(), ValueEpoch: int(t.GetValueEpoch()),
		Epochs: int(t.GetEpoch()), StartedMS: t.GetStartedMs(), EndedMS: t.GetEndedMs(), Failure: t.GetFailure(), StopReason: t.GetStopReason(), OtherData: t.GetOtherData()}
	var err error
	if out.Point, err = s.Space.Decode(t.GetParamsJson()); err != nil {
		return out, err
	}
	for _, r := range t.GetRuns() {
		x := report.Run{Worker: r.GetWorker(), Slot: r.GetSlot(), StartedMS: r.GetStartedMs(), EndedMS: r.GetEndedMs()}
		if r.GetExit() != v1.ExitClass_EXIT_CLASS_UNSPECIFIED {
			x.Exit = word(r.GetExit().String(), "EXIT_CLASS_")
		}
		out.Runs = append(out.Runs, x)
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

// word is an enumeration's value as people read it.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
