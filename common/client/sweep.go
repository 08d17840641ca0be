package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
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
	RequestID string              // "" = a new one
	Spec      string              // YAML
	Name      string              // of the spec, for messages
	BaseDir   string              // absolute folder that relative data paths are read from
	Notify    *trial.Notification // where its end is posted, and which; nil = nowhere
}

// Submit makes a sweep, once, and returns it with what there is to warn of.
func (c *Client) Submit(ctx context.Context, s Submission) (*trial.Sweep, []string, error) {
	if s.RequestID == "" {
		s.RequestID = NewRequestID()
	}
	m, err := ask(ctx, c.raw.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{RequestId: s.RequestID, SpecYaml: s.Spec, SpecName: s.Name, BaseDir: s.BaseDir, Notify: wire.ToNotification(s.Notify)})
	return sweepOf(m.GetSweep()), m.GetWarnings(), err
}

// ask makes one call; its answer is nil after an error, and a nil message has
// empty fields.
func ask[Q, A any](ctx context.Context, call func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q) (*A, error) {
	r, err := call(ctx, connect.NewRequest(q))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func sweepOf(s *atelierv1.Sweep) *trial.Sweep {
	if s == nil {
		return nil
	}
	return new(wire.Sweep(s))
}

// Sweep asks for a sweep as it is now.
func (c *Client) Sweep(ctx context.Context, id string) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.GetSweep, &atelierv1.GetSweepRequest{Id: id})
	return sweepOf(m.GetSweep()), err
}

// Sweeps lists the newest sweeps, newest first, without archived and deleted ones; limit 0 = all.
func (c *Client) Sweeps(ctx context.Context, limit int) ([]trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.ListSweeps, &atelierv1.ListSweepsRequest{Limit: int32(limit)})
	return wire.List(m.GetSweeps(), wire.Sweep), err
}

// Listing is which sweeps are listed.
type Listing struct {
	Limit             int  // the newest so many; 0 = all
	Archived, Deleted bool // these, too
}

// ListSweeps lists sweeps, newest first.
func (c *Client) ListSweeps(ctx context.Context, l Listing) ([]trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.ListSweeps, &atelierv1.ListSweepsRequest{Limit: int32(l.Limit), Archived: l.Archived, Deleted: l.Deleted})
	return wire.List(m.GetSweeps(), wire.Sweep), err
}

// Labels are what changes of a sweep's name, tags and note; nil leaves as it is.
type Labels struct {
	Name, Note  *string // "" = the spec's own name again; no note
	Add, Remove []string
}

// Label changes what people call a sweep and write beside it.
func (c *Client) Label(ctx context.Context, requestID, id string, l Labels) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.LabelSweep, &atelierv1.LabelSweepRequest{RequestId: requestID, Id: id, Name: l.Name, Note: l.Note, AddTags: l.Add, RemoveTags: l.Remove})
	return sweepOf(m.GetSweep()), err
}

// Notify says where a sweep's end is posted, and which ends are, all where none is named; "" =
// nowhere.
func (c *Client) Notify(ctx context.Context, requestID, id, url string, on []trial.SweepStatus) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.SetNotification, &atelierv1.SetNotificationRequest{RequestId: requestID, Id: id, Url: url, On: wire.List(on, wire.ToSweepStatus)})
	return sweepOf(m.GetSweep()), err
}

// Purge takes a deleted sweep out of the cluster for good, at once.
func (c *Client) Purge(ctx context.Context, id string) error {
	_, err := ask(ctx, c.raw.Sweeps.PurgeSweep, &atelierv1.PurgeSweepRequest{Id: id})
	return err
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
func (c *Client) Follow(ctx context.Context, id string, on func(*trial.Sweep) error) (*trial.Sweep, error) {
	for after := uint64(0); ; {
		m, err := ask(ctx, c.raw.Sweeps.WaitSweep, &atelierv1.WaitSweepRequest{Id: id, AfterIndex: after, RestMs: followRestMs, WaitMs: followWaitMs})
		if err != nil {
			return nil, err
		}
		s := new(wire.Sweep(m.GetSweep()))
		if err := on(s); err != nil || s.Status.Over() {
			return s, err
		}
		after = m.GetIndex()
	}
}

// Control pauses, resumes, stops or cancels a sweep, archives or deletes it. A request id names the wish,
// here and below: see NewRequestID.
func (c *Client) Control(ctx context.Context, requestID, id string, a trial.Action) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.ControlSweep, &atelierv1.ControlSweepRequest{RequestId: requestID, Id: id, Action: wire.ToAction(a)})
	return sweepOf(m.GetSweep()), err
}

// Delete deletes a sweep that has ended; force = also where an alias names a checkpoint of it.
func (c *Client) Delete(ctx context.Context, requestID, id string, force bool) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.ControlSweep, &atelierv1.ControlSweepRequest{RequestId: requestID, Id: id, Action: wire.ToAction(trial.ActionDelete), Force: force})
	return sweepOf(m.GetSweep()), err
}

// Budget is what a sweep may use further; 0 = no more of it than before.
type Budget struct {
	Trials, Epochs int64
	Time           time.Duration
}

// Extend adds to a sweep's budget. One that has finished goes on.
func (c *Client) Extend(ctx context.Context, requestID, id string, more Budget) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.ExtendSweep, &atelierv1.ExtendSweepRequest{RequestId: requestID, Id: id, AddTrials: more.Trials, AddEpochs: more.Epochs, AddMs: more.Time.Milliseconds()})
	return sweepOf(m.GetSweep()), err
}

// Enqueue gives points, each a JSON object, to be tried before any that search
// proposes.
func (c *Client) Enqueue(ctx context.Context, requestID, id string, points []string) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.EnqueueTrials, &atelierv1.EnqueueTrialsRequest{RequestId: requestID, Id: id, ParamsJson: points})
	return sweepOf(m.GetSweep()), err
}

// Prioritize says which sweep gets free slots first: the one of the highest number.
func (c *Client) Prioritize(ctx context.Context, requestID, id string, priority int32) (*trial.Sweep, error) {
	m, err := ask(ctx, c.raw.Sweeps.PrioritizeSweep, &atelierv1.PrioritizeSweepRequest{RequestId: requestID, Id: id, Priority: priority})
	return sweepOf(m.GetSweep()), err
}
