// Package simtrainer is the trainer's twin without libtorch: it speaks the
// trainer protocol, takes a few milliseconds and megabytes, and its learning
// curves are a deterministic function of the parameters and the seed. Clusters,
// their tests and their load benchmarks run on it.
//
// It refuses to be realistic where that would cost determinism: nothing depends
// on the clock, the machine or the run's number, save the faults asked for. What
// members of a group compute together beside the curve is worth nothing but for
// its bits.
package simtrainer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"atelier/common/files"
	trainsettings "atelier/common/settings"
	"atelier/common/trainerproto"
)

// Main runs one job: events to out, job and controls from in, words for people
// to log. The signal channel asks for an early end. It returns the exit code.
func Main(in io.Reader, out, log io.Writer, signals <-chan os.Signal) int {
	w := trainerproto.NewWriter(out)
	if err := w.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version, Name: "sim", Groups: trainerproto.GroupVersion}); err != nil {
		fmt.Fprintf(log, "simtrainer: no descriptor %d to write events to (%v): it is started by an agent\n", trainerproto.EventsFD, err)
		return 2
	}
	r := trainerproto.NewReader(in)
	job, err := r.Job()
	if errors.Is(err, io.EOF) {
		return 0 // the agent needs this standby no more
	}
	if err != nil {
		w.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Class: trainerproto.FailedCrashed, Message: err.Error()})
		return 1
	}
	t := &training{job: job, w: w, log: log, signals: signals}
	verdicts := make(chan string, 1)
	t.verdicts = verdicts
	go func() {
		for {
			c, err := r.Control()
			if err != nil {
				c.Verdict = "gone" // no agent, no lease: nobody could use the result
			}
			if t.safe.note(c); c.Verdict == "" {
				continue
			}
			select {
			case verdicts <- c.Verdict:
			case <-time.After(time.Minute):
			}
			if err != nil {
				return
			}
		}
	}()
	reason, err := t.run()
	var f *fault
	switch {
	case errors.As(err, &f):
		w.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Class: f.class, Message: f.message})
		return 1
	case err != nil:
		fmt.Fprintln(log, "simtrainer:", err)
		w.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Class: trainerproto.FailedCrashed, Message: err.Error()})
		return 1
	}
	if reason != "" { // else it was sent
		w.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: reason})
	}
	return 0
}

// fault is an end that the protocol has a class for.
type fault struct{ class, message string }

func (f *fault) Error() string { return f.class + ": " + f.message }

type training struct {
	job      trainerproto.Job
	w        *trainerproto.Writer
	log      io.Writer
	verdicts <-chan string
	signals  <-chan os.Signal
	set      settings
	curve    curve
	saved    int      // epoch of the last checkpoint of this run
	shards   int      // of each batch
	weights  *weights // nil with one shard
	safe     safe
}

func (t *training) run() (string, error) {
	var err error
	if t.set, err = readSettings(t.job.Training, t.job.Params); err != nil {
		return "", &fault{trainerproto.FailedBadSpec, err.Error()}
	}
	if t.curve, err = newCurve(t.set.Curve, t.set.Landscape, t.job.Seed, t.job.Params); err != nil {
		return "", &fault{trainerproto.FailedBadSpec, err.Error()}
	}
	if t.set.NeedsFile != "" {
		if path := filepath.Join(t.job.CacheDir, t.set.NeedsFile); missing(path) {
			return "", &fault{trainerproto.FailedDataMissing, fmt.Sprintf("needs_file: %s does not exist", path)}
		}
	}
	last := t.set.Epochs
	if end := t.job.EndEpoch; end > 0 && !t.set.IgnoreStop {
		last = min(last, end)
	}
	g, err := trainsettings.GroupOf(t.job.Training)
	if err != nil {
		return "", &fault{trainerproto.FailedBadSpec, err.Error()}
	}
	if t.shards = g.Shards; t.job.Group != nil {
		t.shards = t.job.Group.Shards
	}
	if t.shards > 1 || t.job.Group != nil {
		t.weights = newWeights(t.job.Seed)
	}
	epoch := 0
	if t.job.Resume != "" {
		var w *weights
		if epoch, w, err = readCheckpoint(t.job.Resume); err != nil {
			return "", fmt.Errorf("resume from %s: %w", t.job.Resume, err)
		}
		if t.weights != nil && w == nil {
			return "", &fault{trainerproto.FailedBadSpec, fmt.Sprintf("resume from %s: it is of a training of one shard, this one has %d", t.job.Resume, t.shards)}
		}
		if t.weights != nil {
			t.weights = w
		}
	}
	t.saved = epoch
	if t.set.StderrBytes > 0 {
		writeNoise(t.log, t.set.StderrBytes)
	}
	if t.job.Group != nil {
		return t.together(epoch, last)
	}
	length := time.Duration(t.set.EpochSeconds * float64(time.Second))
	began := time.Now()
	for first := epoch; epoch < last; {
		// Ends of epochs are counted from the start, so that delays do not add up.
		reason := t.wait(began.Add(time.Duration(epoch-first+1) * length))
		if reason == "gone" {
			return "", errGone
		}
		if reason != "" {
			if epoch > t.saved && t.set.CheckpointEvery > 0 {
				if err := t.checkpoint(epoch); err != nil {
					return "", err
				}
			}
			return reason, nil
		}
		epoch++
		if err := t.fail(epoch); err != nil {
			return "", err
		}
		if t.weights != nil {
			for i := range int64(epochSteps) {
				t.weights.move(t.weights.sums(int64(epoch-1)*epochSteps+i+1, 0, t.shards, t.shards)[0])
			}
		}
		if err := t.report(epoch, t.set.EpochSeconds, nil); err != nil {
			return "", err
		}
		if t.due(epoch, last) {
			if err := t.checkpoint(epoch); err != nil {
				return "", err
			}
		}
	}
	if last < t.set.Epochs {
		return trainerproto.DonePaused, nil
	}
	return trainerproto.DoneFinished, nil
}

