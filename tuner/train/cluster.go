package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// ErrGoesOn ends the watching of a training that goes on in the cluster.
var ErrGoesOn = errors.New("the training goes on in the cluster")

// Cluster is where and how a training is sent away.
type Cluster struct {
	API   *client.Client
	Files client.Files
}

// trialNumber is the only trial of a training's sweep.
const trialNumber = 1

// Spec is the plan as a sweep of one trial, for people and the cluster alike.
// JSON is YAML.
func (p *Plan) Spec() ([]byte, error) {
	type axis struct {
		Type    string    `json:"type"`
		Choices []float64 `json:"choices"`
	}
	return json.MarshalIndent(struct {
		Name      string            `json:"name"`
		Method    string            `json:"search_method"`
		Seed      uint64            `json:"seed"`
		Objective map[string]string `json:"objective"`
		Budget    map[string]int    `json:"budget"`
		Parallel  int               `json:"parallelism"`
		Trainer   string            `json:"trainer"`
		Space     map[string]axis   `json:"space"`
		Training  json.RawMessage   `json:"training"`
	}{"train " + FolderName(p.Settings), "grid_search", p.Seed, map[string]string{"metric": "val_loss", "direction": "minimize"}, map[string]int{"trials": 1}, 1, "torch",
		map[string]axis{"lr": {"categorical", []float64{p.Settings.LR}}}, p.Training}, "", "  ")
}

// Remote trains in a cluster: a sweep of one trial is submitted, or one that
// was is taken up again; its reports are shown and written down, and its
// checkpoints fetched at the end. With a trainer on this machine (o.Trainer)
// sample sheets are drawn and the model is tested here.
func Remote(ctx context.Context, p *Plan, o Options, c Cluster) (*Result, error) {
	return runSession(ctx, p, o, func(s *session) error {
		if p.sweep == "" {
			if err := s.submit(ctx, c); err != nil {
				return err
			}
		}
		s.result.Sweep = p.sweep
		s.o.Watch.Progress(Progress{Message: "sweep " + p.sweep + ": waiting for a worker"})
		s.drawSheets(ctx)
		if _, err := c.API.Follow(ctx, p.sweep, func(*v1.Sweep) error { return s.reports(ctx, c) }); err != nil {
			if ctx.Err() != nil {
				return ErrGoesOn
			}
			return err
		}
		return s.collect(ctx, c)
	})
}

func (s *session) submit(ctx context.Context, c Cluster) error {
	spec, err := s.plan.Spec()
	if err != nil {
		return err
	}
	made, _, err := c.API.Submit(ctx, client.Submission{Spec: string(spec), Name: "training", BaseDir: s.plan.BaseDir})
	if err != nil {
		return err
	}
	s.plan.sweep = made.GetId()
	return s.folder.save(s.plan)
}

// reports takes the reports that are new.
func (s *session) reports(ctx context.Context, c Cluster) error {
	trial, err := c.API.Trials.GetTrial(ctx, connect.NewRequest(&v1.GetTrialRequest{SweepId: s.plan.sweep, Trial: trialNumber}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil // not proposed yet
	}
	if err != nil || int(trial.Msg.GetTrial().GetEpoch()) <= s.history.last() {
		return err
	}
	curve, err := c.API.Trials.GetCurve(ctx, connect.NewRequest(&v1.GetCurveRequest{SweepId: s.plan.sweep, Trial: trialNumber}))
	if err != nil {
		return err
	}
	before := trial.Msg.GetTrial().GetStartedMs()
	for _, r := range curve.Msg.GetReports() {
		seconds := float64(r.GetTimeMs()-before) / 1000
		before = r.GetTimeMs()
		if int(r.GetEpoch()) <= s.history.last() {
			continue
		}
		e := trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: int(r.GetEpoch()), Seconds: max(seconds, 0)}
		for _, m := range r.GetMetrics() {
			e.Metrics = append(e.Metrics, trainerproto.Metric{Name: m.GetName(), Value: m.GetValue()})
		}
		if err := s.take(e); err != nil {
			return err
		}
	}
	return nil
}

