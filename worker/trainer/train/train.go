//go:build libtorch

// Package train carries out one run: a job in, events out.
//
// Run reads once from top to bottom: prepare (settings, data, model,
// optimiser, perhaps weights or a checkpoint to go on from), then epochs of
// batches and updates, each followed by validation, a report and a checkpoint.
// A run killed at any moment and resumed from its last checkpoint ends with
// the same weights, bit for bit, as one that was left alone, on the same
// machine with the same threads.
//
// The package refuses to know who listens: events go to a Sender, verdicts
// come from a function.
package train

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/optim/schedule"
	"atelier/worker/trainer/torchx"
)

// Sender takes events.
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
	precision torchx.Precision
	device    torchx.Device
	writer    *checkpointWriter
	events    Sender
	verdict   func() string
	log       *slog.Logger

	pass         nn.Pass
	steps        int // batches done since the run's first epoch
	lastProgress time.Time
}

// Run carries a job out on the calling goroutine, which must be locked to its
// thread. verdict says "", "stop" or "pause" and is asked before each batch.
// The last event, done, is sent; a failure is returned (see Classify) and left
// to the caller to send. ctx ends the run at the next batch with ctx's error.
func Run(ctx context.Context, job trainerproto.Job, events Sender, verdict func() string, log *slog.Logger) error {
	r := &run{job: job, events: events, verdict: verdict, log: log}
	err := torchx.Catch(func() error { return r.carryOut(ctx) })
	// However it ended: a checkpoint on its way to the disk is waited for and told of.
	if late := r.kept(true); err == nil {
		err = late
	}
	r.close()
	return Classify(err)
}

// carryOut is the whole training: prepare, then epoch by epoch train, validate, judge, report, keep, obey.
func (r *run) carryOut(ctx context.Context) error {
	var last progress
	if err := r.prepare(ctx, &last); err != nil {
		return err
	}
	s := r.settings
	end := s.Epochs
	if r.job.EndEpoch > 0 {
		end = min(end, r.job.EndEpoch)
	}
	digest := r.data.digest // goes with the first report
	for epoch := last.Epoch + 1; epoch <= end && !r.patienceOver(last); epoch++ {
		started := time.Now()

		trained, err := r.epoch(ctx, epoch, last)
		if err != nil {
			return err
		}
		if trained.ended != "" {
			return r.done(trained.ended, trained.message)
		}
		val, err := r.validate(ctx)
		if err != nil {
			return err
		}
		if !finite(trained.loss) || !finite(val.loss) {
			return diverged(epoch, "train_loss %g, val_loss %g", trained.loss, val.loss)
		}
		if err := r.kept(true); err != nil { // only where writing takes as long as an epoch
			return err
		}

		// Judge, report, keep.
		metrics := trainerproto.Metrics{{Name: "train_loss", Value: trained.loss}, {Name: "train_acc", Value: trained.accuracy},
			{Name: "val_loss", Value: val.loss}, {Name: "val_acc", Value: val.accuracy}, {Name: "lr", Value: trained.lr}, {Name: "images_per_s", Value: trained.rate}}
		value, _ := metrics.Get(r.metric)
		last.Epoch = epoch
		if last.better(value, r.job.Maximize) {
			last.Best, last.BestEpoch = value, epoch
		}
		last.BestLoss = min(last.BestLoss, val.loss)
		last.Plateau = r.schedule.Observe(last.Plateau, epoch, value, r.job.Maximize)
		root, err := r.writer.collect(r, last)
		if err != nil {
			return err
		}
		if err := r.events.Send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: epoch, Metrics: metrics, Seconds: time.Since(started).Seconds(), Data: digest}); err != nil {
			return fmt.Errorf("report epoch %d: %w", epoch, err)
		}
		digest = ""
		r.writer.begin(root, last, metrics)
		r.log.Info("epoch", "epoch", epoch, "train_loss", round(trained.loss), "train_acc", round(trained.accuracy), "val_loss", round(val.loss), "val_acc", round(val.accuracy), "lr", trained.lr, "images_per_s", math.Round(trained.rate))
	}
	if last.Epoch < s.Epochs && !r.patienceOver(last) {
		return r.done(trainerproto.DonePaused, fmt.Sprintf("up to epoch %d, where this run ends", last.Epoch))
	}
	why := fmt.Sprintf("%d epochs", last.Epoch)
	if last.Epoch < s.Epochs {
		why = fmt.Sprintf("no better %s in %d epochs", r.metric, s.Patience)
	}
	return r.done(trainerproto.DoneFinished, fmt.Sprintf("%s; best %s %.6g in epoch %d", why, r.metric, last.Best, last.BestEpoch))
}

// trained is an epoch of training.
type trained struct {
	score
	lr      float64 // of the last update
	rate    float64 // images a second
	ended   string  // a verdict's reason, if one ended the epoch early
	message string
}

// epoch trains on every image once, in the epoch's order.
func (r *run) epoch(ctx context.Context, epoch int, last progress) (result trained, err error) {
	started := time.Now()
	tally, err := r.newTally()
	if err != nil {
		return result, err
	}
	defer tally.free()
	batches := r.data.epoch(epoch, r.settings.BatchSize)
	defer batches.close()
	n := batches.len()
	groups := newGroups(batches, r.settings.Accumulate, r.criterion)
	r.steps = (epoch - 1) * n

	for i := range n {
		if result.ended = r.asked(); result.ended != "" {
			result.message = fmt.Sprintf("asked to %s in epoch %d, after %d of %d batches", r.verdict(), epoch, i, n)
			return result, nil
		}
		if err := ctx.Err(); err != nil {
			return result, err
		}
		if err := r.kept(false); err != nil {
			return result, err
		}
		batch, err := batches.next()
		if err != nil {
			return result, err
		}
		if err := r.learn(batch, groups.share(i), tally, epoch, i); err != nil {
			return result, err
		}
		if groups.ends(i) {
			result.lr = r.schedule.At(schedule.Position{Epoch: epoch - 1, Update: groups.of(i), Updates: groups.len(), Drops: last.Plateau.Drops})
			if err := r.update(result.lr, epoch); err != nil {
				return result, err
			}
		}
		r.steps++
		if err := r.tellBatch(epoch, n, tally, float64(batches.ends[i])/time.Since(started).Seconds()); err != nil {
			return result, err
		}
	}
	result.score, err = tally.read()
	result.rate = float64(batches.images()) / time.Since(started).Seconds()
	return result, err
}

