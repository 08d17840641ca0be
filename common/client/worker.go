package client

import (
	"context"
	"fmt"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// HeartbeatRequest is what a worker says every few seconds, and at once after a
// start.
type HeartbeatRequest struct {
	Worker trial.Worker

	// Leases are all that this agent holds, prefetched ones too. A lease of its
	// incarnation that is not named is not renewed; those of an earlier incarnation
	// of the same worker end at once as lost.
	Leases []trial.LeaseRef

	Folder   string // id of its data folder: a name belongs to one folder at a time
	Admitted bool   // a leader has answered this incarnation before, and did not refuse it
	Cluster  string // that the worker's folder belongs to; "" = none yet
}

// HeartbeatAnswer is what the leader says to it.
type HeartbeatAnswer struct {
	TTL          time.Duration    // of the leases renewed: count it from before the request was sent
	Lost         []trial.LeaseRef // named, and no longer valid: kill those runs
	Verdicts     []LeaseVerdict   // other than continue
	Drain        bool             // take no new leases
	Coordinators []string         // API addresses of all members
	Dropped      []trial.Location // checkpoints of this worker that the index gave up: delete the files
	Refused      string           // not "": this agent is none of the cluster's, and why
	Final        bool             // of Refused: end. Else the name may become free: ask again soon

	Cluster        string   // whose leader answers
	FormerClusters []string // that this one was recovered from
}

// LeaseVerdict is a verdict on a running trial.
type LeaseVerdict struct {
	Lease   trial.LeaseRef
	Verdict trial.Verdict
	Reason  string
}

// Heartbeat renews a worker's leases.
func (c *Client) Heartbeat(ctx context.Context, r HeartbeatRequest) (HeartbeatAnswer, error) {
	req := &atelierv1.HeartbeatRequest{Worker: wire.ToWorker(r.Worker), Folder: r.Folder, Admitted: r.Admitted, ClusterId: r.Cluster}
	for _, l := range r.Leases {
		req.Leases = append(req.Leases, wire.ToLeaseRef(l))
	}
	resp, err := c.Workers.Heartbeat(ctx, connect.NewRequest(req))
	if err != nil {
		return HeartbeatAnswer{}, err
	}
	m := resp.Msg
	a := HeartbeatAnswer{TTL: time.Duration(m.TtlMs) * time.Millisecond, Drain: m.Drain, Coordinators: m.Coordinators, Refused: m.Refused, Final: m.Final,
		Cluster: m.GetCluster().GetId(), FormerClusters: m.GetCluster().GetFormerIds()}
	for _, l := range m.Lost {
		a.Lost = append(a.Lost, wire.LeaseRef(l))
	}
	for _, v := range m.Verdicts {
		a.Verdicts = append(a.Verdicts, LeaseVerdict{Lease: wire.LeaseRef(v.Lease), Verdict: wire.Verdict(v.Verdict), Reason: v.Reason})
	}
	for _, location := range m.Dropped {
		a.Dropped = append(a.Dropped, trial.Location(location))
	}
	return a, nil
}

// AcquireRequest asks for one lease.
type AcquireRequest struct {
	RequestID   string // the same one gets the same lease again
	Worker      string
	Incarnation string
	Slot        string   // that the lease is for
	Trainers    []string // that this worker offers
	Labels      map[string]string
	Folder      string        // as in HeartbeatRequest
	Wait        time.Duration // for a lease, where there is none at once
}

// Acquire returns a lease; nil where there was none to give.
func (c *Client) Acquire(ctx context.Context, r AcquireRequest) (*trial.Lease, error) {
	resp, err := c.Workers.Acquire(ctx, connect.NewRequest(&atelierv1.AcquireRequest{RequestId: r.RequestID, Worker: r.Worker, Incarnation: r.Incarnation, Slot: r.Slot,
		Trainers: r.Trainers, Labels: r.Labels, Folder: r.Folder, WaitMs: r.Wait.Milliseconds()}))
	if err != nil || resp.Msg.Lease == nil {
		return nil, err
	}
	return new(wire.Lease(resp.Msg.Lease)), nil
}

// Relay records events of runs, in order: they are durable on a majority when it
// returns. Each has its result, in their order.
func (c *Client) Relay(ctx context.Context, worker, incarnation string, events []trial.Event) ([]trial.EventResult, error) {
	resp, err := c.Workers.Relay(ctx, connect.NewRequest(&atelierv1.RelayRequest{Worker: worker, Incarnation: incarnation, Events: wire.ToEvents(events)}))
	if err != nil {
		return nil, err
	}
	if n := len(resp.Msg.Results); n != len(events) {
		return nil, fmt.Errorf("%d answers to %d events", n, len(events))
	}
	out := make([]trial.EventResult, len(events))
	for i, r := range resp.Msg.Results {
		out[i] = wire.EventResult(r)
	}
	return out, nil
}

// IndexedCheckpoints are those of a sweep, or of one of its trials where that is
// not 0, as the leader has them.
func (c *Client) IndexedCheckpoints(ctx context.Context, sweep string, number int64) ([]trial.Checkpoint, error) {
	resp, err := c.Sweeps.ListCheckpoints(ctx, connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: sweep, Trial: number, Source: "state"}))
	if err != nil {
		return nil, err
	}
	return wire.Checkpoints(resp.Msg.Checkpoints), nil
}
