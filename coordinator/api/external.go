package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/state"
)

// External is the trainer of sweeps whose trials are trained elsewhere: no worker
// gets them, a program asks for them and tells what it measured.
const External = assign.External

const (
	// A program that asks by hand may train for days between two words: the term is its own to
	// choose. It is the time after which the trial is given to somebody else.
	defaultTerm = 10 * time.Minute
	minTerm     = time.Second
	maxTerm     = 30 * 24 * time.Hour
)

// AskTrial hands out one trial under a lease whose term the asker chooses. It waits for one up to wait_ms, or
// until the sweep ends; an answer without a lease says by its status which. A repeat under the same request id
// gets the same lease, so that an answer which was lost costs no trial.
func (s trials) AskTrial(ctx context.Context, req *connect.Request[atelierv1.AskTrialRequest]) (*connect.Response[atelierv1.AskTrialResponse], error) {
	m := req.Msg
	_, sw, err := s.sweep(ctx, m.SweepId)
	if err != nil {
		return nil, err
	}
	term := time.Duration(m.TermMs) * time.Millisecond
	switch {
	case m.RequestId == "":
		return nil, invalid("ask of sweep %s: a request id is missing", sw.ID)
	case term == 0:
		term = defaultTerm
	case term < minTerm || term > maxTerm:
		return nil, invalid("ask of sweep %s: a term of %v; from %v to %v", sw.ID, term, minTerm, maxTerm)
	case len(m.CredentialSha256) != 0 && len(m.CredentialSha256) != sha256.Size:
		return nil, invalid("ask of sweep %s: credential_sha256 has %d bytes, and a SHA-256 has %d", sw.ID, len(m.CredentialSha256), sha256.Size)
	}
	if sw.Trainer != External {
		return nil, failure(fmt.Errorf("%w: ask of sweep %s: its trainer is %s, so its trials are for workers; only those of `trainer: %s` are asked for", state.ErrConflict, sw.ID, sw.Trainer, External))
	}
	if !sw.Ended() {
		lease, err := s.cfg.Assign.Ask(ctx, assigner.Asking{Sweep: sw.ID, Name: m.Name, Request: m.RequestId, Term: term, Wait: time.Duration(m.WaitMs) * time.Millisecond,
			Over: s.over(sw.ID), Credential: m.CredentialSha256})
		if err != nil {
			return nil, failure(err)
		}
		if lease != nil {
			return connect.NewResponse(&atelierv1.AskTrialResponse{Lease: wire.ToLease(lease), Status: wire.ToSweepStatus(sw.Status)}), nil
		}
		if _, sw, err = s.sweep(ctx, m.SweepId); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&atelierv1.AskTrialResponse{Status: wire.ToSweepStatus(sw.Status)}), nil
}

// over reports whether a sweep has ended, and what is closed when that may have
// changed.
func (s *Server) over(id string) func() (bool, <-chan struct{}, func()) {
	return func() (bool, <-chan struct{}, func()) {
		changed, leave := s.hub.watch(id)
		sw, ok := s.cfg.View().Sweep(id)
		return !ok || sw.Ended(), changed, leave
	}
}

// TellTrial records what a program measured: a report, a checkpoint, the end, in
// this order, each known by its epoch and token when it comes twice. It also renews the lease, so that a program
// which reports needs no heartbeat. Without a token it speaks for whoever holds the lease, for people at a
// keyboard; a program should give its own, and is then told when the lease went to somebody else.
func (s trials) TellTrial(ctx context.Context, req *connect.Request[atelierv1.TellTrialRequest]) (*connect.Response[atelierv1.TellTrialResponse], error) {
	m := req.Msg
	_, sw, err := s.sweep(ctx, m.SweepId)
	if err != nil {
		return nil, err
	}
	t, err := findTrial(sw, m.Trial)
	if err != nil {
		return nil, err
	}
	token := m.Token
	if c := callerOf(ctx); c.Role == access.Trial { // it speaks for one run, never for a later one
		if token != 0 && token != c.Run {
			return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("report on trial %d of sweep %s: the credential is for the run of lease %d, not of %d", t.Number, sw.ID, c.Run, token))
		}
		token = c.Run
	}
	if token == 0 && t.Lease != nil {
		token = t.Lease.Token
	}
	switch {
	case sw.Trainer != External:
		return nil, failure(fmt.Errorf("%w: report on trial %d of sweep %s: its trainer is %s, so its workers report; only trials of `trainer: %s` are reported this way", state.ErrConflict, t.Number, sw.ID, sw.Trainer, External))
	case token == 0:
		return nil, failure(fmt.Errorf("%w: report on trial %d of sweep %s: it is %s and not leased; ask for a trial first", state.ErrConflict, t.Number, sw.ID, t.Status))
	}
	resp := &atelierv1.TellTrialResponse{Verdict: wire.ToVerdict(max(t.Verdict, trial.VerdictContinue)), Reason: t.StopReason}
	events := told(m, token)
	if len(events) > 0 {
		// As a worker's events, so that the answer carries the stopping rule's verdict.
		res, err := workers(s).record(ctx, &atelierv1.RelayRequest{Worker: External, Events: events})
		if err != nil {
			return nil, err
		}
		for i, r := range res.Results {
			resp.Outcome, resp.Verdict, resp.Reason = r.Outcome, r.Verdict, r.Message
			switch wire.Outcome(r.Outcome) {
			case trial.OutcomeRefused:
				if wire.Verdict(r.Verdict) <= trial.VerdictContinue { // else it comes too late: the run is to end
					return nil, invalid("report on trial %d of sweep %s: part %d: %s", t.Number, sw.ID, i+1, r.Message)
				}
			case trial.OutcomeFenced:
				return nil, failure(fmt.Errorf("%w: report on trial %d of sweep %s: the lease is over: it ran out, or the trial ended or was given to another program", state.ErrConflict, t.Number, sw.ID))
			}
		}
	}
	// Last, so that the term begins when the answer leaves. Of a trial that has just ended there is no lease.
	if err := s.cfg.Assign.Renew(sw.ID, t.Number, token); err != nil && m.Ended == nil {
		return nil, failure(err)
	}
	now, err := find(s.cfg.View(), sw.ID)
	if err != nil {
		return nil, err
	}
	resp.Trial = now.Trial(t.Number).Proto(now)
	return connect.NewResponse(resp), nil
}

// told makes the events that a worker's agent would send.
func told(m *atelierv1.TellTrialRequest, token uint64) (events []*atelierv1.RunEvent) {
	add := func(e *atelierv1.RunEvent) {
		e.SweepId, e.Trial, e.Token = m.SweepId, m.Trial, token
		events = append(events, e)
	}
	if m.Report != nil {
		add(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Report{Report: m.Report}})
	}
	if m.Checkpoint != nil {
		add(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: m.Checkpoint}})
	}
	if m.Ended != nil {
		add(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Ended{Ended: m.Ended}})
	}
	return events
}
