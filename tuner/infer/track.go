package infer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/inference"
	"atelier/common/mlflow"
	"atelier/common/setting"
	"atelier/tuner/session"
	"atelier/tuner/track"
)

// flushFor is how long the end of an inference waits for a tracking server.
const flushFor = 20 * time.Second

// Tracking writes one run of inference into MLflow: settings as parameters,
// figures as metrics, the files as artifacts. It fails no inference: what goes
// wrong is told. A nil Tracking does nothing.
type Tracking struct {
	store mlflow.Store
	run   *mlflow.Run
	tell  func(string)
	began time.Time
}

// Experiment is the name of the experiment a mode's runs belong to.
func Experiment(mode string) string {
	if strings.HasPrefix(mode, "explain_") {
		return track.ExplainabilityExperiment
	}
	return track.EvaluationExperiment
}

// RunName names a run by its mode and the folder of its checkpoint.
func RunName(mode, checkpoint string) string {
	name := filepath.Base(filepath.Dir(checkpoint))
	if name == "." || name == string(filepath.Separator) {
		name = strings.TrimSuffix(filepath.Base(checkpoint), filepath.Ext(checkpoint))
	}
	return mode + "_" + name
}

// Track begins the MLflow run of a configuration, nil where it switches
// tracking off or the run cannot be made. An error means that nothing can be
// written at the place it names. base is where relative paths start.
func Track(ctx context.Context, c *setting.Config, base string, warn func(string)) (*Tracking, error) {
	store, err := track.Open(c, base, "atelier infer", warn)
	if store == nil {
		return nil, err
	}
	mode, checkpoint := c.String("mode"), c.String("model.checkpoint")
	experiment := c.String(track.KeyExperiment)
	if experiment == "" {
		experiment = Experiment(mode)
	}
	stage := "evaluation"
	if Experiment(mode) == track.ExplainabilityExperiment {
		stage = "explainability"
	}
	t := &Tracking{store: store, tell: warn, began: time.Now()}
	t.run, err = store.StartRun(ctx, mlflow.RunSpec{Experiment: experiment, Name: RunName(mode, setting.Absolute(base, checkpoint)), Start: t.began,
		Tags: map[string]string{"mode": mode, "stage": stage, "checkpoint": checkpoint}})
	if err != nil {
		warn(fmt.Sprintf("this inference is not tracked: %v", err))
		store.Close(ctx) // nothing was written
		return nil, nil
	}
	params := map[string]string{}
	for _, v := range c.All() {
		if v.Data != nil && !strings.HasPrefix(v.Key, "mlflow.") {
			params[v.Key] = v.Text()
		}
	}
	t.note(t.run.Params(params))
	return t, nil
}

func (t *Tracking) note(err error) {
	if err != nil {
		t.tell("MLflow: " + err.Error())
	}
}

// End writes what came of it, out or the error that ended it, and waits a while
// for a server. The lines say how to look at it.
func (t *Tracking) End(out *inference.Summary, failed error) (hint []string) {
	if t == nil {
		return nil
	}
	status, word := mlflow.Finished, "finished"
	switch {
	case errors.Is(failed, session.ErrInterrupted):
		status, word = mlflow.Killed, "interrupted"
	case failed != nil:
		status, word = mlflow.Failed, "failed"
	}
	t.note(t.run.Tag("status", word))
	t.note(t.run.Metric("runtime_seconds", time.Since(t.began).Seconds(), 0, time.Time{}))
	if out != nil {
		t.note(t.run.Tag("model", out.Architecture))
		t.note(t.run.Tag("output_dir", out.Dir))
		for _, name := range slices.Sorted(maps.Keys(out.Figures)) {
			t.note(t.run.Metric(name, out.Figures[name], 0, time.Time{}))
		}
		for _, name := range append(slices.Clone(out.Files), out.Drawn...) {
			t.artifact(out.Dir, name)
		}
	}
	t.note(t.run.End(status, time.Time{}))
	// Not the inference's context: that may have been interrupted.
	ctx, cancel := context.WithTimeout(context.Background(), flushFor)
	defer cancel()
	t.note(t.store.Close(ctx))
	return t.store.Hint()
}

// artifact keeps a file of the output folder in the same place below artifacts.
func (t *Tracking) artifact(dir, name string) {
	if !filepath.IsLocal(name) {
		return
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		return
	}
	folder := filepath.ToSlash(filepath.Dir(filepath.FromSlash(name)))
	if folder == "." {
		folder = ""
	}
	t.note(t.run.Artifact(path, folder))
}
