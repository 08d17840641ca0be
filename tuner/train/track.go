package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"atelier/common/mlflow"
	"atelier/common/sysmetrics"
	"atelier/common/trainerproto"
	"atelier/tuner/track"
)

// tracker writes a training into MLflow: settings as parameters, reports and
// the machine's load as metrics, the folder's files as artifacts. It fails no
// training: what goes wrong is told. A nil tracker does nothing.
type tracker struct {
	store mlflow.Store
	run   *mlflow.Run
	tell  func(string)
	known map[int64]bool // epochs an earlier session has written
	step  int64          // of the machine's next reading

	mu      sync.Mutex
	summary sysmetrics.Summary
}

// machineMetric tells which readings of the machine an earlier session has written.
const machineMetric = "system/system_memory_usage_megabytes"

// flushFor is how long the end of a training waits for a tracking server.
const flushFor = 20 * time.Second

// startTracker starts the MLflow run of a training, or takes an earlier
// session's up again. Without a store, or where the run cannot be made, it is
// nil.
func startTracker(ctx context.Context, store mlflow.Store, p *Plan, folder string, began time.Time, warn func(string)) *tracker {
	if store == nil {
		return nil
	}
	var err error
	id := p.trackedRun
	t := &tracker{store: store, tell: warn, known: map[int64]bool{}}
	spec := mlflow.RunSpec{Experiment: p.Config.String(track.KeyExperiment), Name: filepath.Base(folder), Start: began, RunID: id,
		Tags: map[string]string{"model": p.Settings.Model, "stage": "training", "folder": folder}}
	if t.run, err = store.StartRun(ctx, spec); err != nil && id != "" {
		warn(fmt.Sprintf("MLflow run %s cannot be resumed, a new one is made: %v", id, err))
		spec.RunID, id = "", ""
		t.run, err = store.StartRun(ctx, spec)
	}
	if err != nil {
		warn(fmt.Sprintf("this training is not tracked: %v", err))
		store.Close(ctx) // nothing was written
		return nil
	}
	if id == "" {
		params := map[string]string{}
		for _, v := range p.Config.All() {
			if v.Data != nil {
				params[v.Key] = v.Text()
			}
		}
		t.note(t.run.Params(params))
	} else {
		asking, cancel := context.WithTimeout(ctx, flushFor)
		// What a killed session left for a server counts too.
		var points, load []mlflow.Point
		if err = store.Ready(asking); err == nil {
			points, err = store.History(asking, id, "val_loss")
		}
		if err == nil {
			load, err = store.History(asking, id, machineMetric)
		}
		cancel()
		t.note(err)
		for _, x := range points {
			t.known[x.Step] = true
		}
		for _, x := range load {
			t.step = max(t.step, x.Step+1)
		}
	}
	return t
}

// machine reads what this machine does until stop is called.
func (t *tracker) machine(ctx context.Context, folder string) (stop func()) {
	if t == nil {
		return func() {}
	}
	step := t.step
	return sysmetrics.Start(ctx, sysmetrics.Every, sysmetrics.Options{Disk: folder}, func(s sysmetrics.Sample) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.summary.Add(s)
		for _, v := range s.Series() {
			t.run.Metric(v.Name, v.Value, step, s.Time) // its error would be a name's fault, which a test of the names would show
		}
		step++
	})
}

// leave ends the writing, not the run: it goes on elsewhere.
func (t *tracker) leave() {
	if t != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushFor)
		defer cancel()
		t.note(t.store.Close(ctx))
	}
}

func (t *tracker) note(err error) {
	if err != nil {
		t.tell("MLflow: " + err.Error())
	}
}

// id is the run's, once MLflow has one.
func (t *tracker) id() string {
	if t == nil {
		return ""
	}
	return t.run.ID()
}

// epoch writes a report.
func (t *tracker) epoch(epoch int, metrics trainerproto.Metrics, seconds float64) {
	if t == nil || t.known[int64(epoch)] {
		return
	}
	for _, m := range append(metrics[:len(metrics):len(metrics)], trainerproto.Metric{Name: "epoch_seconds", Value: seconds}) {
		t.note(t.run.Metric(m.Name, m.Value, int64(epoch), time.Time{}))
	}
}

// end writes what a training came to and waits a while for a server.
func (t *tracker) end(h *History, f folder) (hint []string) {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	for _, v := range t.summary.Values() {
		t.note(t.run.Metric(v.Name, v.Value, int64(h.last()), time.Time{}))
	}
	t.mu.Unlock()
	final := map[string]Number{"runtime_seconds": Number(h.Runtime)}
	if h.BestEpoch > 0 {
		final["best_epoch"], final["best_val_loss"], final["best_val_acc"] = Number(h.BestEpoch), h.BestValLoss, h.BestValAcc
	}
	if h.TestImages > 0 {
		final["test_loss"], final["test_acc"] = h.TestLoss, h.TestAcc
	}
	for _, name := range []string{"runtime_seconds", "best_epoch", "best_val_loss", "best_val_acc", "test_loss", "test_acc"} {
		if v, ok := final[name]; ok {
			t.note(t.run.Metric(name, float64(v), int64(h.last()), time.Time{}))
		}
	}
	t.note(t.run.Tag("status", h.Status))
	for _, name := range []string{HistoryFile, DiagnosticsFile, CurveFile} {
		t.artifact(f.Path(name), "")
	}
	for _, name := range []string{BestFile, FinalFile} {
		t.artifact(f.Path(name), "checkpoints")
	}
	sheets, err := os.ReadDir(f.Path(SheetsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.note(err)
	}
	for _, e := range sheets {
		t.artifact(f.Path(SheetsDir, e.Name()), SheetsDir)
	}
	status := map[string]mlflow.Status{Finished: mlflow.Finished, Interrupted: mlflow.Killed}[h.Status]
	if status == 0 {
		status = mlflow.Failed
	}
	t.note(t.run.End(status, time.Time{}))
	// Not the training's context: that may have been interrupted.
	ctx, cancel := context.WithTimeout(context.Background(), flushFor)
	defer cancel()
	t.note(t.store.Close(ctx))
	return t.store.Hint()
}

func (t *tracker) artifact(path, folder string) {
	if _, err := os.Stat(path); err == nil {
		t.note(t.run.Artifact(path, folder))
	}
}
