//go:build libtorch

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"atelier/common/inference"
	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train"
)

// exitTerminated is what a shell shows for a process ended by SIGTERM.
const exitTerminated = 128 + int(syscall.SIGTERM)

// errTerminated ends the process with exitTerminated.
var errTerminated = errors.New("ended by SIGTERM; the last checkpoint is kept")

// errReported is a failure the failed event already told.
var errReported = errors.New("the run failed")

// trainCommand speaks common/trainerproto: hello, one job, events, done or
// failed. The job is a training, or a task of inference.
func trainCommand(stdin io.Reader, logs io.Writer) error {
	log := slog.New(slog.NewTextHandler(logs, nil))
	events, err := eventsFile()
	if err != nil {
		return usageError{err}
	}
	out := trainerproto.NewWriter(events)
	if err := warm(); err != nil {
		return fmt.Errorf("warm up libtorch: %w", err)
	}
	// A write to a link whose member is gone is an error, on libtorch's threads too.
	signal.Ignore(syscall.SIGPIPE)
	// Before hello: whoever read that may send signals.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := out.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version, Name: "torch", Groups: trainerproto.GroupVersion, Message: "libtorch " + torchx.Version()}); err != nil {
		return fmt.Errorf("send hello on descriptor %d: %w", trainerproto.EventsFD, err)
	}

	in := trainerproto.NewReader(stdin)
	type read struct {
		job trainerproto.Job
		err error
	}
	first := make(chan read, 1)
	var said atomic.Pointer[trainerproto.Control]
	said.Store(&trainerproto.Control{})
	told := make(chan struct{}) // closed with the first verdict
	go func() {
		job, err := in.Job()
		first <- read{job, err}
		if err == nil {
			follow(in, &said, told, log)
		}
	}()
	var got read
	select {
	case got = <-first:
	case <-ctx.Done():
		return errTerminated // standing by; nothing was begun
	}
	if errors.Is(got.err, io.EOF) {
		log.Info("standard input ended before a job came")
		return nil
	}
	if got.err != nil {
		return tell(out, log, &train.Failure{Class: trainerproto.FailedBadSpec, Err: got.err})
	}

	log.Info("run", "sweep", got.job.Sweep, "trial", got.job.Trial, "run", got.job.Run, "device", got.job.Device, "threads", got.job.Threads, "pid", os.Getpid())
	if got.job.Kind != trial.Inference.String() {
		members := linksFile()
		if members != nil {
			defer members.Close()
		}
		err = train.Run(ctx, got.job, out, func() trainerproto.Control { return *said.Load() }, members, log)
	} else if task, fault := inference.ParseTask(got.job.Training); fault != nil {
		err = &train.Failure{Class: trainerproto.FailedBadSpec, Err: fault}
	} else {
		err = inferTask(ctx, got.job, task, out, func() string { return said.Load().Verdict }, told, logs)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return errTerminated
	}
	return tell(out, log, err)
}

// follow takes control lines until standard input ends, and adds each to what was
// said before; told is closed with the first verdict to stop or pause.
func follow(in *trainerproto.Reader, said *atomic.Pointer[trainerproto.Control], told chan<- struct{}, log *slog.Logger) {
	first := sync.OnceFunc(func() { close(told) })
	for {
		c, err := in.Control()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				log.Warn("control line not understood; no more are read", "error", err)
			}
			return
		}
		all := *said.Load()
		all.Reported, all.Kept = max(all.Reported, c.Reported), max(all.Kept, c.Kept)
		switch c.Verdict {
		case "stop", "pause":
			all.Verdict = c.Verdict
		case "leave":
			all.Verdict = c.Verdict
		case "continue", "":
		default:
			log.Warn("unknown verdict", "verdict", c.Verdict)
		}
		said.Store(&all)
		if all.Verdict == "stop" || all.Verdict == "pause" {
			first()
		}
	}
}

// linksFile is descriptor 4 if the parent process gave a socket over which links to
// other members come; nil if not.
func linksFile() *links.Receiver {
	var st syscall.Stat_t
	if err := syscall.Fstat(trainerproto.LinksFD, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return nil
	}
	return links.NewReceiver(os.NewFile(trainerproto.LinksFD, "links"))
}

// tell sends the failed event.
func tell(out *trainerproto.Writer, log *slog.Logger, err error) error {
	class := trainerproto.FailedCrashed
	var f *train.Failure
	if errors.As(err, &f) {
		class = f.Class
	}
	text := err.Error()
	if len(text) > 8192 {
		text = text[:8192] + " ..."
	}
	log.Error("run failed", "class", class, "error", text)
	if err := out.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Class: class, Message: text}); err != nil {
		return fmt.Errorf("report the failure: %w", err)
	}
	return errReported
}

// eventsFile is descriptor 3 if the parent process gave one.
func eventsFile() (*os.File, error) {
	var st syscall.Stat_t
	err := syscall.Fstat(trainerproto.EventsFD, &st)
	kind := st.Mode & syscall.S_IFMT
	// Without one, Go's runtime may have taken the number for its own poller, which has no kind.
	if err != nil || kind == 0 {
		return nil, fmt.Errorf("file descriptor %d is not open: a worker starts this command; by hand: atelier-trainer train 3>&1 <job.json", trainerproto.EventsFD)
	}
	return os.NewFile(trainerproto.EventsFD, "events"), nil
}

// warm runs one small step, so that libraries are mapped, kernels chosen and
// threads started before a job comes.
func warm() error {
	return torchx.Catch(func() error {
		m, err := model.New("vanilla", model.Options{Classes: 2})
		if err != nil {
			return err
		}
		defer m.Free()
		if err := m.Move(torchx.CPU, true); err != nil {
			return err
		}
		opt, err := optim.New(optim.Config{Name: "sgd"}, m.Weights())
		if err != nil {
			return err
		}
		defer opt.Free()
		one := []float32{1, 1, 1}
		x, err := torchx.Images(make([]byte, 2*32*32*3), 2, 32, 32, one, one, torchx.CPU, true)
		if err != nil {
			return err
		}
		y, err := torchx.Labels([]int64{0, 1}, torchx.CPU)
		if err != nil {
			return err
		}
		defer torchx.Free(x, y)
		p := nn.Pass{Training: true}
		defer p.Close()
		loss := p.KeepOr(torchx.CrossEntropy(m.Forward(&p, x), y, torchx.Tensor{}, 0))
		if err := torchx.Backward(loss); err != nil {
			return err
		}
		return opt.Step(0)
	})
}
