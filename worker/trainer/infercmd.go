//go:build libtorch

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"atelier/common/inference"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/infer"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train"
)

// inferCommand speaks common/trainerproto for one run of inference: hello, a
// job whose training settings are those of common/inference, progress, done
// (its message is the outcome as JSON) or failed.
func inferCommand(stdin io.Reader, logs io.Writer) error {
	log := slog.New(slog.NewTextHandler(logs, nil))
	events, err := eventsFile()
	if err != nil {
		return usageError{err}
	}
	out := trainerproto.NewWriter(events)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := out.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version, Name: "torch", Message: "libtorch " + torchx.Version()}); err != nil {
		return fmt.Errorf("send hello on descriptor %d: %w", trainerproto.EventsFD, err)
	}
	job, err := trainerproto.NewReader(stdin).Job()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = inferJob(ctx, job, out, logs)
	} else {
		err = &infer.Fault{Err: err}
	}
	if err != nil && ctx.Err() != nil {
		return errTerminated
	}
	if err != nil {
		var f *infer.Fault
		if errors.As(err, &f) {
			err = &train.Failure{Class: trainerproto.FailedBadSpec, Err: err}
		}
		return tell(out, log, train.Classify(err))
	}
	return nil
}

// inferJob carries out a job of atelier infer: its settings name the folders.
func inferJob(ctx context.Context, job trainerproto.Job, out *trainerproto.Writer, logs io.Writer) error {
	s, err := inferSettings(job, job.Training)
	if err != nil {
		return err
	}
	var said time.Time
	outcome, err := carryOut(ctx, job, s, infer.Host{Log: logs, Progress: func(what string, done, total int) {
		if now := time.Now(); done == total || now.Sub(said) >= 200*time.Millisecond {
			said = now
			out.Send(trainerproto.Event{Kind: trainerproto.EventProgress, Message: what, Step: int64(done), Steps: int64(total)}) // a failed write shows at the end
		}
	}})
	if err != nil {
		return err
	}
	message, err := json.Marshal(inferred(outcome))
	if err != nil {
		return err
	}
	return out.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: trainerproto.DoneFinished, Message: string(message)})
}

// inferSettings are those of doc, with paths from the job's folder.
func inferSettings(job trainerproto.Job, doc []byte) (inference.Settings, error) {
	s, err := inference.Parse(doc)
	if err != nil {
		return s, &infer.Fault{Err: err}
	}
	for _, p := range []*string{&s.Checkpoint, &s.Image, &s.Images, &s.Output} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(job.BaseDir, *p)
		}
	}
	return s, nil
}

// carryOut runs inference with the job's threads and device.
func carryOut(ctx context.Context, job trainerproto.Job, s inference.Settings, h infer.Host) (*infer.Result, error) {
	h.Threads = job.Threads
	if h.Threads <= 0 {
		h.Threads = runtime.NumCPU()
	}
	if err := torchx.SetThreads(h.Threads); err != nil {
		return nil, err
	}
	var err error
	if h.Device, err = pickDevice(job.Device); err != nil {
		return nil, &infer.Fault{Err: err}
	}
	return infer.Run(ctx, s, h)
}

// inferred is the outcome as the command shows it.
func inferred(o *infer.Result) inference.Summary {
	x := inference.Summary{Dir: o.Dir, Files: o.Files, Images: o.Images, Skipped: o.Skipped, Suspicious: o.Suspicious, Charts: o.Charts, Seconds: o.Seconds,
		Architecture: o.Architecture, Figures: o.Figures, Drawn: o.Drawn, Notes: o.Notes}
	if e := o.Evaluation; e != nil {
		x.Accuracy, x.Evaluated, x.MacroF1 = &e.Accuracy, e.Samples, &e.Macro.F1
	}
	return x
}
