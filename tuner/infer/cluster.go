package infer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"atelier/common/bundle"
	"atelier/common/client"
	"atelier/common/inference"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/tuner/train"

	"connectrpc.com/connect"
)

// Cluster is where and how a run of inference is sent away.
type Cluster struct {
	API   *client.Client
	Files client.Files
	// Model is a checkpoint of the cluster to ask, instead of a file.
	Model *inference.Stored
}

// trialNumber is the only trial of such a sweep.
const trialNumber = 1

// Spec is a configuration as a sweep of one trial. JSON is YAML. model is nil
// where the configuration names a file.
func Spec(c *setting.Config, model *inference.Stored) ([]byte, error) {
	s, doc, err := Settings(c)
	if err != nil {
		return nil, err
	}
	what := "of " + s.Checkpoint
	if model != nil {
		what = fmt.Sprintf("of %s/%d/%d", model.Sweep, model.Trial, model.Epoch)
	}
	type axis struct {
		Type    string   `json:"type"`
		Choices []string `json:"choices"`
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
		Training  inference.Task    `json:"training"`
	}{short("infer "+s.Mode+" "+what, 120), "grid_search", s.Seed, map[string]string{"metric": inference.MetricDone, "direction": "maximize"}, map[string]int{"trials": 1}, 1, "torch",
		map[string]axis{"mode": {"categorical", []string{s.Mode}}}, inference.Task{Kind: inference.TaskInfer, Settings: doc, Checkpoint: model}}, "", "  ")
}

// short keeps the end of a long text, where paths differ.
func short(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:n/2-2]) + "..." + string(r[len(r)-n/2+1:])
}

// OutputDir is where a configuration's results go: paths.output_dir, else
// results/ beside the model file, else results/SWEEP-TRIAL for a checkpoint of
// the cluster.
func OutputDir(c *setting.Config, base string, model *inference.Stored) (string, error) {
	out := c.String("paths.output_dir")
	switch {
	case out != "":
	case model != nil:
		out = filepath.Join("results", fmt.Sprintf("%s-%d", model.Sweep, model.Trial))
	default:
		beside := filepath.Dir(c.String("model.checkpoint"))
		if info, err := os.Stat(absolute(base, beside)); err != nil || !info.IsDir() {
			return "", fmt.Errorf("results go beside the checkpoint, and there is no folder %s on this machine: name one with --output-dir", beside)
		}
		out = filepath.Join(beside, "results")
	}
	return absolute(base, out), nil
}

func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

// Remote carries a configuration out on a worker of the cluster and brings the
// results here. When ctx ends first the run is cancelled there.
func Remote(ctx context.Context, c *setting.Config, o Options, cl Cluster) (*inference.Outcome, error) {
	dir, err := OutputDir(c, o.Dir, cl.Model)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("paths.output_dir: %w", err)
	}
	spec, err := Spec(c, cl.Model)
	if err != nil {
		return nil, err
	}
	made, warnings, err := cl.API.Submit(ctx, client.Submission{Spec: string(spec), Name: "inference", BaseDir: o.Dir})
	if err != nil {
		return nil, err
	}
	sweep := made.GetId()
	for _, w := range warnings {
		o.Warn(w)
	}
	o.say("sweep %s: waiting for a worker", sweep)
	err = follow(ctx, sweep, o, cl.API)
	if err != nil && ctx.Err() != nil {
		cancelled, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		if _, err := cl.API.Sweeps.ControlSweep(cancelled, connect.NewRequest(&v1.ControlSweepRequest{RequestId: "cancel-" + sweep, Id: sweep, Action: wire.ToAction(trial.ActionCancel)})); err != nil {
			o.Warn(fmt.Sprintf("sweep %s could not be cancelled and may go on: %s", sweep, client.Message(err)))
		}
		return nil, train.ErrInterrupted
	}
	if err != nil {
		return nil, err
	}
	return collect(ctx, sweep, dir, o, cl)
}

// follow shows how far the trial is until its sweep has ended.
func follow(ctx context.Context, sweep string, o Options, api *client.Client) error {
	var shown int32
	where := ""
	_, err := api.Follow(ctx, sweep, func(*v1.Sweep) error {
		trial, err := api.Trials.GetTrial(ctx, connect.NewRequest(&v1.GetTrialRequest{SweepId: sweep, Trial: trialNumber}))
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			return err
		}
		if err == nil {
			t := trial.Msg.GetTrial()
			if runs := t.GetRuns(); len(runs) > 0 {
				run := runs[len(runs)-1]
				if now := fmt.Sprintf("%s/%s", run.GetWorker(), run.GetSlot()); now != where {
					if where != "" {
						o.say("sweep %s: begins anew on %s", sweep, now)
					} else {
						o.say("sweep %s: on %s", sweep, now)
					}
					where = now
				}
			}
			if t.GetEpoch() > shown {
				shown = t.GetEpoch()
				o.progress(ctx, sweep, api)
			}
		}
		return nil
	})
	return err
}

// progress shows the newest report.
func (o Options) progress(ctx context.Context, sweep string, api *client.Client) {
	curve, err := api.Trials.GetCurve(ctx, connect.NewRequest(&v1.GetCurveRequest{SweepId: sweep, Trial: trialNumber}))
	if err != nil || len(curve.Msg.GetReports()) == 0 || o.Progress == nil {
		return // the next one will be shown
	}
	var done, total float64
	reports := curve.Msg.GetReports()
	for _, m := range reports[len(reports)-1].GetMetrics() {
		switch m.GetName() {
		case inference.MetricDone:
			done = m.GetValue()
		case inference.MetricTotal:
			total = m.GetValue()
		}
	}
	if total > 0 {
		o.Progress("infer", int64(done), int64(total))
	}
}

// collect fetches the results of a trial that has ended, or says why there are
// none.
func collect(ctx context.Context, sweep, dir string, o Options, cl Cluster) (*inference.Outcome, error) {
	got, err := cl.API.Trials.GetTrial(ctx, connect.NewRequest(&v1.GetTrialRequest{SweepId: sweep, Trial: trialNumber}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil, &train.Failure{Class: "cancelled", Message: fmt.Sprintf("sweep %s ended before its trial began", sweep), Remote: true}
	}
	if err != nil {
		return nil, err
	}
	if t := got.Msg.GetTrial(); wire.Status(t.GetStatus()) != trial.Finished {
		return nil, failure(sweep, t)
	}
	r, err := cl.API.Sweeps.ListCheckpoints(ctx, connect.NewRequest(&v1.ListCheckpointsRequest{Id: sweep, Trial: trialNumber, Source: "state"}))
	if err != nil {
		return nil, err
	}
	for _, k := range r.Msg.GetCheckpoints() {
		if k.GetEpoch() == inference.TaskEpochs {
			out, err := fetch(ctx, k, dir, o, cl)
			if err != nil {
				return nil, fmt.Errorf("results of sweep %s: %w; they stay on worker %s: atelier checkpoint pull %s", sweep, err, k.GetWorker(), sweep)
			}
			return out, nil
		}
	}
	return nil, fmt.Errorf("sweep %s is done, yet it left no results; atelier trial logs %s 1 may say why", sweep, sweep)
}

func failure(sweep string, t *v1.Trial) error {
	f := &train.Failure{Class: "crashed", Message: t.GetFailure(), Remote: true}
	if runs := t.GetRuns(); len(runs) > 0 {
		end := runs[len(runs)-1]
		f.Class = wire.Exit(end.GetExit()).String()
		if end.GetMessage() != "" {
			f.Message = end.GetMessage()
		}
	}
	switch wire.Status(t.GetStatus()) {
	case trial.Cancelled:
		f.Class, f.Message = "cancelled", "sweep "+sweep+" was cancelled"
	case trial.Stopped:
		f.Class, f.Message = "stopped", "sweep "+sweep+" was stopped"
	}
	return f
}

// fetch gets a bundle and unpacks it into dir.
func fetch(ctx context.Context, k *v1.Checkpoint, dir string, o Options, cl Cluster) (*inference.Outcome, error) {
	o.say("fetching the results, %d KiB", (k.GetSize()+1023)/1024)
	tmp, err := os.MkdirTemp(dir, ".fetch-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, inference.BundleFile)
	if err := cl.Files.Pull(ctx, k, file); err != nil {
		return nil, err
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	note, _, err := bundle.Unpack(in, k.GetSize(), dir)
	if err != nil {
		return nil, err
	}
	var out inference.Outcome
	if err := json.Unmarshal(note, &out); err != nil {
		return nil, errors.New("the bundle does not say what is in it")
	}
	out.Dir = dir
	return &out, nil
}
