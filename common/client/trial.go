package client

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Which trials of a sweep; the zero one means all.
type Which struct {
	After  int64 // only those numbered above
	Limit  int   // at most so many; 0 = all
	Status []trial.Status
}

// trialPage is how many trials one request asks for.
const trialPage = 1000

// Trials goes through trials of a sweep in the order of their numbers, page by
// page. An error is the last thing it yields.
func (c *Client) Trials(ctx context.Context, id string, which Which) iter.Seq2[*trial.Trial, error] {
	return func(yield func(*trial.Trial, error) bool) {
		q := &atelierv1.ListTrialsRequest{SweepId: id, After: which.After, Status: wire.List(which.Status, wire.ToStatus)}
		for left := which.Limit; ; {
			q.Limit = trialPage
			if which.Limit > 0 {
				q.Limit = int32(min(trialPage, left))
			}
			m, err := ask(ctx, c.raw.Trials.ListTrials, q)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, t := range m.GetTrials() {
				if !yield(new(wire.Trial(t)), nil) {
					return
				}
				q.After = t.GetNumber()
			}
			// A page that is not full is the last one.
			if left -= len(m.GetTrials()); len(m.GetTrials()) < int(q.Limit) || which.Limit > 0 && left <= 0 {
				return
			}
		}
	}
}

func trialOf(t *atelierv1.Trial) *trial.Trial {
	if t == nil {
		return nil
	}
	return new(wire.Trial(t))
}

// Trial asks for one trial of a sweep.
func (c *Client) Trial(ctx context.Context, id string, number int64) (*trial.Trial, error) {
	m, err := ask(ctx, c.raw.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: id, Trial: number})
	return trialOf(m.GetTrial()), err
}

// Curve lists the reports of a trial, epoch by epoch.
func (c *Client) Curve(ctx context.Context, id string, number int64) ([]trial.Report, error) {
	m, err := ask(ctx, c.raw.Trials.GetCurve, &atelierv1.GetCurveRequest{SweepId: id, Trial: number})
	return wire.List(m.GetReports(), wire.Report), err
}

// StopTrial ends a trial early; its value counts.
func (c *Client) StopTrial(ctx context.Context, requestID, id string, number int64) (*trial.Trial, error) {
	m, err := ask(ctx, c.raw.Trials.StopTrial, &atelierv1.StopTrialRequest{RequestId: requestID, SweepId: id, Trial: number})
	return trialOf(m.GetTrial()), err
}

// RetryTrial gives a trial that failed one more run.
func (c *Client) RetryTrial(ctx context.Context, requestID, id string, number int64) (*trial.Trial, error) {
	m, err := ask(ctx, c.raw.Trials.RetryTrial, &atelierv1.RetryTrialRequest{RequestId: requestID, SweepId: id, Trial: number})
	return trialOf(m.GetTrial()), err
}

// Ask is a program's wish for a trial of a sweep whose trainer is external.
type Ask struct {
	RequestID string // the same one gets the same trial again
	Sweep     string
	Name      string        // who asks
	Term      time.Duration // of the lease, from now and from each tell; 0 = 10 minutes
	Wait      time.Duration
	// Credential is the SHA-256 of a secret that is to tell of this trial alone; nil = none.
	Credential []byte
}

// Asked is a trial that a program is to train.
type Asked struct {
	Sweep     string            `json:"sweep"`
	Trial     int64             `json:"trial"`
	Run       int32             `json:"run"`
	Token     uint64            `json:"token"`
	Params    json.RawMessage   `json:"params"`
	Training  json.RawMessage   `json:"training"`
	Seed      uint64            `json:"seed"`
	Objective trial.Objective   `json:"objective"`
	TermMS    int64             `json:"term_ms"`
	LastEpoch int32             `json:"last_epoch"` // already told; 0 = none
	Resume    *trial.Checkpoint `json:"resume"`     // to go on from; nil = from scratch
	EndEpoch  int32             `json:"end_epoch"`  // the last one to train and tell; 0 = to the end of the training
	End       trial.Verdict     `json:"end"`        // pause or stop: what to tell then; not said where EndEpoch is 0
}

// AskTrial takes a trial; nil where there was none to give within the wait. The
// status is the sweep's.
func (c *Client) AskTrial(ctx context.Context, a Ask) (*Asked, trial.SweepStatus, error) {
	m, err := ask(ctx, c.raw.Trials.AskTrial, &atelierv1.AskTrialRequest{RequestId: a.RequestID, SweepId: a.Sweep, Name: a.Name, TermMs: a.Term.Milliseconds(), WaitMs: a.Wait.Milliseconds(), CredentialSha256: a.Credential})
	l := m.GetLease()
	if l == nil {
		return nil, wire.SweepStatus(m.GetStatus()), err
	}
	out := &Asked{Sweep: l.GetSweepId(), Trial: l.GetTrial(), Run: l.GetRun(), Token: l.GetToken(), Params: wire.Object(l.GetParamsJson()), Training: wire.Object(l.GetTrainingJson()), Seed: l.GetSeed(),
		Objective: wire.Objective(l.GetObjective()), TermMS: l.GetTtlMs(), LastEpoch: l.GetLastEpoch(), EndEpoch: l.GetEndEpoch()}
	if out.EndEpoch > 0 {
		out.End = wire.Verdict(l.GetEndVerdict())
	}
	if list := l.GetCheckpoints(); len(list) > 0 {
		out.Resume = new(wire.Checkpoint(list[0]))
	}
	return out, wire.SweepStatus(m.GetStatus()), nil
}

// Tell is what a program measured of a trial. With nothing to tell the lease is
// renewed.
type Tell struct {
	Sweep  string
	Trial  int64
	Token  uint64        // 0 = whatever lease the trial has
	Report *trial.Report // nil = none
	// Checkpoint is a file that a worker or the shared folder has; nil = none.
	Checkpoint *trial.Checkpoint
	Exit       trial.Exit // how the run ended; 0 = it goes on
	Message    string     // why, for people
}

// Told is the answer.
type Told struct {
	Verdict trial.Verdict // stop or pause: tell the end soon
	Reason  string
	Outcome trial.Outcome // of the last thing told
	Trial   *trial.Trial
}

// TellTrial tells it.
func (c *Client) TellTrial(ctx context.Context, t Tell) (Told, error) {
	q := &atelierv1.TellTrialRequest{SweepId: t.Sweep, Trial: t.Trial, Token: t.Token}
	if t.Report != nil {
		q.Report = wire.ToReport(*t.Report)
	}
	if t.Checkpoint != nil {
		q.Checkpoint = wire.ToCheckpoint(*t.Checkpoint)
	}
	if t.Exit != 0 {
		q.Ended = &atelierv1.RunEnded{Exit: wire.ToExit(t.Exit), Message: t.Message}
	}
	m, err := ask(ctx, c.raw.Trials.TellTrial, q)
	return Told{wire.Verdict(m.GetVerdict()), m.GetReason(), wire.Outcome(m.GetOutcome()), trialOf(m.GetTrial())}, err
}
