// Package simtrainer is the trainer's twin without libtorch: it speaks the
// trainer protocol, takes a few milliseconds and megabytes, and its learning
// curves are a deterministic function of the parameters and the seed. Clusters,
// their tests and their load benchmarks run on it.
//
// It refuses to be realistic where that would cost determinism: nothing depends
// on the clock, the machine or the run's number, save the faults asked for.
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
	"atelier/common/trainerproto"
)

// Main runs one job: events to out, job and controls from in, words for people
// to log. The signal channel asks for an early end. It returns the exit code.
func Main(in io.Reader, out, log io.Writer, signals <-chan os.Signal) int {
	w := trainerproto.NewWriter(out)
	if err := w.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version, Name: "sim"}); err != nil {
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
	verdicts := make(chan string, 1)
	go func() {
		for {
			c, err := r.Control()
			if err != nil {
				c.Verdict = "gone" // no agent, no lease: nobody could use the result
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
	t := &training{job: job, w: w, log: log, verdicts: verdicts, signals: signals}
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
	w.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: reason})
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
	saved    int // epoch of the last checkpoint of this run
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
	epoch := 0
	if t.job.Resume != "" {
		if epoch, err = readCheckpoint(t.job.Resume); err != nil {
			return "", fmt.Errorf("resume from %s: %w", t.job.Resume, err)
		}
	}
	t.saved = epoch
	if t.set.StderrBytes > 0 {
		writeNoise(t.log, t.set.StderrBytes)
	}
	length := time.Duration(t.set.EpochSeconds * float64(time.Second))
	began := time.Now()
	for first := epoch; epoch < last; {
		// Ends of epochs are counted from the start, so that delays do not add up.
		reason := t.wait(began.Add(time.Duration(epoch-first+1) * length))
		if reason == "gone" {
			return "", errors.New("standard input was closed: the agent is gone")
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
		if t.set.LogEpochs {
			fmt.Fprintf(t.log, "epoch %d\n", epoch)
		}
		m := t.curve.metrics(epoch)
		if t.set.NaNAtEpoch > 0 && epoch >= t.set.NaNAtEpoch {
			for i := range m {
				m[i].Value = math.NaN()
			}
		}
		if err := t.w.Send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: epoch, Metrics: m, Seconds: t.set.EpochSeconds}); err != nil {
			return "", err
		}
		if math.IsNaN(m[0].Value) {
			return "", &fault{trainerproto.FailedDiverged, fmt.Sprintf("val_loss is NaN at epoch %d", epoch)}
		}
		if every := t.set.CheckpointEvery; every > 0 && (epoch%every == 0 || epoch == last) {
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
	if t.set.FailAtEpoch == 0 || epoch != t.set.FailAtEpoch || (t.set.FailRuns > 0 && t.job.Run > t.set.FailRuns) {
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

func (t *training) checkpoint(epoch int) error {
	path := filepath.Join(t.job.Dir, fmt.Sprintf("epoch-%04d.sim", epoch))
	b := encodeCheckpoint(epoch, t.set.CheckpointBytes)
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
