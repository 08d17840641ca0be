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

// Heartbeat renews a worker's leases.
func (c *Client) Heartbeat(ctx context.Context, h trial.Heartbeat) (trial.HeartbeatAnswer, error) {
	resp, err := c.raw.Workers.Heartbeat(ctx, connect.NewRequest(wire.ToHeartbeat(h)))
	if err != nil {
		return trial.HeartbeatAnswer{}, err
	}
	return wire.HeartbeatAnswer(resp.Msg), nil
}

// AcquireRequest asks for one lease.
type AcquireRequest struct {
	RequestID   string // the same one gets the same lease again
	Worker      string
	Incarnation string
	Slot        string   // that the lease is for
	Trainers    []string // that this worker offers
	Labels      map[string]string

	GroupTrainers []string // those of Trainers that can carry out a run with others

	Folder string        // as in trial.Heartbeat
	Wait   time.Duration // for a lease, where there is none at once
}

// Acquire returns a lease; nil where there was none to give.
func (c *Client) Acquire(ctx context.Context, r AcquireRequest) (*trial.Lease, error) {
	resp, err := c.raw.Workers.Acquire(ctx, connect.NewRequest(&atelierv1.AcquireRequest{RequestId: r.RequestID, Worker: r.Worker, Incarnation: r.Incarnation, Slot: r.Slot,
		Trainers: r.Trainers, GroupTrainers: r.GroupTrainers, Labels: r.Labels, Folder: r.Folder, WaitMs: r.Wait.Milliseconds()}))
	if err != nil || resp.Msg.Lease == nil {
		return nil, err
	}
	return new(wire.Lease(resp.Msg.Lease)), nil
}

// Relay records events of runs, in order: they are durable on a majority when it
// returns. Each has its result, in their order.
func (c *Client) Relay(ctx context.Context, worker, incarnation string, events []trial.Event) ([]trial.EventResult, error) {
	resp, err := c.raw.Workers.Relay(ctx, connect.NewRequest(&atelierv1.RelayRequest{Worker: worker, Incarnation: incarnation, Events: wire.ToEvents(events)}))
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
	list, _, err := c.Checkpoints(ctx, sweep, number, From{Source: "state"})
	return list, err
}
