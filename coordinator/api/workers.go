package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/state"
)

// workers is the WorkerService.
type workers struct{ *Server }

// maxEvents bounds one Relay, so that a log entry stays small.
const maxEvents = 4096

// Heartbeat renews the leases that a worker names, in the leader's memory alone, and
// answers which of them it holds no more, verdicts, and files to delete. A worker of
// another cluster is refused: its leases mean nothing here.
func (s workers) Heartbeat(ctx context.Context, req *connect.Request[atelierv1.HeartbeatRequest]) (*connect.Response[atelierv1.HeartbeatResponse], error) {
	// A worker counts on what is renewed here: a leader that was deposed without
	// knowing must not renew.
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if theirs := req.Msg.ClusterId; theirs != "" && theirs != view.ClusterID() && !slices.Contains(view.Former(), theirs) {
		// Unavailable: the next of its addresses may be its own cluster's.
		return nil, client.Refusal{Reason: client.ReasonOtherCluster, Cluster: view.ClusterID()}.Error(connect.CodeUnavailable,
			fmt.Errorf("worker %s belongs to cluster %s, this is cluster %s: give it the addresses of its own cluster, or an empty --data folder", req.Msg.GetWorker().GetName(), theirs, view.ClusterID()))
	}
	answer, err := s.cfg.Assign.Heartbeat(wire.Heartbeat(req.Msg))
	if err != nil {
		return nil, failure(err)
	}
	resp := wire.ToHeartbeatAnswer(answer)
	resp.Cluster = ofCluster(view)
	return connect.NewResponse(resp), nil
}

// Acquire is a long poll: it waits until a trial is granted to the slot, or answers
// without a lease when the caller's time is over. A repeat under the same request id
// gets the same lease.
func (s workers) Acquire(ctx context.Context, req *connect.Request[atelierv1.AcquireRequest]) (*connect.Response[atelierv1.AcquireResponse], error) {
	m := req.Msg
	slot := assign.Slot{Worker: m.Worker, Incarnation: m.Incarnation, Request: m.RequestId, Name: m.Slot, Trainers: m.Trainers, GroupTrainers: m.GroupTrainers, Labels: m.Labels, Folder: m.Folder}
	lease, err := s.cfg.Assign.Acquire(ctx, slot, time.Duration(max(m.WaitMs, 0))*time.Millisecond)
	if err != nil {
		return nil, failure(err)
	}
	return connect.NewResponse(&atelierv1.AcquireResponse{Lease: wire.ToLease(lease)}), nil
}

// Relay records what runs report. Each event has a result of its own, in the order
// of the request: a fenced or refused one does not fail the others. All of it is
// durable on a majority when the answer comes.
func (s workers) Relay(ctx context.Context, req *connect.Request[atelierv1.RelayRequest]) (*connect.Response[atelierv1.RelayResponse], error) {
	resp, err := s.record(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// record puts events through the log: one command a request. There is no request id: an event is known by its
// lease's token and its epoch, so a relay that is sent again finds each of its events recorded already. The answer
// waits for the stopping rules, where they have a say (verdicts).
func (s workers) record(ctx context.Context, m *atelierv1.RelayRequest) (*atelierv1.RelayResponse, error) {
	if len(m.Events) == 0 {
		return &atelierv1.RelayResponse{}, nil
	}
	if len(m.Events) > maxEvents {
		return nil, invalid("%d events in one relay: at most %d", len(m.Events), maxEvents)
	}
	res, err := s.write(ctx, &logv1.Command{
		Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: m.Events}},
	})
	if err != nil {
		return nil, err
	}
	s.verdicts(ctx, m.Events, res.Events, res.Index)
	resp := &atelierv1.RelayResponse{Results: make([]*atelierv1.EventResult, len(res.Events)), Index: res.Index}
	for i := range res.Events {
		resp.Results[i] = res.Events[i].Proto()
	}
	return resp, nil
}

// ListWorkers tells of the workers that this leader has heard of: after an election
// those that have not spoken since are missing.
func (s workers) ListWorkers(ctx context.Context, req *connect.Request[atelierv1.ListWorkersRequest]) (*connect.Response[atelierv1.ListWorkersResponse], error) {
	if _, err := s.read(ctx); err != nil {
		return nil, err
	}
	list, err := s.cfg.Assign.Workers()
	if err != nil {
		return nil, failure(err)
	}
	resp := &atelierv1.ListWorkersResponse{Workers: make([]*atelierv1.Worker, len(list))}
	for i, w := range list {
		resp.Workers[i] = wire.ToWorker(w)
	}
	return connect.NewResponse(resp), nil
}

// DrainWorker lets a worker get no more leases; its running trials are asked for a
// checkpoint and given back. It outlasts restarts of the worker and the leader, until
// it is undone.
func (s workers) DrainWorker(ctx context.Context, req *connect.Request[atelierv1.DrainWorkerRequest]) (*connect.Response[atelierv1.DrainWorkerResponse], error) {
	if req.Msg.Name == "" {
		return nil, invalid("no worker named")
	}
	if !req.Msg.Undo {
		known, err := s.cfg.Assign.Workers()
		if err != nil {
			return nil, failure(err)
		}
		if !slices.ContainsFunc(known, func(w trial.Worker) bool { return w.Name == req.Msg.Name }) {
			return nil, failure(fmt.Errorf("%w: worker %q has not been heard of; `atelier worker list` names those that have", state.ErrNotFound, req.Msg.Name))
		}
	}
	_, err := s.write(ctx, &logv1.Command{
		RequestId: req.Msg.RequestId,
		Op:        &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: req.Msg.Name, Drain: !req.Msg.Undo}},
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.DrainWorkerResponse{}), nil
}