// report sends an epoch's metrics; the error is of one that has diverged.
func (t *training) report(epoch int, seconds float64, pace *trainerproto.Pace) error {
	if t.set.LogEpochs {
		fmt.Fprintf(t.log, "epoch %d\n", epoch)
	}
	m := t.curve.metrics(epoch)
	if t.diverged(epoch) {
		for i := range m {
			m[i].Value = math.NaN()
		}
	}
	if err := t.w.Send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: epoch, Metrics: m, Seconds: seconds, Pace: pace}); err != nil {
		return err
	}
	return t.divergence(epoch)
}

func (t *training) diverged(epoch int) bool { return t.set.NaNAtEpoch > 0 && epoch >= t.set.NaNAtEpoch }

func (t *training) divergence(epoch int) error {
	if !t.diverged(epoch) {
		return nil
	}
	return &fault{trainerproto.FailedDiverged, fmt.Sprintf("val_loss is NaN at epoch %d", epoch)}
}

// due reports whether an epoch's end is a checkpoint.
func (t *training) due(epoch, last int) bool {
	every := t.set.CheckpointEvery
	return every > 0 && (epoch%every == 0 || epoch == last)
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return err != nil
}

// wait sleeps to the end of an epoch, or returns why to end before it.
func (t *training) wait(until time.Time) string {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return ""
		case v := <-t.verdicts:
			switch {
			case v == "gone":
				return v
			case t.set.IgnoreStop:
			case v == "stop":
				return trainerproto.DoneStopped
			case v == "pause":
				return trainerproto.DonePaused
			}
		case <-t.signals:
			if !t.set.IgnoreStop {
				return trainerproto.DonePaused
			}
		}
	}
}

// fail carries out the fault asked for, if this is its run and epoch.
func (t *training) fail(epoch int) error {
	if t.set.FailAtEpoch == 0 || epoch != t.set.FailAtEpoch || (t.set.FailRuns > 0 && t.job.Run > t.set.FailRuns) ||
		t.set.FailMember > 0 && t.job.Group != nil && t.job.Group.Member != t.set.FailMember {
		return nil
	}
	if t.set.CrashSignal != 0 {
		fmt.Fprintf(t.log, "simtrainer: signal %d as asked\n", t.set.CrashSignal)
		syscall.Kill(os.Getpid(), syscall.Signal(t.set.CrashSignal))
		time.Sleep(5 * time.Second)
	}
	if t.set.FailClass != "" {
		return &fault{t.set.FailClass, fmt.Sprintf("failed at epoch %d as asked", epoch)}
	}
	return nil
}

func (t *training) checkpoint(epoch int) error { return t.write(epoch, t.weights) }

// write writes the checkpoint of an epoch, with the weights at its end.
func (t *training) write(epoch int, w *weights) error {
	path := filepath.Join(t.job.Dir, fmt.Sprintf("epoch-%04d.sim", epoch))
	b := encodeCheckpoint(epoch, t.set.CheckpointBytes, w)
	if err := files.Write(path, b, 0o644); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return &fault{trainerproto.FailedDiskFull, fmt.Sprintf("checkpoint of epoch %d (%d bytes): %v; free space there or move the worker's --data or --shared folder", epoch, len(b), err)}
		}
		return err
	}
	sum := sha256.Sum256(b)
	t.saved = epoch
	e := trainerproto.Event{Kind: trainerproto.EventCheckpoint, Epoch: epoch, Path: path, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
	if v, ok := t.curve.metrics(epoch).Get(t.job.Metric); ok {
		e.Metrics = trainerproto.Metrics{{Name: t.job.Metric, Value: v}}
	}
	return t.w.Send(e)
}
