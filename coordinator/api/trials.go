package api

import (
	"context"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// trials is the TrialService.
type trials struct{ *Server }

// Trials of a page: where none are asked for, and at most.
const (
	pageSize    = 1000
	maxPageSize = 10_000
)

// ListTrials gives a page: trials numbered above after, in number order. Total
// counts what the filter lets through, on all pages.
func (s trials) ListTrials(ctx context.Context, req *connect.Request[atelierv1.ListTrialsRequest]) (*connect.Response[atelierv1.ListTrialsResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.SweepId)
	if err != nil {
		return nil, err
	}
	limit := int(req.Msg.Limit)
	if limit <= 0 {
		limit = pageSize
	}
	limit = min(limit, maxPageSize)
	wanted := map[trial.Status]bool{}
	for _, status := range req.Msg.Status {
		wanted[wire.Status(status)] = true
	}
	ahead := leasedAhead(view, sw)
	resp := &atelierv1.ListTrialsResponse{Index: view.Index(), Total: count(sw, wanted, ahead)}
	for t := range sw.Trials(max(req.Msg.After, 0) + 1) {
		if len(resp.Trials) == limit {
			break
		}
		if len(wanted) == 0 || wanted[statusOf(t, ahead)] {
			resp.Trials = append(resp.Trials, toldTrial(t, sw, ahead))
		}
	}
	return connect.NewResponse(resp), nil
}

// count is from the sweep's counters where it can be: a page must not cost a walk over all trials.
func count(s *state.Sweep, wanted map[trial.Status]bool, ahead map[int64]bool) int64 {
	if len(wanted) == 0 {
		return s.Len()
	}
	var n int64
	for status := range wanted {
		n += s.Counts.In(status)
	}
	if moved := int64(len(ahead)); wanted[trial.Waiting] != wanted[trial.Running] {
		n += map[bool]int64{true: moved, false: -moved}[wanted[trial.Waiting]]
	}
	return n
}

// GetTrial returns one trial with its runs and checkpoints, without its curve.
func (s trials) GetTrial(ctx context.Context, req *connect.Request[atelierv1.GetTrialRequest]) (*connect.Response[atelierv1.GetTrialResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.SweepId)
	if err != nil {
		return nil, err
	}
	t, err := findTrial(sw, req.Msg.Trial)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.GetTrialResponse{Trial: toldTrial(t, sw, leasedAhead(view, sw)), Index: view.Index()}), nil
}

// GetCurve returns the reports of a trial in the order of their epochs, over all its
// runs.
func (s trials) GetCurve(ctx context.Context, req *connect.Request[atelierv1.GetCurveRequest]) (*connect.Response[atelierv1.GetCurveResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.SweepId)
	if err != nil {
		return nil, err
	}
	t, err := findTrial(sw, req.Msg.Trial)
	if err != nil {
		return nil, err
	}
	resp := &atelierv1.GetCurveResponse{Index: view.Index()}
	t.Reports(func(r state.Report) bool {
		m := &atelierv1.Report{Epoch: r.Epoch, TimeMs: r.TimeMS, Metrics: make([]*atelierv1.Metric, len(r.Metrics))}
		for i, v := range r.Metrics {
			m.Metrics[i] = &atelierv1.Metric{Name: v.Name, Value: v.Value}
		}
		resp.Reports = append(resp.Reports, m)
		return true
	})
	return connect.NewResponse(resp), nil
}

// StopTrial writes a stop verdict, as a stopping rule would. A waiting or paused trial ends at once, a running
// one when its run has heard of it; what it reported counts.
func (s trials) StopTrial(ctx context.Context, req *connect.Request[atelierv1.StopTrialRequest]) (*connect.Response[atelierv1.StopTrialResponse], error) {
	t, err := s.change(ctx, req.Msg.SweepId, req.Msg.Trial, &logv1.Command{
		RequestId: req.Msg.RequestId,
		Op: &logv1.Command_SetVerdict{SetVerdict: &logv1.SetVerdict{
			Id: req.Msg.SweepId, Trial: req.Msg.Trial, Verdict: wire.ToVerdict(trial.VerdictStop), Reason: "stopped by hand",
		}},
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.StopTrialResponse{Trial: t}), nil
}

// RetryTrial lets a failed trial wait for a lease again, with all its retries. A sweep
// that had ended runs again.
func (s trials) RetryTrial(ctx context.Context, req *connect.Request[atelierv1.RetryTrialRequest]) (*connect.Response[atelierv1.RetryTrialResponse], error) {
	t, err := s.change(ctx, req.Msg.SweepId, req.Msg.Trial, &logv1.Command{
		RequestId: req.Msg.RequestId,
		Op:        &logv1.Command_RetryTrial{RetryTrial: &logv1.RetryTrial{Id: req.Msg.SweepId, Trial: req.Msg.Trial}},
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.RetryTrialResponse{Trial: t}), nil
}

// change writes a command about a trial and tells what became of the trial.
func (s trials) change(ctx context.Context, sweep string, trial int64, c *logv1.Command) (*atelierv1.Trial, error) {
	if _, err := s.write(ctx, c); err != nil {
		return nil, err
	}
	sw, err := find(s.cfg.View(), sweep)
	if err != nil {
		return nil, err
	}
	t, err := findTrial(sw, trial)
	if err != nil {
		return nil, err
	}
	return t.Proto(sw), nil
}
