package train

import (
	"context"
	"encoding/json"
	"fmt"

	"atelier/common/client"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/tuner/session"
)

// Cluster is where and how a training is sent away.
type Cluster struct {
	API       *client.Client
	Addresses string // of the API, as a person gave them: --resume goes there again
	Files     client.Files
}

// Spec is the plan as a sweep of one trial.
func (p *Plan) Spec() ([]byte, error) {
	return session.SingleSpec("train "+FolderName(p.Settings), p.Seed, "val_loss", "minimize", "lr", p.Settings.LR, json.RawMessage(p.Training))
}

// Remote trains in a cluster: a sweep of one trial is submitted, or one that
// was is taken up again; its reports are shown and written down, and its
// checkpoints fetched at the end. With a trainer on this machine (o.Trainer)
// sample sheets are drawn and the model is tested here.
func Remote(ctx context.Context, p *Plan, o Options, c Cluster) (*Result, error) {
	return runSession(ctx, p, o, func(s *training) error {
		if p.sweep == "" {
			if err := s.submit(ctx, c); err != nil {
				return err
			}
		}
		s.result.Sweep = p.sweep
		s.o.Watch.Progress(Progress{Message: "sweep " + p.sweep + ": waiting for a worker"})
		s.drawSheets(ctx)
		of := session.Single{API: c.API, ID: p.sweep}
		ended, err := c.API.Follow(ctx, p.sweep, func(*trial.Sweep) error { return s.reports(ctx, of) })
		if err != nil && ctx.Err() != nil {
			return session.ErrGoesOn
		}
		if err != nil {
			return err
		}
		return s.collect(ctx, of, c.Files, ended)
	})
}

// submit makes the sweep. What is asked for is written down first, under the id
// that keeps it from being made twice.
func (s *training) submit(ctx context.Context, c Cluster) error {
	spec, err := s.plan.Spec()
	if err == nil && s.plan.requestID == "" {
		s.plan.requestID, s.plan.addresses = client.NewRequestID(), c.Addresses
		err = s.folder.save(s.plan)
	}
	if err != nil {
		return err
	}
	made, _, err := c.API.Submit(ctx, client.Submission{RequestID: s.plan.requestID, Spec: string(spec), Name: "training", BaseDir: s.plan.BaseDir})
	if err != nil {
		return err
	}
	s.plan.sweep = made.ID
	return s.folder.save(s.plan)
}

// reports takes the reports that are new.
func (s *training) reports(ctx context.Context, of session.Single) error {
	t, err := of.Trial(ctx)
	if err != nil || t == nil || int(t.Epoch) <= s.history.last() {
		return err
	}
	reports, err := of.Reports(ctx)
	if err != nil {
		return err
	}
	before := t.StartedMS
	for _, r := range reports {
		seconds := float64(r.TimeMS-before) / 1000
		before = r.TimeMS
		if int(r.Epoch) <= s.history.last() {
			continue
		}
		if err := s.take(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: int(r.Epoch), Seconds: max(seconds, 0), Metrics: r.Metrics}); err != nil {
			return err
		}
	}
	return nil
}

// collect fetches the best and the newest checkpoint of a trial that has ended,
// and says how it did.
func (s *training) collect(ctx context.Context, of session.Single, files client.Files, ended *trial.Sweep) error {
	t, err := of.Trial(ctx)
	if err != nil {
		return err
	}
	if t == nil {
		return of.Failure(ended, nil)
	}
	for _, run := range t.Runs {
		s.result.Workers = append(s.result.Workers, fmt.Sprintf("%s/%s", run.Worker, run.Slot))
	}
	checkpoints, err := of.Checkpoints(ctx)
	if err != nil {
		return err
	}
	var best, last *trial.Checkpoint
	for i := range checkpoints {
		k := &checkpoints[i]
		if last == nil || k.Epoch > last.Epoch {
			last = k
		}
		if int(k.Epoch) == s.history.BestEpoch {
			best = k
		}
	}
	for _, k := range []*trial.Checkpoint{best, last} {
		if k == nil {
			continue
		}
		path := s.folder.InResume(fmt.Sprintf("epoch-%04d-run-1.pth", k.Epoch))
		s.o.Watch.Progress(Progress{Message: fmt.Sprintf("fetching the checkpoint of epoch %d", k.Epoch)})
		if err := files.Pull(ctx, k, path); err != nil {
			return fmt.Errorf("checkpoint of epoch %d: %w; once that is mended: atelier train --resume %s", k.Epoch, err, s.folder.Dir)
		}
		if k == best {
			if err := s.folder.markBest(path); err != nil {
				return err
			}
		}
	}
	if last != nil {
		if err := s.folder.keepFrom(int(last.Epoch)); err != nil {
			return err
		}
	}
	s.history.Message = fmt.Sprintf("%d epochs in sweep %s", s.history.last(), s.plan.sweep)
	switch t.Status {
	case trial.Finished:
		return nil
	case trial.Stopped:
		s.history.Message += ", stopped: " + t.StopReason
		return nil
	}
	return of.Failure(ended, t)
}

// drawSheets draws the sample sheets here, if a trainer and the images are at
// hand.
func (s *training) drawSheets(ctx context.Context) {
	p := s.plan
	if p.again || s.o.Trainer == "" || p.Data[0].Folder == nil {
		if !p.again {
			s.result.warn("no " + SheetsDir + ": drawing them takes an atelier-trainer and the images on this machine")
		}
		return
	}
	job, err := json.Marshal(trainerproto.Job{Protocol: trainerproto.Version, Seed: p.Seed, Params: []byte("{}"), Training: p.Training,
		BaseDir: p.BaseDir, CacheDir: p.CacheDir, SheetsDir: s.folder.Path(SheetsDir)})
	if err == nil {
		_, err = ask(ctx, s.o.Trainer, append(job, '\n'), "sheets")
	}
	if err != nil && ctx.Err() == nil {
		s.result.warn("no " + SheetsDir + ": " + err.Error())
	}
}