// learn is one batch: forward, loss, backward. share is its part of the
// update's gradient. It frees the batch.
func (r *run) learn(b batch, share float64, t *tally, epoch, i int) error {
	defer b.free()
	r.pass.Training = true
	defer r.pass.Close()
	loss, err := r.forward(&b, t)
	if err != nil {
		return err
	}
	if !r.device.CUDA() { // there, reading the loss would wait for the GPU; the epoch's mean tells as well
		v, err := torchx.Item(loss)
		if err != nil {
			return err
		}
		if !finite(v) {
			return diverged(epoch, "loss %g in batch %d", v, i+1)
		}
	}
	if r.scaler != nil {
		share *= r.scaler.Scale
	}
	return torchx.BackwardScaled(loss, share)
}

// update moves the weights by the gradients gathered so far.
func (r *run) update(lr float64, epoch int) error {
	if r.scaler != nil {
		step, err := r.scaler.Unscale(r.opt)
		if err != nil {
			return err
		}
		if r.scaler.Lost() {
			return diverged(epoch, "gradients are not finite at any loss scale")
		}
		if !step {
			return nil
		}
	}
	if r.settings.ClipNorm > 0 {
		if err := r.opt.Clip(r.settings.ClipNorm); err != nil {
			return err
		}
	}
	if err := r.opt.Step(lr); err != nil {
		return err
	}
	if r.average != nil {
		return r.average.Update()
	}
	return nil
}

// forward computes the loss of a batch and counts it.
func (r *run) forward(b *batch, t *tally) (loss torchx.Tensor, err error) {
	err = torchx.Autocast(r.device, r.precision, func() error {
		logits := r.model.Forward(&r.pass, b.x)
		loss = r.criterion.loss(&r.pass, logits, b)
		return torchx.Tally(t.counts, logits, b.answers(), loss)
	})
	return loss, err
}

// validate measures the validation set, with the averaged weights if there
// are any.
func (r *run) validate(ctx context.Context) (result score, err error) {
	t, err := r.newTally()
	if err != nil {
		return result, err
	}
	defer t.free()
	batches := r.data.whole(r.data.validation, r.settings.BatchSize)
	defer batches.close()
	r.pass.Training = false
	err = r.averaged(func() error {
		return torchx.NoGrad(func() error {
			for range batches.len() {
				if err := ctx.Err(); err != nil {
					return err
				}
				b, err := batches.next()
				if err != nil {
					return err
				}
				_, err = r.forward(&b, t)
				r.pass.Close()
				b.free()
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return result, err
	}
	return t.read()
}

// averaged runs f while the model holds the averaged weights, or its own where
// no average is kept.
func (r *run) averaged(f func() error) error {
	if r.average == nil {
		return f()
	}
	return r.average.Show(f)
}

// patienceOver reports whether the run should end by itself.
func (r *run) patienceOver(p progress) bool {
	return r.settings.Patience > 0 && p.Epoch > 0 && p.Epoch-p.BestEpoch >= r.settings.Patience
}

// asked translates a verdict into the reason of a done event.
func (r *run) asked() string {
	switch r.verdict() {
	case "stop":
		return trainerproto.DoneStopped
	case "pause":
		return trainerproto.DonePaused
	}
	return ""
}

// done tells the end of a run that went well, its last checkpoint before.
func (r *run) done(reason, message string) error {
	if err := r.kept(true); err != nil {
		return err
	}
	return r.events.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: reason, Message: message})
}

// tellBatch tells how an epoch of n batches goes, if it is time: reading the
// tally waits for a GPU.
func (r *run) tellBatch(epoch, n int, t *tally, rate float64) error {
	if !r.progressDue() {
		return nil
	}
	so, err := t.peek()
	if err != nil {
		return err
	}
	return r.tellProgress(trainerproto.Event{Epoch: epoch, Step: int64(r.steps), Steps: int64(r.settings.Epochs * n),
		Metrics: trainerproto.Metrics{{Name: "train_loss", Value: so.loss}, {Name: "train_acc", Value: so.accuracy}, {Name: "images_per_s", Value: rate}}})
}

// progressDue reports whether a second has passed since the last event of progress.
func (r *run) progressDue() bool { return time.Since(r.lastProgress) >= time.Second }

// tellProgress sends an event that is due. An error means that nobody listens
// any more: the run is an orphan.
func (r *run) tellProgress(e trainerproto.Event) error {
	if !r.progressDue() {
		return nil
	}
	r.lastProgress = time.Now()
	e.Kind = trainerproto.EventProgress
	if err := r.events.Send(e); err != nil {
		return fmt.Errorf("report progress: %w", err)
	}
	return nil
}

// diverged is an end that no repetition would change.
func diverged(epoch int, format string, args ...any) error {
	return &Failure{trainerproto.FailedDiverged, fmt.Errorf("epoch %d: %s: the run diverged; a lower lr may help", epoch, fmt.Sprintf(format, args...))}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }
