//go:build libtorch

package train

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/optim/schedule"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// Sender takes events; it is safe for concurrent use.
type Sender interface {
	Send(event any) error
}

// run is a job being carried out.
type run struct {
	job       trainerproto.Job
	settings  settings.Settings
	metric    string // objective
	data      *data
	model     *model.Model
	criterion criterion
	schedule  schedule.Schedule
	opt       *optim.Optimizer
	average   *optim.Average // nil without ema_decay
	scaler    *optim.Scaler  // nil unless losses need one
	shards    *shards        // nil with one shard
	group     *group.Group   // nil unless several members carry the run out
	links     *Links         // to them; nil: none were handed over
	silence   func()         // ends the signs of life; nothing may follow the last event
	over      bool           // that was sent
	precision torchx.Precision
	device    torchx.Device
	events    Sender
	asked     func() trainerproto.Control
	log       *slog.Logger

	at       position
	work     *epoch // the epoch under way, as this process trains it
	pass     nn.Pass
	writer   *checkpointWriter
	out      reporting
	lastTold time.Time
}

// position is how far a run has come, ended how it ends.
type (
	position = handover.Position
	ended    = handover.Ended
)

// Run carries a job out on the calling goroutine, which must be locked to its
// thread. asked gives what control lines have said so far; its verdict is looked
// at before each batch. links are for a member of a group; nil else. The last
// event, done, is sent; a failure is returned (see Classify) and left to the
// caller to send. ctx ends the run at the next batch with ctx's error.
func Run(ctx context.Context, job trainerproto.Job, events Sender, asked func() trainerproto.Control, links *Links, log *slog.Logger) error {
	r := &run{job: job, events: events, asked: asked, links: links, log: log, out: reporting{sends: job.Group == nil}}
	r.silence = r.alive()
	defer r.silence()
	err := torchx.Catch(func() error { return r.carryOut(ctx) })
	// However it ended: a checkpoint on its way to the disk is waited for and told of.
	r.out.sends = false
	if late := r.kept(true); err == nil {
		err = late
	}
	r.close()
	return Classify(err)
}

// carryOut is the whole training: prepare, then epoch by epoch train, validate, judge, report, keep, obey.
func (r *run) carryOut(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for {
		if r.at.Ended == nil {
			r.at.Ended = r.end()
		}
		if r.at.Ended != nil {
			return r.done(ctx, r.at.Ended)
		}
		if r.work == nil {
			if err := r.begin(); err != nil {
				return err
			}
		}
		var err error
		switch {
		case !r.trained():
			err = r.step(ctx)
		case !r.validated():
			err = r.measureSome(ctx)
		default:
			err = r.endEpoch()
		}
		var end *ended
		switch {
		case errors.As(err, &end):
			r.at.Ended = end
		case errors.Is(err, errLeft):
			return r.left()
		case err != nil && !errors.Is(err, errRedo):
			return err
		}
	}
}

// end is the end of the run once it has nothing left to train.
func (r *run) end() *ended {
	last, s := r.at.Last, r.settings
	if r.at.Update > 0 { // in mid-epoch
		return nil
	}
	until := s.Epochs
	if r.job.EndEpoch > 0 {
		until = min(until, r.job.EndEpoch)
	}
	impatient := s.Patience > 0 && last.Epoch > 0 && last.Epoch-last.BestEpoch >= s.Patience
	why := fmt.Sprintf("%d epochs", last.Epoch)
	switch {
	case last.Epoch < until && !impatient:
		return nil
	case last.Epoch < s.Epochs && !impatient:
		return &ended{Reason: trainerproto.DonePaused, Message: fmt.Sprintf("up to epoch %d, where this run ends", last.Epoch)}
	case last.Epoch < s.Epochs:
		why = fmt.Sprintf("no better %s in %d epochs", r.metric, s.Patience)
	}
	return &ended{Reason: trainerproto.DoneFinished, Message: fmt.Sprintf("%s; best %s %.6g in epoch %d", why, r.metric, last.Best, last.BestEpoch)}
}

// done tells the end of a run that went well, its last checkpoint before.
func (r *run) done(ctx context.Context, e *ended) error {
	if r.group != nil {
		switch err := r.part(ctx); {
		case errors.Is(err, errLeft):
			return r.left()
		case err != nil:
			return err
		}
	}
	if err := r.kept(true); err != nil {
		return err
	}
	r.silence()
	r.over = true
	err := r.events.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: e.Reason, Message: e.Message})
	if r.group != nil && err == nil {
		r.dismiss()
	}
	return err
}

// left tells the end of a member's part in a run that the others continue, or
// whose end another tells.
func (r *run) left() error {
	r.out.sends = false // what is not safe is the others' now
	if err := r.kept(true); err != nil {
		return err
	}
	r.silence()
	return r.events.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: trainerproto.DoneLeft, Message: fmt.Sprintf("left in epoch %d, after %d updates of it", r.at.Epoch, r.at.Update)})
}

// diverged is an end that no repetition would change.
func diverged(epoch int, format string, args ...any) error {
	return &Failure{trainerproto.FailedDiverged, fmt.Errorf("epoch %d: %s: the run diverged; a lower lr may help", epoch, fmt.Sprintf(format, args...))}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }
