package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// sweeps is the SweepService.
type sweeps struct{ *Server }

const maxWaitSweep = 60 * time.Second

func (s sweeps) GetSweep(ctx context.Context, req *connect.Request[atelierv1.GetSweepRequest]) (*connect.Response[atelierv1.GetSweepResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.GetSweepResponse{Sweep: s.told(sw), Index: view.Index()}), nil
}

// told is a sweep with what the leader's memory adds.
func (s sweeps) told(sw *state.Sweep) *atelierv1.Sweep {
	m := sw.Proto(s.now())
	m.Note = s.cfg.Assign.Note(sw)
	return m
}

// ListSweeps lists the newest first.
func (s sweeps) ListSweeps(ctx context.Context, req *connect.Request[atelierv1.ListSweepsRequest]) (*connect.Response[atelierv1.ListSweepsResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &atelierv1.ListSweepsResponse{Index: view.Index()}
	all := view.Sweeps()
	limit := int(req.Msg.Limit)
	if limit <= 0 || limit > len(all) {
		limit = len(all)
	}
	for i := range limit {
		m := all[len(all)-1-i].Proto(s.now())
		m.SpecYaml = "" // a list is not the place for it; GetSweep tells
		resp.Sweeps = append(resp.Sweeps, m)
	}
	return connect.NewResponse(resp), nil
}

func (s sweeps) ControlSweep(ctx context.Context, req *connect.Request[atelierv1.ControlSweepRequest]) (*connect.Response[atelierv1.ControlSweepResponse], error) {
	_, err := s.write(ctx, &logv1.Command{
		RequestId: req.Msg.RequestId,
		Op:        &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: req.Msg.Id, Action: req.Msg.Action}},
	})
	if err != nil {
		return nil, err
	}
	sw, err := find(s.cfg.View(), req.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.ControlSweepResponse{Sweep: sw.Proto(s.now())}), nil
}

func (s sweeps) ExtendSweep(ctx context.Context, req *connect.Request[atelierv1.ExtendSweepRequest]) (*connect.Response[atelierv1.ExtendSweepResponse], error) {
	_, err := s.write(ctx, &logv1.Command{
		RequestId: req.Msg.RequestId,
		Op:        &logv1.Command_ExtendSweep{ExtendSweep: &logv1.ExtendSweep{Id: req.Msg.Id, AddTrials: req.Msg.AddTrials, AddEpochs: req.Msg.AddEpochs, AddMs: req.Msg.AddMs}},
	})
	if err != nil {
		return nil, err
	}
	sw, err := find(s.cfg.View(), req.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.ExtendSweepResponse{Sweep: sw.Proto(s.now())}), nil
}

func (s sweeps) WaitSweep(ctx context.Context, req *connect.Request[atelierv1.WaitSweepRequest]) (*connect.Response[atelierv1.WaitSweepResponse], error) {
	timer := time.NewTimer(min(time.Duration(max(req.Msg.WaitMs, 0))*time.Millisecond, maxWaitSweep))
	defer timer.Stop()
	for over := false; ; {
		changed, leave := s.hub.watch(req.Msg.Id)
		lead := s.cfg.Lead.Changed()
		view, sw, err := s.sweep(ctx, req.Msg.Id)
		if err != nil {
			leave()
			return nil, err
		}
		if over || sw.ModifiedIndex > req.Msg.AfterIndex {
			leave()
			return connect.NewResponse(&atelierv1.WaitSweepResponse{Sweep: s.told(sw), Index: max(view.Index(), sw.ModifiedIndex)}), nil
		}
		select {
		case <-changed:
		case <-lead:
		case <-timer.C:
			over = true
		case <-s.done:
			over = true
		case <-ctx.Done():
			leave()
			return nil, failure(ctx.Err())
		}
		leave()
	}
}

func (s sweeps) GetLeaderboard(ctx context.Context, req *connect.Request[atelierv1.GetLeaderboardRequest]) (*connect.Response[atelierv1.GetLeaderboardResponse], error) {
	if req.Msg.Top < 0 {
		return nil, invalid("top %d: give 0 for all rows, or how many", req.Msg.Top)
	}
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	several := len(sw.Objectives) > 1
	if req.Msg.Pareto && !several {
		return nil, failure(fmt.Errorf("%w: sweep %s has one objective: its Pareto front is its best trial", state.ErrConflict, sw.ID))
	}
	top, source := int(req.Msg.Top), req.Msg.Source
	if several {
		if source == "redis" && req.Msg.Pareto {
			return nil, invalid("a Pareto front is read from state, not from redis")
		}
		source = "state"
	}
	if req.Msg.Pareto {
		top = 0
	}
	rows, answer, err := s.cfg.Board.Leaderboard(ctx, view, sw, top, source)
	if err != nil {
		return nil, redisFailure(err)
	}
	resp := &atelierv1.GetLeaderboardResponse{Rows: rows, Index: answer.Index, Source: answer.Source, Objective: wire.ToObjective(sw.Objective)}
	for _, o := range sw.Objectives {
		resp.Objectives = append(resp.Objectives, wire.ToObjective(o))
	}
	if several {
		if err := markFront(sw, rows); err != nil {
			return nil, failure(err)
		}
	}
	if req.Msg.Pareto {
		resp.Rows = slices.DeleteFunc(rows, func(r *atelierv1.LeaderboardRow) bool { return !r.Front })
		if n := int(req.Msg.Top); n > 0 {
			resp.Rows = resp.Rows[:min(n, len(resp.Rows))]
		}
	}
	return connect.NewResponse(resp), nil
}

func (s sweeps) ListCheckpoints(ctx context.Context, req *connect.Request[atelierv1.ListCheckpointsRequest]) (*connect.Response[atelierv1.ListCheckpointsResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	if req.Msg.Trial != 0 {
		if _, err := findTrial(sw, req.Msg.Trial); err != nil {
			return nil, err
		}
	}
	list, answer, err := s.cfg.Board.Checkpoints(ctx, view, sw, req.Msg.Trial, req.Msg.Source)
	if err != nil {
		return nil, redisFailure(err)
	}
	return connect.NewResponse(&atelierv1.ListCheckpointsResponse{Checkpoints: list, Index: answer.Index, Source: answer.Source}), nil
}

// redisFailure is for answers that were asked of Redis alone.
func redisFailure(err error) error {
	err = failure(err)
	if connect.CodeOf(err) == connect.CodeInternal {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("redis does not answer; ask for source state (%w)", err))
	}
	return err
}
