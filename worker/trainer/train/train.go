//go:build libtorch

// Package train carries out one run: a job in, events out.
//
// Run reads once from top to bottom: settings, data, model, optimiser,
// perhaps a checkpoint to go on from, then epochs of steps, each followed by
// validation, a report and a checkpoint. A run killed at any moment and
// resumed from its last checkpoint ends with the same weights, bit for bit, as
// one that was left alone, on the same machine with the same threads.
//
// The package refuses to know who listens: events go to a Sender, verdicts
// come from a function.
package train

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"atelier/common/trainerproto"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/settings"
	"atelier/worker/trainer/torchx"
)

// Metrics reported each epoch, in order. Accuracies are fractions.
var Metrics = []string{"train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_s"}

// Sender takes events.
type Sender interface {
	Send(event any) error
}

// run is a job being carried out.
type run struct {
	job      trainerproto.Job
	settings settings.Settings
	metric   string // objective
	data     *data
	model    *model.Model
	opt      *optim.Optimizer
	device   torchx.Device
	vault    *vault
	events   Sender
	verdict  func() string
	log      *slog.Logger

	pass         nn.Pass
	steps        int64 // batches done since the run's first epoch
	lastProgress time.Time
}

// Run carries a job out on the calling goroutine, which must be locked to its
// thread. verdict says "", "stop" or "pause" and is asked before each batch.
// The last event, done, is sent; a failure is returned (see Classify) and left
// to the caller to send. ctx ends the run at the next batch with ctx's error.
func Run(ctx context.Context, job trainerproto.Job, events Sender, verdict func() string, log *slog.Logger) error {
	r := &run{job: job, events: events, verdict: verdict, log: log}
	err := torchx.Catch(func() error { return r.carryOut(ctx) })
	r.close()
	return Classify(err)
}

func (r *run) carryOut(ctx context.Context) error {
	var last progress
	if err := r.prepare(ctx, &last); err != nil {
		return err
	}
	s := r.settings
	train := r.data.train
	ends := cut(train.Len(), s.BatchSize)
	r.steps = int64(last.Epoch * len(ends))

	for epoch := last.Epoch + 1; epoch <= s.Epochs; epoch++ {
		started := time.Now()
		if r.patienceOver(last) {
			break
		}

		// Train on every image once, in this epoch's order.
		order := augment.Order(r.job.Seed, epoch, train.Len())
		tally, err := r.newTally()
		if err != nil {
			return err
		}
		for step, from := 0, 0; step < len(ends); step++ {
			if reason := r.asked(); reason != "" {
				tally.free()
				return r.done(reason, fmt.Sprintf("asked to %s in epoch %d, after %d of %d batches", r.verdict(), epoch, step, len(ends)))
			}
			if err := ctx.Err(); err != nil {
				tally.free()
				return err
			}
			if err := r.step(order[from:ends[step]], epoch, step, tally); err != nil {
				tally.free()
				return err
			}
			from = ends[step]
			r.steps++
			if err := r.tellProgress(epoch, int64(s.Epochs*len(ends)), ""); err != nil {
				tally.free()
				return err
			}
		}
		trained, err := tally.read()
		if err != nil {
			return err
		}
		rate := float64(train.Len()) / time.Since(started).Seconds()

		// Validate, judge, report, keep.
		val, err := r.validate(ctx)
		if err != nil {
			return err
		}
		metrics := trainerproto.Metrics{{Name: "train_loss", Value: trained.loss}, {Name: "train_acc", Value: trained.accuracy},
			{Name: "val_loss", Value: val.loss}, {Name: "val_acc", Value: val.accuracy}, {Name: "lr", Value: s.LR}, {Name: "images_per_s", Value: rate}}
		if !finite(trained.loss) || !finite(val.loss) {
			return diverged(epoch, "train_loss %g, val_loss %g", trained.loss, val.loss)
		}
		last.Epoch = epoch
		if value, _ := metrics.Get(r.metric); last.better(value, r.job.Maximize) {
			last.Best, last.BestEpoch = value, epoch
		}
		last.BestLoss = min(last.BestLoss, val.loss)
		if err := r.events.Send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: epoch, Metrics: metrics, Seconds: time.Since(started).Seconds()}); err != nil {
			return fmt.Errorf("report epoch %d: %w", epoch, err)
		}
		path, info, err := r.vault.save(r, last)
		if err != nil {
			return err
		}
		if err := r.events.Send(trainerproto.Event{Kind: trainerproto.EventCheckpoint, Epoch: epoch, Path: path, Size: info.Bytes, SHA256: info.SHA256, Metrics: metrics}); err != nil {
			return fmt.Errorf("tell checkpoint of epoch %d: %w", epoch, err)
		}
		r.vault.prune(last, r.log)
		r.log.Info("epoch", "epoch", epoch, "train_loss", round(trained.loss), "train_acc", round(trained.accuracy), "val_loss", round(val.loss), "val_acc", round(val.accuracy), "images_per_s", math.Round(rate))
	}
	why := fmt.Sprintf("%d epochs", last.Epoch)
	if last.Epoch < s.Epochs {
		why = fmt.Sprintf("no better %s in %d epochs", r.metric, s.Patience)
	}
	return r.done(trainerproto.DoneFinished, fmt.Sprintf("%s; best %s %.6g in epoch %d", why, r.metric, last.Best, last.BestEpoch))
}

