package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/board"
	"atelier/coordinator/state"
)

// sweeps is the SweepService.
type sweeps struct{ *Server }

const maxWaitSweep = 60 * time.Second

// GetSweep returns a sweep with its spec, and a note on why nothing of it runs where
// the leader knows one.
func (s sweeps) GetSweep(ctx context.Context, req *connect.Request[atelierv1.GetSweepRequest]) (*connect.Response[atelierv1.GetSweepResponse], error) {
	view, sw, err := s.sweep(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.GetSweepResponse{Sweep: s.told(view, sw), Index: view.Index()}), nil
}

// ListSweeps lists the newest first, without archived and deleted ones unless they are asked for.
func (s sweeps) ListSweeps(ctx context.Context, req *connect.Request[atelierv1.ListSweepsRequest]) (*connect.Response[atelierv1.ListSweepsResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &atelierv1.ListSweepsResponse{Index: view.Index()}
	all := view.Sweeps()
	limit := int(req.Msg.Limit)
	for _, sw := range slices.Backward(all) {
		if limit > 0 && len(resp.Sweeps) == limit {
			break
		}
		if sw.DeletedMS != 0 && !req.Msg.Deleted || sw.DeletedMS == 0 && sw.ArchivedMS != 0 && !req.Msg.Archived {
			continue
		}
		m := s.told(view, sw)
		m.SpecYaml, m.SpecJson = "", "" // a list is not the place for it; GetSweep tells
		resp.Sweeps = append(resp.Sweeps, m)
	}
	return connect.NewResponse(resp), nil
}

// ControlSweep pauses, resumes, stops or cancels. A stopped sweep's running trials
// end first: the sweep that is returned may still be stopping.
func (s sweeps) ControlSweep(ctx context.Context, req *connect.Request[atelierv1.ControlSweepRequest]) (*connect.Response[atelierv1.ControlSweepResponse], error) {
	_, err := s.write(ctx, &logv1.Command{
		RequestId: req.Msg.RequestId,
		Op:        &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: req.Msg.Id, Action: req.Msg.Action, Force: req.Msg.Force}},
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

// ExtendSweep adds to budgets that the sweep has. One that ended by its budget runs
// again; one whose space is used up, or that was cancelled or failed, refuses.
func (s sweeps) ExtendSweep(ctx context.Context, req *connect.Request[atelierv1.ExtendSweepRequest]) (*connect.Response[atelierv1.ExtendSweepResponse], error) {
	// What a sweep's kind is never changes, so any node's state may say it.
	if sw, err := find(s.cfg.View(), req.Msg.Id); err == nil {
		if err := ofTuning(sw, "it has no budget to extend"); err != nil {
			return nil, err
		}
	}
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

// WaitSweep is a long poll: it answers once the sweep has changed after an index,
// or as it is when the time is over. With a rest, changes of so long are told
// together, so that a busy sweep costs a follower few calls; its end is told at once.
func (s sweeps) WaitSweep(ctx context.Context, req *connect.Request[atelierv1.WaitSweepRequest]) (*connect.Response[atelierv1.WaitSweepResponse], error) {
	timer := time.NewTimer(min(time.Duration(max(req.Msg.WaitMs, 0))*time.Millisecond, maxWaitSweep))
	defer timer.Stop()
	if req.Msg.AfterIndex > 0 {
		s.rest(ctx, req.Msg.Id, min(time.Duration(req.Msg.RestMs)*time.Millisecond, maxWaitSweep))
	}
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
			return connect.NewResponse(&atelierv1.WaitSweepResponse{Sweep: s.told(view, sw), Index: max(view.Index(), sw.ModifiedIndex)}), nil
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

// rest lets so much time pass, or what there is until the sweep is over.
func (s sweeps) rest(ctx context.Context, id string, d time.Duration) {
	if d <= 0 {
		return
	}
	passed := time.NewTimer(d)
	defer passed.Stop()
	for {
		changed, leave := s.hub.watch(id)
		if sw, ok := s.cfg.View().Sweep(id); !ok || sw.Status.Over() {
			leave()
			return
		}
		select {
		case <-changed:
			leave()
			continue
		case <-passed.C:
		case <-s.done:
		case <-ctx.Done():
		}
		leave()
		return
	}
}

// GetLeaderboard answers from the state. Redis has been asked by boards.
func (s sweeps) GetLeaderboard(ctx context.Context, req *connect.Request[atelierv1.GetLeaderboardRequest]) (*connect.Response[atelierv1.GetLeaderboardResponse], error) {
	view, sw, err := s.reached(ctx, req.Msg.Id, req.Msg.Source, req.Msg.AtLeast)
	if err != nil {
		return nil, err
	}
	top, err := depth(sw, req.Msg)
	if err != nil {
		return nil, err
	}
	resp := leaderboard(sw, req.Msg, board.LeaderboardOf(sw, top))
	resp.Index, resp.Source = view.Index(), board.FromState
	return connect.NewResponse(resp), nil
}

// depth is how many of the best rows a request is answered from, 0 = all.
func depth(sw *state.Sweep, m *atelierv1.GetLeaderboardRequest) (int, error) {
	if err := ofTuning(sw, "it has no leaderboard"); err != nil {
		return 0, err
	}
	switch {
	case m.Top < 0:
		return 0, invalid("top %d: give 0 for all rows, or how many", m.Top)
	case m.Pareto && len(sw.Objectives) < 2:
		return 0, failure(fmt.Errorf("%w: sweep %s has one objective: its Pareto front is its best trial", state.ErrConflict, sw.ID))
	case m.Pareto:
		return 0, nil
	}
	return int(m.Top), nil
}

// leaderboard is an answer of these rows.
func leaderboard(sw *state.Sweep, m *atelierv1.GetLeaderboardRequest, rows []trial.Row) *atelierv1.GetLeaderboardResponse {
	if m.Pareto {
		rows = slices.DeleteFunc(rows, func(r trial.Row) bool { return !r.Front })
		if n := int(m.Top); n > 0 {
			rows = rows[:min(n, len(rows))]
		}
	}
	resp := &atelierv1.GetLeaderboardResponse{Rows: wire.ToRows(rows), Objective: wire.ToObjective(sw.Objective)}
	for _, o := range sw.Objectives {
		resp.Objectives = append(resp.Objectives, wire.ToObjective(o))
	}
	return resp
}

// ListCheckpoints answers from the state. Redis has been asked by boards.
func (s sweeps) ListCheckpoints(ctx context.Context, req *connect.Request[atelierv1.ListCheckpointsRequest]) (*connect.Response[atelierv1.ListCheckpointsResponse], error) {
	view, sw, err := s.reached(ctx, req.Msg.Id, req.Msg.Source, req.Msg.AtLeast)
	if err != nil {
		return nil, err
	}
	if req.Msg.Trial != 0 {
		if _, err := findTrial(sw, req.Msg.Trial); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&atelierv1.ListCheckpointsResponse{Checkpoints: wire.ToCheckpoints(board.CheckpointsOf(sw, req.Msg.Trial)), Index: view.Index(), Source: board.FromState}), nil
}

// reached reads one sweep once the state has an index.
func (s sweeps) reached(ctx context.Context, id, source string, atLeast uint64) (*state.View, *state.Sweep, error) {
	err := board.CheckSource(source)
	if source == board.FromRedis {
		err = board.ErrOff
	}
	if err != nil {
		return nil, nil, failure(err)
	}
	for giveUp := time.Now().Add(atLeastWait); s.cfg.View().Index() < atLeast; {
		if time.Now().After(giveUp) {
			return nil, nil, failure(fmt.Errorf("%w: the state is at index %d after %s, and at least %d was asked for", state.ErrConflict, s.cfg.View().Index(), atLeastWait, atLeast))
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return nil, nil, failure(ctx.Err())
		}
	}
	return s.sweep(ctx, id)
}

// redisFailure is for answers that were asked of Redis alone.
func redisFailure(err error) error {
	err = failure(err)
	if connect.CodeOf(err) == connect.CodeInternal {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("redis does not answer; ask for source state (%w)", err))
	}
	return err
}
