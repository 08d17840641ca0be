package train

import (
	"context"
	"fmt"
	"os"

	"atelier/common/child"
	"atelier/common/trainerproto"
)

// Local trains on this machine: a trainer is started, what it reports is shown
// and written down, and the folder holds the results at the end. The Result is
// there with an error too, once the folder is: what was reached until then.
func Local(ctx context.Context, p *Plan, o Options) (*Result, error) {
	return runSession(ctx, p, o, func(s *session) error {
		log, err := os.OpenFile(s.folder.resume(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer log.Close()
		words := &tail{to: log, warn: s.result.warn}
		c, said, err := startTrainer(ctx, o.Trainer, "train", words)
		if err != nil && ctx.Err() != nil {
			return ErrInterrupted
		}
		if err != nil {
			return err
		}
		s.result.machine = machine(p, said)
		defer s.track.machine(ctx, s.folder.dir)()
		return s.train(ctx, c, words)
	})
}

func (s *session) train(ctx context.Context, c *child.Trainer, words *tail) error {
	p := s.plan
	job := trainerproto.Job{Protocol: trainerproto.Version, Sweep: "atelier-train", Trial: 1, Run: 1, Seed: p.Seed, Params: []byte("{}"), Training: p.Training,
		Metric: "val_loss", Device: p.Device, Threads: p.Threads, Dir: s.folder.resume(), BaseDir: p.BaseDir, CacheDir: p.CacheDir,
		Resume: p.resumeFile, ResumeEpoch: p.resumeEpoch, SheetsDir: s.folder.path(SheetsDir)}
	last, err := carryOut(ctx, c, job, s.take)
	switch {
	case err != nil:
		return err
	case last.Kind == trainerproto.EventDone && last.Reason == trainerproto.DoneFinished:
		s.history.Message = last.Message
		return nil
	case ctx.Err() != nil:
		return ErrInterrupted
	case last.Kind == trainerproto.EventFailed:
		return &Failure{Class: last.Class, Message: last.Message}
	case last.Kind == trainerproto.EventDone:
		return fmt.Errorf("the trainer ended as %s, which nobody asked for", last.Reason)
	case c.Killed():
		return &Failure{Class: trainerproto.FailedOutOfMemory, Message: "the trainer was killed (SIGKILL) and nobody here did it: most likely by the kernel, which was out of memory"}
	}
	return &Failure{Class: trainerproto.FailedCrashed, Message: "the trainer ended (" + c.State().String() + ") without a word" + words.quote()}
}
