//go:build libtorch

package train

import (
	"fmt"
	"math"
	"time"

	"atelier/common/trainerproto"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// epoch is one that is under way, as this process trains it.
type epoch struct {
	plan   plan
	tally  *tally
	loader *loader // of this process's pieces from the next update on; nil where it has to be made
	began  time.Time
	before int // images that were done when it began here: of one taken over in its midst
}

// close gives memory and the goroutine of the loader back; of none it does nothing.
func (e *epoch) close() {
	if e == nil {
		return
	}
	e.reposition()
	e.tally.free()
}

// reposition has the loader made again, at the update and for the shards that are
// this process's then.
func (e *epoch) reposition() {
	if e.loader != nil {
		e.loader.close()
		e.loader = nil
	}
}

// begin plans the epoch of the run's position.
func (r *run) begin() error {
	r.work.close()
	r.work = nil
	s := r.settings
	e := &epoch{plan: newPlan(r.data.order(r.at.Epoch), r.data.train.Labels(), s.BatchSize, s.Shards, s.Accumulate, r.criterion), began: time.Now()}
	e.before = e.plan.images(r.at.Update)
	var err error
	if e.tally, err = r.newTally(); err != nil {
		return err
	}
	r.work = e
	return nil
}

// rate is the images a second of this epoch, so far.
func (r *run) rate() float64 {
	return float64(r.work.plan.images(r.at.Update)-r.work.before) / time.Since(r.work.began).Seconds()
}

// endEpoch judges what was trained and measured, reports and keeps it.
func (r *run) endEpoch() error {
	epoch, last := r.at.Epoch, &r.at.Last
	trained, val := scoreOf(r.at.Train), scoreOf(r.validation())
	if !finite(trained.loss) || !finite(val.loss) {
		return diverged(epoch, "train_loss %g, val_loss %g", trained.loss, val.loss)
	}
	if err := r.kept(true); err != nil { // only where writing takes as long as an epoch
		return err
	}
	metrics := trainerproto.Metrics{{Name: "train_loss", Value: trained.loss}, {Name: "train_acc", Value: trained.accuracy},
		{Name: "val_loss", Value: val.loss}, {Name: "val_acc", Value: val.accuracy}, {Name: "lr", Value: r.at.LR}, {Name: "images_per_s", Value: r.at.Rate}}
	value, _ := metrics.Get(r.metric)
	last.Epoch = epoch
	if last.Better(value, r.job.Maximize) {
		last.Best, last.BestEpoch = value, epoch
	}
	last.BestLoss = min(last.BestLoss, val.loss)
	last.Plateau = r.schedule.Observe(last.Plateau, epoch, value, r.job.Maximize)
	if r.shards != nil { // else the stream of draws goes on
		if err := torchx.Seed(randomState(r.job.Seed, checkpointRandom, epoch, 0, 0)); err != nil {
			return err
		}
	}
	state, err := r.writer.collect(r, *last)
	if err != nil {
		return err
	}
	state.metrics = metrics
	if r.group == nil {
		r.at.Seconds = time.Since(r.work.began).Seconds()
	}
	if err := r.report(handover.Report{Epoch: epoch, Metrics: metrics, Seconds: r.at.Seconds}, state); err != nil {
		return err
	}
	r.log.Info("epoch", "epoch", epoch, "train_loss", round(trained.loss), "train_acc", round(trained.accuracy), "val_loss", round(val.loss), "val_acc", round(val.accuracy), "lr", r.at.LR, "images_per_s", math.Round(r.at.Rate))
	r.at = position{Step: r.at.Step, Epoch: epoch + 1, Last: *last}
	r.work.close()
	r.work = nil
	return nil
}

// tellBatch tells how an epoch goes, if it is time: reading the tally waits for a
// GPU.
func (r *run) tellBatch() error {
	if !r.out.sends || !r.progressDue() {
		return nil
	}
	p := &r.work.plan
	n := p.batches()
	so, err := r.work.tally.peek()
	if err != nil {
		return err
	}
	all := r.at.Train
	all.Add(so)
	done, _ := p.batchesOf(r.at.Update)
	return r.tellProgress(trainerproto.Event{Epoch: r.at.Epoch, Step: int64((r.at.Epoch-1)*n + min(done, n)), Steps: int64(r.settings.Epochs * n),
		Metrics: trainerproto.Metrics{{Name: "train_loss", Value: scoreOf(all).loss}, {Name: "train_acc", Value: scoreOf(all).accuracy}, {Name: "images_per_s", Value: r.rate()}}, Pace: r.pace()})
}

// progressDue reports whether a second has passed since the last event of progress.
func (r *run) progressDue() bool { return time.Since(r.lastTold) >= time.Second }

// tellProgress sends an event that is due. An error means that nobody listens
// any more: the run is an orphan.
func (r *run) tellProgress(e trainerproto.Event) error {
	if !r.progressDue() {
		return nil
	}
	r.lastTold = time.Now()
	e.Kind = trainerproto.EventProgress
	if err := r.events.Send(e); err != nil {
		return fmt.Errorf("report progress: %w", err)
	}
	return nil
}
