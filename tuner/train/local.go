package train

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"atelier/common/child"
	"atelier/common/trainerproto"
	"atelier/tuner/session"
	"atelier/tuner/train/members"
)

// Local trains on this machine: a trainer is started, or one for each member of a
// group, what it reports is shown and written down, and the folder holds the
// results at the end. The Result is there with an error too, once the folder is:
// what was reached until then.
func Local(ctx context.Context, p *Plan, o Options) (*Result, error) {
	return runSession(ctx, p, o, func(s *training) error {
		log, err := os.OpenFile(s.folder.InResume(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer log.Close()
		job := trainerproto.Job{Protocol: trainerproto.Version, Sweep: "atelier-train", Trial: 1, Run: 1, Seed: p.Seed, Params: []byte("{}"), Training: p.Training,
			Metric: "val_loss", Device: p.Device, Threads: p.TrainerThreads(), Dir: s.folder.InResume(), BaseDir: p.BaseDir, CacheDir: p.CacheDir,
			Resume: p.resumeFile, ResumeEpoch: p.resumeEpoch, SheetsDir: s.folder.Path(SheetsDir)}
		hello := func(said string) func() {
			s.result.machine = machine(p, said)
			return s.track.machine(ctx, s.folder.Dir)
		}
		var last trainerproto.Event
		if p.Members() > 1 {
			last, err = s.together(ctx, job, log, hello)
		} else {
			last, err = Call{Trainer: o.Trainer, Verb: "train", Job: job, Log: log, Warn: s.result.warn, On: s.take, Hello: hello}.Run(ctx)
		}
		if err == nil {
			s.history.Message = last.Message
		}
		return err
	})
}

// together trains with several members.
func (s *training) together(ctx context.Context, job trainerproto.Job, log io.Writer, hello func(said string) func()) (trainerproto.Event, error) {
	words := make([]*tail, len(s.plan.devices)) // of the trainer of each place
	var once sync.Once
	var end func()
	defer func() {
		if end != nil {
			end()
		}
	}()
	warn := onceEach(s.result.warn) // they warn of the same things
	to := &sharedLog{to: log}
	c := members.Config{Job: job, Shards: s.plan.Settings.Shards, On: s.take, Changed: s.changed,
		Start: func(ctx context.Context, place int) (*child.Trainer, error) {
			words[place] = &tail{to: to.part(fmt.Sprintf("member in place %d: ", place+1)), warn: warn}
			t, said, err := startTrainer(ctx, s.o.Trainer, "train", words[place])
			if err == nil && said.Groups != trainerproto.GroupVersion {
				t.Kill()
				<-t.Exited()
				t.Close()
				err = fmt.Errorf("start %s: it does not train in groups (version %d, this program %d): build both programs again with `make build`", s.o.Trainer, said.Groups, trainerproto.GroupVersion)
			}
			if err == nil {
				once.Do(func() { end = hello(said.Message) })
			}
			return t, err
		}}
	for _, device := range s.plan.devices {
		c.Places = append(c.Places, members.Place{Device: device})
	}
	last, err := members.Run(ctx, c)
	switch {
	case err != nil && ctx.Err() != nil:
		return last.Last, session.ErrInterrupted
	case err != nil:
		return last.Last, err
	case last.Silent:
		return last.Last, &session.Failure{Class: trainerproto.FailedCrashed, Message: "the last of the trainers did not answer any more and was ended" + words[last.Place].quote()}
	}
	return last.Last, outcome(ctx, last.Last, last.By, words[last.Place])
}
