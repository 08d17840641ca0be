package api

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial/wire"
	"atelier/coordinator/history"
	"atelier/coordinator/state"
	"atelier/tuner/importance"
	"atelier/tuner/sweep"
)

// EnqueueTrials takes given points, checked against the sweep's space; all of them or, if one is wrong, none. A
// repeat under the same request id enqueues them once.
func (s sweeps) EnqueueTrials(ctx context.Context, req *connect.Request[atelierv1.EnqueueTrialsRequest]) (*connect.Response[atelierv1.EnqueueTrialsResponse], error) {
	_, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	c := &logv1.EnqueueTrials{Id: sw.ID}
	for i, text := range req.Msg.ParamsJson {
		p, err := sweep.GivenPoint(&sw.Space, text)
		if err != nil {
			return nil, invalid("point %d for sweep %s: %w", i+1, sw.ID, err)
		}
		c.ParamsJson = append(c.ParamsJson, p)
	}
	made, err := s.changed(ctx, sw.ID, &logv1.Command{RequestId: req.Msg.RequestId, Op: &logv1.Command_EnqueueTrials{EnqueueTrials: c}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.EnqueueTrialsResponse{Sweep: made}), nil
}

// PrioritizeSweep says which sweep gets free slots first. Leases that are granted
// stay.
func (s sweeps) PrioritizeSweep(ctx context.Context, req *connect.Request[atelierv1.PrioritizeSweepRequest]) (*connect.Response[atelierv1.PrioritizeSweepResponse], error) {
	made, err := s.changed(ctx, req.Msg.Id, &logv1.Command{RequestId: req.Msg.RequestId,
		Op: &logv1.Command_PrioritizeSweep{PrioritizeSweep: &logv1.PrioritizeSweep{Id: req.Msg.Id, Priority: req.Msg.Priority}}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.PrioritizeSweepResponse{Sweep: made}), nil
}

// changed writes a command about a sweep and tells what became of it.
func (s sweeps) changed(ctx context.Context, id string, c *logv1.Command) (*atelierv1.Sweep, error) {
	if _, err := s.write(ctx, c); err != nil {
		return nil, err
	}
	sw, err := find(s.cfg.View(), id)
	if err != nil {
		return nil, err
	}
	return sw.Proto(s.now()), nil
}

// VerifySweep computes proposals again. All of them may take as long as the
// search itself did, so it is done in parts; a caller that leaves ends its part.
func (s sweeps) VerifySweep(ctx context.Context, req *connect.Request[atelierv1.VerifySweepRequest]) (*connect.Response[atelierv1.VerifySweepResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	until := s.cfg.Now().Add(time.Duration(max(req.Msg.WaitMs, 0)) * time.Millisecond)
	began := false // one portion in any case
	v, err := history.Verify(ctx, sw, req.Msg.After, func() bool {
		enough := began && !s.cfg.Now().Before(until)
		began = true
		return enough
	})
	if err != nil {
		return nil, failure(fmt.Errorf("verify sweep %s: %w", sw.ID, err))
	}
	resp := &atelierv1.VerifySweepResponse{Checked: v.Checked, Unchecked: v.Unchecked, Index: view.Index(), Through: v.Through, Trials: sw.Len()}
	for _, d := range v.Differences {
		resp.Differences = append(resp.Differences, &atelierv1.ProposalDifference{
			Trial: d.Trial, RecordedJson: d.Recorded.Params, ComputedJson: d.Computed.Params, Seen: d.Seen, Source: wire.ToSource(d.Source),
			RecordedOrigin: originOf(d.Recorded), ComputedOrigin: originOf(d.Computed)})
	}
	return connect.NewResponse(resp), nil
}

// originOf is nil for a trial that starts from scratch.
func originOf(p history.Proposed) *atelierv1.Origin {
	if p.Origin.Trial == 0 {
		return nil
	}
	return &atelierv1.Origin{Trial: p.Origin.Trial, Epoch: int32(p.Origin.Epoch)}
}

// GetProgress lists the trials that ended with a value in the order of their
// ends, with the best so far at each.
func (s sweeps) GetProgress(ctx context.Context, req *connect.Request[atelierv1.GetProgressRequest]) (*connect.Response[atelierv1.GetProgressResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	if err := ofTuning(sw, "it has no best value that improves"); err != nil {
		return nil, err
	}
	// Findings are numbered through the sweep as trials end or pause, so they are the order of the
	// ends without sorting by clocks. A trial that paused has several: its last counts.
	last := make([]*state.Trial, sw.Findings+1) // trial by its last finding
	for t := range sw.Trials(1) {
		if n := len(t.Findings); n > 0 && t.Ended() {
			last[t.Findings[n-1].Ordinal] = t
		}
	}
	resp := &atelierv1.GetProgressResponse{Objective: wire.ToObjective(sw.Objective), Index: view.Index()}
	var ended, epochs int64
	var best *state.Trial
	for _, t := range last {
		if t == nil {
			continue
		}
		ended++
		epochs += t.Trained()
		if !t.HasValue {
			continue
		}
		if best == nil || sw.Objective.Better(t.Value, best.Value) {
			best = t
		}
		resp.Points = append(resp.Points, &atelierv1.ProgressPoint{Ended: ended, Trial: t.Number, Value: t.Value, Best: best.Value, BestTrial: best.Number,
			TimeMs: t.EndedMS - sw.CreatedMS, Epochs: epochs})
	}
	return connect.NewResponse(resp), nil
}

// GetImportance says which parameters mattered for the best values of the first
// objective, from the trials that have ended or paused with one.
func (s sweeps) GetImportance(ctx context.Context, req *connect.Request[atelierv1.GetImportanceRequest]) (*connect.Response[atelierv1.GetImportanceResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	if err := ofTuning(sw, "it has no parameters that matter more or less"); err != nil {
		return nil, err
	}
	problem, known, err := history.Now(sw)
	if err != nil {
		return nil, failure(err)
	}
	scores, err := importance.Of(problem, known, 0)
	if err != nil { // too few trials: the state does not allow it now
		return nil, failure(fmt.Errorf("%w: importance of sweep %s: %w", state.ErrConflict, sw.ID, err))
	}
	resp := &atelierv1.GetImportanceResponse{Method: "PED-ANOVA", Index: view.Index()}
	for _, score := range scores {
		resp.Parameters = append(resp.Parameters, &atelierv1.ParameterImportance{Name: score.Parameter, Importance: score.Share})
	}
	for i := range known {
		if known[i].HasValue {
			resp.Trials++
		}
	}
	return connect.NewResponse(resp), nil
}
