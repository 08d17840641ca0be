package api

import (
	"context"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/duty/notify"
	"atelier/coordinator/state"
)

// LabelSweep changes name, tags and note; what is absent stays. They are for people alone.
func (s sweeps) LabelSweep(ctx context.Context, req *connect.Request[atelierv1.LabelSweepRequest]) (*connect.Response[atelierv1.LabelSweepResponse], error) {
	m := req.Msg
	if why := trial.UnfitName(m.GetName()); why != "" {
		return nil, invalid("name %.80q of sweep %s: %s", m.GetName(), m.Id, why)
	}
	made, err := s.changed(ctx, m.Id, &logv1.Command{RequestId: m.RequestId,
		Op: &logv1.Command_LabelSweep{LabelSweep: &logv1.LabelSweep{Id: m.Id, Name: m.Name, AddTags: m.AddTags, RemoveTags: m.RemoveTags, Note: m.Note}}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.LabelSweepResponse{Sweep: made}), nil
}

// SetNotification says where a sweep's end is posted, "" for nowhere. Of one that has ended
// it is posted now.
func (s sweeps) SetNotification(ctx context.Context, req *connect.Request[atelierv1.SetNotificationRequest]) (*connect.Response[atelierv1.SetNotificationResponse], error) {
	m := req.Msg
	if m.Url != "" {
		if err := notify.CheckURL(m.Url); err != nil {
			return nil, invalid("notify of sweep %s: %w", m.Id, err)
		}
	}
	made, err := s.changed(ctx, m.Id, &logv1.Command{RequestId: m.RequestId, Op: &logv1.Command_SetNotification{SetNotification: &logv1.SetNotification{Id: m.Id, Url: m.Url, On: m.On}}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.SetNotificationResponse{Sweep: made}), nil
}

// PurgeSweep takes a deleted sweep out of the state before its time. One that is gone
// already is no error.
func (s sweeps) PurgeSweep(ctx context.Context, req *connect.Request[atelierv1.PurgeSweepRequest]) (*connect.Response[atelierv1.PurgeSweepResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if _, gone := view.Purged(req.Msg.Id); gone {
		return connect.NewResponse(&atelierv1.PurgeSweepResponse{}), nil
	}
	sw, err := find(view, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	if _, err := s.write(ctx, purge(sw)); err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.PurgeSweepResponse{}), nil
}

func purge(sw *state.Sweep) *logv1.Command {
	return &logv1.Command{Op: &logv1.Command_PurgeSweep{PurgeSweep: &logv1.PurgeSweep{Id: sw.ID, DeletedMs: sw.DeletedMS}}}
}
