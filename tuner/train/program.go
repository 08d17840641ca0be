package train

import (
	"context"
	"fmt"
	"io"

	"atelier/common/trainerproto"
)

// RunJob starts the trainer with a verb, gives it one job and passes its events
// on; it returns the done event. A failed event comes back as *Failure, the end
// of ctx as ErrInterrupted. log takes the trainer's standard error and may be
// nil; warn is called for its warnings.
func RunJob(ctx context.Context, trainer, verb string, job trainerproto.Job, log io.Writer, warn func(string), on func(trainerproto.Event) error) (trainerproto.Event, error) {
	words := &tail{to: log, warn: warn}
	c, _, err := startTrainer(ctx, trainer, verb, words)
	if err != nil {
		if ctx.Err() != nil {
			err = ErrInterrupted
		}
		return trainerproto.Event{}, err
	}
	last, err := carryOut(ctx, c, job, on)
	switch {
	case err != nil:
		return last, err
	case last.Kind == trainerproto.EventDone:
		return last, nil
	case ctx.Err() != nil:
		return last, ErrInterrupted
	case last.Kind == trainerproto.EventFailed:
		return last, &Failure{Class: last.Class, Message: last.Message}
	case c.Killed():
		return last, &Failure{Class: trainerproto.FailedOutOfMemory, Message: "the trainer was killed, most likely for want of memory: reduce the batch size"}
	}
	return last, fmt.Errorf("the trainer ended (%s) without a word%s", c.State(), words.quote())
}
