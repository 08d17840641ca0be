package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// NewRequestID names one wish of a person, however often it has to be sent. Who
// may be started anew before it is answered keeps it.
func NewRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Submission is a sweep to be made.
type Submission struct {
	RequestID string // "" = a new one
	Spec      string // YAML
	Name      string // of the spec, for messages
	BaseDir   string // absolute folder that relative data paths are read from
}

// Submit makes a sweep, once, and returns it with what there is to warn of.
func (c *Client) Submit(ctx context.Context, s Submission) (*atelierv1.Sweep, []string, error) {
	if s.RequestID == "" {
		s.RequestID = NewRequestID()
	}
	r, err := c.Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: s.RequestID, SpecYaml: s.Spec, SpecName: s.Name, BaseDir: s.BaseDir}))
	if err != nil {
		return nil, nil, err
	}
	return r.Msg.GetSweep(), r.Msg.GetWarnings(), nil
}

// Sweep asks for a sweep as it is now.
func (c *Client) Sweep(ctx context.Context, id string) (*atelierv1.Sweep, error) {
	r, err := c.Sweeps.GetSweep(ctx, connect.NewRequest(&atelierv1.GetSweepRequest{Id: id}))
	if err != nil {
		return nil, err
	}
	return r.Msg.GetSweep(), nil
}

// How often Follow looks: a busy sweep changes hundreds of times a second, an
// idle one may have nothing to tell.
const (
	followRestMs = 200
	followWaitMs = 2000
)

// Follow calls on with a sweep as it is now, and again when it changed, five
// times a second at most and every two seconds at least. It returns the sweep
// once it is over, of which on is told as well, at once. An error of on ends it,
// too.
func (c *Client) Follow(ctx context.Context, id string, on func(*atelierv1.Sweep) error) (*atelierv1.Sweep, error) {
	for after := uint64(0); ; {
		r, err := c.Sweeps.WaitSweep(ctx, connect.NewRequest(&atelierv1.WaitSweepRequest{Id: id, AfterIndex: after, RestMs: followRestMs, WaitMs: followWaitMs}))
		if err != nil {
			return nil, err
		}
		s := r.Msg.GetSweep()
		if err := on(s); err != nil {
			return s, err
		}
		if wire.SweepStatus(s.GetStatus()).Over() {
			return s, nil
		}
		after = r.Msg.GetIndex()
	}
}

// EachTrial goes through a sweep's trials in the order of their numbers.
func (c *Client) EachTrial(ctx context.Context, id string, on func(*atelierv1.Trial) error) error {
	const page = 500
	for after := int64(0); ; {
		r, err := c.Trials.ListTrials(ctx, connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: id, After: after, Limit: page}))
		if err != nil {
			return err
		}
		for _, t := range r.Msg.GetTrials() {
			if err := on(t); err != nil {
				return err
			}
			after = t.GetNumber()
		}
		if len(r.Msg.GetTrials()) < page {
			return nil
		}
	}
}
