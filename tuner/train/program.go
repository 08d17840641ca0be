package train

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"atelier/common/child"
	"atelier/common/trainerproto"
	"atelier/tuner/session"
)

// Call is a job for a trainer on this machine.
type Call struct {
	Trainer string // program; see FindTrainer
	Verb    string // of the program
	Job     trainerproto.Job
	Log     io.Writer    // takes the trainer's standard error; may be nil
	Warn    func(string) // for its warnings
	Skipped func(string) // for those of an image that is left out; nil = Warn
	// Hello is told what the trainer says of itself; may be nil. What it returns is
	// called at the end.
	Hello func(said string) (end func())
	On    func(trainerproto.Event) error // for its events, in order, but for the last

	Silence time.Duration // 0: trainerproto.AloneWithin. A training from which nothing comes for so long is ended
}

// Run starts the trainer, gives it the job and passes its events on; it returns
// the done event. A trainer that ends otherwise is a *session.Failure, the end of
// ctx session.ErrInterrupted.
func (c Call) Run(ctx context.Context) (trainerproto.Event, error) {
	words := &tail{to: c.Log, warn: c.Warn, skipped: c.Skipped}
	t, said, err := startTrainer(ctx, c.Trainer, c.Verb, words)
	if err != nil {
		if ctx.Err() != nil {
			err = session.ErrInterrupted
		}
		return trainerproto.Event{}, err
	}
	if c.Hello != nil {
		defer c.Hello(said.Message)()
	}
	last, err := carryOut(ctx, t, c.Job, cmp.Or(c.Silence, trainerproto.AloneWithin), c.On)
	if err != nil {
		return last, err
	}
	return last, outcome(ctx, last, t, words)
}

// outcome judges how a training ended by the last event of a trainer, if it wrote
// one, and its exit. nil is of one that finished.
func outcome(ctx context.Context, last trainerproto.Event, t *child.Trainer, words *tail) error {
	switch {
	case last.Kind == trainerproto.EventDone && last.Reason == trainerproto.DoneFinished:
		return nil
	case ctx.Err() != nil:
		return session.ErrInterrupted
	case last.Kind == trainerproto.EventDone:
		return fmt.Errorf("the trainer ended as %s, unexpectedly", last.Reason)
	case last.Kind == trainerproto.EventFailed:
		return &session.Failure{Class: last.Class, Message: last.Message}
	case t.Killed():
		return &session.Failure{Class: trainerproto.FailedOutOfMemory, Killed: true, Message: "the trainer was killed from outside (SIGKILL), perhaps for want of memory (dmesg | tail shows that)"}
	}
	return &session.Failure{Class: trainerproto.FailedCrashed, Message: "the trainer ended (" + t.State().String() + ") without an error message" + words.quote()}
}