// collect fetches the best and the newest checkpoint of a trial that has ended,
// and says how it did.
func (s *session) collect(ctx context.Context, c Cluster) error {
	got, err := c.API.Trials.GetTrial(ctx, connect.NewRequest(&v1.GetTrialRequest{SweepId: s.plan.sweep, Trial: trialNumber}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return s.ended(ctx, c)
	}
	if err != nil {
		return err
	}
	t := got.Msg.GetTrial()
	for _, run := range t.GetRuns() {
		s.result.Workers = append(s.result.Workers, fmt.Sprintf("%s/%s", run.GetWorker(), run.GetSlot()))
	}
	r, err := c.API.Sweeps.ListCheckpoints(ctx, connect.NewRequest(&v1.ListCheckpointsRequest{Id: s.plan.sweep, Trial: trialNumber}))
	if err != nil {
		return err
	}
	var best, last *v1.Checkpoint
	for _, k := range r.Msg.GetCheckpoints() {
		if last == nil || k.GetEpoch() > last.GetEpoch() {
			last = k
		}
		if int(k.GetEpoch()) == s.history.BestEpoch {
			best = k
		}
	}
	for _, k := range []*v1.Checkpoint{best, last} {
		if k == nil {
			continue
		}
		path := s.folder.resume(fmt.Sprintf("epoch-%04d-run-1.pth", k.GetEpoch()))
		s.o.Watch.Progress(Progress{Message: fmt.Sprintf("fetching the checkpoint of epoch %d", k.GetEpoch())})
		if err := c.Files.Pull(ctx, k, path); err != nil {
			return fmt.Errorf("checkpoint of epoch %d: %w; once that is mended: atelier train --resume %s", k.GetEpoch(), err, s.folder.dir)
		}
		if k == best {
			if err := s.folder.markBest(path); err != nil {
				return err
			}
		}
	}
	if last != nil {
		if err := s.folder.keepFrom(int(last.GetEpoch())); err != nil {
			return err
		}
	}
	s.history.Message = fmt.Sprintf("%d epochs in sweep %s", s.history.last(), s.plan.sweep)
	switch wire.Status(t.GetStatus()) {
	case trial.Finished:
		return nil
	case trial.Stopped:
		s.history.Message += ", stopped: " + t.GetStopReason()
		return nil
	}
	f := &Failure{Class: trainerproto.FailedCrashed, Message: t.GetFailure(), Remote: true}
	if runs := t.GetRuns(); len(runs) > 0 {
		end := runs[len(runs)-1]
		f.Class = wire.Exit(end.GetExit()).String()
		if f.Message == "" {
			f.Message = end.GetMessage()
		}
	}
	if wire.Status(t.GetStatus()) == trial.Cancelled {
		f.Class, f.Message = "cancelled", "sweep "+s.plan.sweep+" was cancelled"
	}
	return f
}

// ended tells of a sweep that ended before its trial began.
func (s *session) ended(ctx context.Context, c Cluster) error {
	sweep, err := c.API.Sweep(ctx, s.plan.sweep)
	if err != nil {
		return err
	}
	status := wire.SweepStatus(sweep.GetStatus()).String()
	return &Failure{Class: status, Message: fmt.Sprintf("sweep %s ended before its trial began: %s %s", s.plan.sweep, status, sweep.GetFailure()), Remote: true}
}

// drawSheets draws the sample sheets here, if a trainer and the images are at
// hand.
func (s *session) drawSheets(ctx context.Context) {
	p := s.plan
	if p.again || s.o.Trainer == "" || p.Data[0].Folder == nil {
		if !p.again {
			s.result.warn("no " + SheetsDir + ": drawing them takes an atelier-trainer and the images on this machine")
		}
		return
	}
	job, err := json.Marshal(trainerproto.Job{Protocol: trainerproto.Version, Seed: p.Seed, Params: []byte("{}"), Training: p.Training,
		BaseDir: p.BaseDir, CacheDir: p.CacheDir, SheetsDir: s.folder.path(SheetsDir)})
	if err == nil {
		_, err = ask(ctx, s.o.Trainer, append(job, '\n'), "sheets")
	}
	if err != nil && ctx.Err() == nil {
		s.result.warn("no " + SheetsDir + ": " + err.Error())
	}
}