// prepare does everything before the first step.
func (r *run) prepare(ctx context.Context, last *progress) (err error) {
	if r.settings, err = settings.Parse(r.job.Training, r.job.Params, r.job.BaseDir); err != nil {
		return badSpec("%w", err)
	}
	s := r.settings
	if r.metric = r.job.Metric; r.metric == "" {
		r.metric = "val_loss"
	}
	if !slices.Contains(Metrics, r.metric) {
		return badSpec("objective metric %q is not reported by this trainer; it reports %s", r.metric, strings.Join(Metrics, ", "))
	}
	if !slices.Contains(model.Names(), s.Model) {
		return badSpec("training: no model %q; did you mean %q? There are %s", s.Model, settings.Nearest(s.Model, model.Names()), strings.Join(model.Names(), ", "))
	}
	device := r.job.Device
	if device == "" {
		device = "cpu"
	}
	r.device = torchx.NewDevice(device)
	if err := torchx.DeviceReady(r.device); err != nil {
		return &Failure{trainerproto.FailedDeviceFault, err}
	}
	if r.job.Threads < 1 {
		r.job.Threads = runtime.NumCPU()
	}
	if err := torchx.SetThreads(r.job.Threads); err != nil {
		return err
	}
	if err := torchx.SetDeterministic(true); err != nil {
		return err
	}
	if r.vault, err = openVault(r.job.Dir, r.job.Run); err != nil {
		return err
	}
	r.data, err = openData(ctx, s, r.job.CacheDir, r.log, func(text string) {
		if err := r.tellProgress(0, 0, text); err != nil {
			r.log.Warn("packing goes on", "error", err)
		}
	})
	if err != nil {
		return err
	}
	r.data.device, r.data.seed = r.device, r.job.Seed
	r.data.channelsLast = s.Layout != "default" // faster on CPUs and with tensor cores: BENCHMARKS.md

	if err := torchx.Seed(r.job.Seed); err != nil {
		return err
	}
	if r.model, err = model.New(s.Model, model.Options{Classes: len(r.data.classes), Dropout: s.DropoutRate}); err != nil {
		return err
	}
	if err := r.model.Move(r.device, r.data.channelsLast); err != nil {
		return err
	}
	r.opt, err = optim.New(optim.Config{Name: s.Optimizer, Momentum: s.Momentum, WeightDecay: s.WeightDecay}, r.model.Weights())
	if err != nil {
		return err
	}
	*last = progress{BestLoss: math.Inf(1)}
	if r.job.Resume != "" {
		if *last, err = r.resume(r.job.Resume); err != nil {
			return err
		}
		r.log.Info("resumed", "epoch", last.Epoch, "from", r.job.Resume)
	}
	return nil
}

