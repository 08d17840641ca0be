package api

import (
	"cmp"
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
	"atelier/tuner/sweep"
)

// sweeps is the SweepService.
type sweeps struct {
	*Server
	atelierv1connect.UnimplementedSweepServiceHandler // what a later part of the API brings
}

const maxWaitSweep = 60 * time.Second

func (s sweeps) CreateSweep(ctx context.Context, req *connect.Request[atelierv1.CreateSweepRequest]) (*connect.Response[atelierv1.CreateSweepResponse], error) {
	m := req.Msg
	spec, err := sweep.Parse(cmp.Or(m.SpecName, "spec"), []byte(m.SpecYaml))
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	resp := &atelierv1.CreateSweepResponse{}
	if !spec.SeedSet {
		var b [8]byte
		s.cfg.Random(b[:])
		spec.Seed = binary.LittleEndian.Uint64(b[:]) >> 11 // exact in any JSON reader
		resp.Warnings = append(resp.Warnings, fmt.Sprintf("the spec has no seed: %d was drawn; write `seed: %d` to repeat this sweep", spec.Seed, spec.Seed))
	}
	if w := s.offers(spec.Trainer); w != "" {
		resp.Warnings = append(resp.Warnings, w)
	}
	direction := atelierv1.Direction_DIRECTION_MINIMIZE
	if spec.Objective.Maximize {
		direction = atelierv1.Direction_DIRECTION_MAXIMIZE
	}
	c := &logv1.CreateSweep{
		Name: spec.Name, SpecYaml: m.SpecYaml, TrainingJson: spec.TrainingJSON, BaseDir: m.BaseDir, Seed: spec.Seed,
		Objective:    &atelierv1.Objective{Metric: spec.Objective.Metric, Direction: direction},
		SearchMethod: spec.SearchMethod, Algorithm: spec.Algorithm, Trainer: spec.Trainer,
		BudgetTrials: spec.Budget.Trials, Parallelism: spec.Parallelism, MaxRetries: spec.MaxRetries,
		StoppingJson: spec.StoppingJSON,
	}
	for attempt := 0; ; attempt++ {
		c.Id = s.newID()
		res, err := s.write(ctx, &logv1.Command{RequestId: m.RequestId, Op: &logv1.Command_CreateSweep{CreateSweep: c}})
		if errors.Is(err, state.ErrConflict) && attempt < 3 {
			continue // the id is taken
		}
		if err != nil {
			return nil, err
		}
		made, err := find(s.cfg.View(), cmp.Or(res.Sweep, c.Id))
		if err != nil {
			return nil, err
		}
		if made.Seed != spec.Seed {
			resp.Warnings = nil // a repeat: the first answer's seed counts
		}
		resp.Sweep = made.Proto(s.now())
		return connect.NewResponse(resp), nil
	}
}

func (s *Server) newID() string {
	var b [5]byte
	s.cfg.Random(b[:])
	return "s-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// offers warns when workers are there and none has the trainer.
func (s *Server) offers(trainer string) string {
	list, err := s.cfg.Assign.Workers()
	if err != nil || len(list) == 0 {
		return ""
	}
	for _, w := range list {
		for _, t := range w.Trainers {
			if t == trainer {
				return ""
			}
		}
	}
	return fmt.Sprintf("no worker offers the trainer %q now: trials wait until one does", trainer)
}

func (s sweeps) GetSweep(ctx context.Context, req *connect.Request[atelierv1.GetSweepRequest]) (*connect.Response[atelierv1.GetSweepResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.GetSweepResponse{Sweep: sw.Proto(s.now()), Index: view.Index()}), nil
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
		Op:        &logv1.Command_ExtendSweep{ExtendSweep: &logv1.ExtendSweep{Id: req.Msg.Id, AddTrials: req.Msg.AddTrials}},
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
			return connect.NewResponse(&atelierv1.WaitSweepResponse{Sweep: sw.Proto(s.now()), Index: max(view.Index(), sw.ModifiedIndex)}), nil
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
	rows, answer, err := s.cfg.Board.Leaderboard(ctx, view, sw, int(req.Msg.Top), req.Msg.Source)
	if err != nil {
		return nil, redisFailure(err)
	}
	return connect.NewResponse(&atelierv1.GetLeaderboardResponse{
		Rows: rows, Index: answer.Index, Source: answer.Source, Objective: sw.Objective.Proto(),
	}), nil
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
