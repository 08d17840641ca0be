package api

import (
	"cmp"
	"context"
	"fmt"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

// SetAlias gives a checkpoint a name, or takes a name away. Which checkpoint is meant by
// "the best" is settled here, before the log.
func (s sweeps) SetAlias(ctx context.Context, req *connect.Request[atelierv1.SetAliasRequest]) (*connect.Response[atelierv1.SetAliasResponse], error) {
	m := req.Msg
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c := &logv1.SetAlias{Name: m.Name, By: cmp.Or(by(ctx), m.By)}
	resp := &atelierv1.SetAliasResponse{}
	if m.SweepId == "" {
		if before, ok := view.Alias(m.Name); ok {
			resp.Alias = before.Proto(view)
		}
	} else {
		sw, err := find(view, m.SweepId)
		if err != nil {
			return nil, err
		}
		t, k, err := named(sw, m.Trial, m.Epoch)
		if err != nil {
			return nil, err
		}
		c.SweepId, c.Trial, c.Epoch, c.Token = sw.ID, t.Number, k.Epoch, k.Token
	}
	if _, err := s.write(ctx, &logv1.Command{RequestId: m.RequestId, Op: &logv1.Command_SetAlias{SetAlias: c}}); err != nil {
		return nil, err
	}
	if now, ok := s.cfg.View().Alias(m.Name); ok && m.SweepId != "" {
		resp.Alias = now.Proto(s.cfg.View())
	}
	return connect.NewResponse(resp), nil
}

// named is a checkpoint of a sweep: trial 0 is its best one, epoch 0 the trial's best
// checkpoint.
func named(sw *state.Sweep, number int64, epoch int32) (*state.Trial, *state.Checkpoint, error) {
	t := sw.Best()
	if number != 0 {
		var err error
		if t, err = findTrial(sw, number); err != nil {
			return nil, nil, err
		}
	}
	if t == nil {
		return nil, nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("sweep %s has no trial with a value yet", sw.ID))
	}
	if epoch == 0 {
		if k := t.BestCheckpoint(sw.Objective); k != nil {
			return t, k, nil
		}
		return nil, nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("trial %d of sweep %s keeps no checkpoint", t.Number, sw.ID))
	}
	for i := range t.Checkpoints { // the newest run's first
		if t.Checkpoints[i].Epoch == epoch {
			return t, &t.Checkpoints[i], nil
		}
	}
	return nil, nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("trial %d of sweep %s keeps no checkpoint of epoch %d (it keeps %d)", t.Number, sw.ID, epoch, len(t.Checkpoints)))
}

// ListAliases lists them by name.
func (s sweeps) ListAliases(ctx context.Context, req *connect.Request[atelierv1.ListAliasesRequest]) (*connect.Response[atelierv1.ListAliasesResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &atelierv1.ListAliasesResponse{Index: view.Index()}
	if name := req.Msg.Name; name != "" {
		a, ok := view.Alias(name)
		if !ok {
			return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no alias %.80q", name))
		}
		resp.Aliases = append(resp.Aliases, a.Proto(view))
		return connect.NewResponse(resp), nil
	}
	for _, a := range view.Aliases() {
		resp.Aliases = append(resp.Aliases, a.Proto(view))
	}
	return connect.NewResponse(resp), nil
}