// step is one batch: forward, loss, backward, update.
func (r *run) step(indices []int, epoch, step int, t *tally) error {
	x, y, err := r.data.batch(r.data.train, indices, r.data.recipe, epoch, step)
	if err != nil {
		return err
	}
	defer torchx.Free(x, y)
	r.pass.Training = true
	defer r.pass.Close()
	loss, err := r.forward(x, y, t)
	if err != nil {
		return err
	}
	if !r.device.CUDA() { // there, reading the loss would wait for the GPU; the epoch's mean tells as well
		v, err := torchx.Item(loss)
		if err != nil {
			return err
		}
		if !finite(v) {
			return diverged(epoch, "loss %g in batch %d", v, step+1)
		}
	}
	if err := torchx.Backward(loss); err != nil {
		return err
	}
	return r.opt.Step(r.settings.LR)
}

// forward computes the loss of a batch and counts it.
func (r *run) forward(x, y torchx.Tensor, t *tally) (loss torchx.Tensor, err error) {
	precision := torchx.FP32
	if r.settings.Precision == "bf16" {
		precision = torchx.BF16
	}
	err = torchx.Autocast(r.device, precision, func() error {
		logits := r.model.Forward(&r.pass, x)
		loss = r.pass.KeepOr(torchx.CrossEntropy(logits, y, 0))
		return torchx.Tally(t.counts, logits, y, loss)
	})
	return loss, err
}

// validate measures the validation set.
func (r *run) validate(ctx context.Context) (result score, err error) {
	t, err := r.newTally()
	if err != nil {
		return result, err
	}
	set := r.data.validation
	indices := make([]int, set.Len())
	for i := range indices {
		indices[i] = i
	}
	r.pass.Training = false
	err = torchx.NoGrad(func() error {
		for from := 0; from < set.Len(); from += r.settings.BatchSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			x, y, err := r.data.batch(set, indices[from:min(from+r.settings.BatchSize, set.Len())], augment.Recipe{}, 0, 0)
			if err != nil {
				return err
			}
			_, err = r.forward(x, y, t)
			r.pass.Close()
			torchx.Free(x, y)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.free()
		return result, err
	}
	return t.read()
}

// patienceOver tells whether the run should end by itself.
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

func (r *run) done(reason, message string) error {
	return r.events.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: reason, Message: message})
}

// tellProgress sends at most one event a second. An error means that nobody
// listens any more: the run is an orphan.
func (r *run) tellProgress(epoch int, steps int64, message string) error {
	if time.Since(r.lastProgress) < time.Second {
		return nil
	}
	r.lastProgress = time.Now()
	e := trainerproto.Event{Kind: trainerproto.EventProgress, Epoch: epoch, Message: message, Step: r.steps, Steps: steps}
	if err := r.events.Send(e); err != nil {
		return fmt.Errorf("tell progress: %w", err)
	}
	return nil
}

// generators are the random states a run draws from.
func (r *run) generators() []torchx.Device {
	if r.device.CUDA() {
		return []torchx.Device{torchx.CPU, r.device}
	}
	return []torchx.Device{torchx.CPU}
}

func (r *run) close() {
	r.pass.Close()
	if r.opt != nil {
		r.opt.Free()
	}
	if r.model != nil {
		r.model.Free()
	}
	if r.data != nil {
		r.data.close()
	}
}

func diverged(epoch int, format string, args ...any) error {
	return &Failure{trainerproto.FailedDiverged, fmt.Errorf("epoch %d: %s: the run diverged; a lower lr may help", epoch, fmt.Sprintf(format, args...))}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }
