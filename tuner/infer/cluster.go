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
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/tuner/session"
)

// Cluster is where and how a run of inference is sent away.
type Cluster struct {
	API   *client.Client
	Files client.Files
	// Model is a checkpoint of the cluster to ask, instead of a file.
	Model *inference.Stored
}

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
	return session.SingleSpec(short("infer "+s.Mode+" "+what, 120), s.Seed, inference.MetricDone, "maximize", "mode", s.Mode,
		inference.Task{Kind: inference.TaskInfer, Settings: doc, Checkpoint: model})
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
		if info, err := os.Stat(setting.Absolute(base, beside)); err != nil || !info.IsDir() {
			return "", fmt.Errorf("results go beside the checkpoint, and there is no folder %s on this machine: give one with --output-dir", beside)
		}
		out = filepath.Join(beside, "results")
	}
	return setting.Absolute(base, out), nil
}

// Remote carries a configuration out on a worker of the cluster and brings the
// results here. When ctx ends first the run is cancelled there.
func Remote(ctx context.Context, c *setting.Config, o Options, cl Cluster) (*inference.Summary, error) {
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
	sweep := made.ID
	for _, w := range warnings {
		o.Warn(w)
	}
	o.say("sweep %s: waiting for a worker", sweep)
	of := session.Single{API: cl.API, ID: sweep}
	ended, err := follow(ctx, of, o)
	if err != nil && ctx.Err() != nil {
		cancelled, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		if _, err := cl.API.Control(cancelled, "cancel-"+sweep, sweep, trial.ActionCancel); err != nil {
			o.Warn(fmt.Sprintf("sweep %s could not be cancelled and may continue: %s", sweep, client.Message(err)))
		} else {
			o.say("sweep %s was cancelled", sweep)
		}
		return nil, session.ErrInterrupted
	}
	if err != nil {
		return nil, err
	}
	return collect(ctx, of, ended, dir, o, cl)
}

// follow shows how far the trial is until its sweep has ended.
func follow(ctx context.Context, of session.Single, o Options) (*trial.Sweep, error) {
	var shown int32
	where := ""
	return of.API.Follow(ctx, of.ID, func(*trial.Sweep) error {
		t, err := of.Trial(ctx)
		if err != nil || t == nil {
			return err
		}
		if run := t.LastRun(); run != nil {
			if now := fmt.Sprintf("%s/%s", run.Worker, run.Slot); now != where {
				if where != "" {
					o.say("sweep %s: starts again on %s", of.ID, now)
				} else {
					o.say("sweep %s: on %s", of.ID, now)
				}
				where = now
			}
		}
		if t.Epoch > shown {
			shown = t.Epoch
			o.progress(ctx, of)
		}
		return nil
	})
}

// progress shows the newest report.
func (o Options) progress(ctx context.Context, of session.Single) {
	reports, err := of.Reports(ctx)
	if err != nil || len(reports) == 0 || o.Progress == nil {
		return // the next one will be shown
	}
	newest := reports[len(reports)-1].Metrics
	done, _ := newest.Get(inference.MetricDone)
	if total, _ := newest.Get(inference.MetricTotal); total > 0 {
		o.Progress("infer", int64(done), int64(total))
	}
}

// collect fetches the results of a trial that has ended, or says why there are
// none.
func collect(ctx context.Context, of session.Single, ended *trial.Sweep, dir string, o Options, cl Cluster) (*inference.Summary, error) {
	t, err := of.Trial(ctx)
	if err != nil {
		return nil, err
	}
	if t == nil || t.Status != trial.Finished {
		return nil, of.Failure(ended, t)
	}
	checkpoints, err := of.Checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range checkpoints {
		if k.Epoch == inference.TaskEpochs {
			out, err := fetch(ctx, &k, dir, o, cl)
			if err != nil {
				return nil, fmt.Errorf("results of sweep %s: %w; they stay on worker %s: atelier checkpoint pull %s", of.ID, err, k.Worker, of.ID)
			}
			return out, nil
		}
	}
	return nil, fmt.Errorf("sweep %s is done, but it left no results; atelier trial logs %s 1 may show why", of.ID, of.ID)
}

// fetch gets a bundle and unpacks it into dir.
func fetch(ctx context.Context, k *trial.Checkpoint, dir string, o Options, cl Cluster) (*inference.Summary, error) {
	o.say("fetching the results, %d KiB", (k.Size+1023)/1024)
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
	note, _, err := bundle.Unpack(in, k.Size, dir)
	if err != nil {
		return nil, err
	}
	var out inference.Summary
	if err := json.Unmarshal(note, &out); err != nil {
		return nil, errors.New("the bundle has no list of its contents")
	}
	out.Dir = dir
	return &out, nil
}
