package train_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/mlflow"
)

// A tracked training lies in mlruns/: settings, reports, what it came to, its
// files. Going on goes on with the same run, and no report is there twice.
func TestTracking(t *testing.T) {
	base := folders(t)
	r, err := local(t, t.Context(), plan(t, base, "mlflow.enabled=true"), "abort@4", nil)
	if err == nil {
		t.Fatal("did not fail")
	}
	store := func() mlflow.Store {
		s, err := mlflow.Open("", mlflow.Options{Dir: base})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(context.Background()) })
		return s
	}
	only := func() mlflow.RunInfo {
		t.Helper()
		runs, err := store().FindRuns(t.Context(), "architectural-style-training", map[string]string{"model": "vanilla"})
		if err != nil || len(runs) != 1 {
			t.Fatalf("%d runs, %v", len(runs), err)
		}
		return runs[0]
	}
	first := only()
	if first.Status != mlflow.Failed || first.Name != filepath.Base(r.Folder) {
		t.Errorf("after a crash: %+v", first)
	}
	// As if epoch 3 had been tracked by a session that was killed before its
	// checkpoint was there: it is done again, and not written again.
	if err := os.Rename(filepath.Join(r.Folder, "resume/epoch-0003-run-1.pth"), filepath.Join(r.Folder, "resume/epoch-0002-run-1.pth")); err != nil {
		t.Fatal(err)
	}
	if r, err = local(t, t.Context(), resume(t, base, r.Folder), "", nil); err != nil {
		t.Fatal(err)
	}
	run := only()
	if run.ID != first.ID || run.Status != mlflow.Finished || run.Tags["status"] != "finished" {
		t.Errorf("after going on: %+v", run)
	}
	s := store()
	points, err := s.History(t.Context(), run.ID, "val_loss")
	var steps []int64
	for _, p := range points {
		steps = append(steps, p.Step)
	}
	if err != nil || !slices.Equal(steps, []int64{1, 2, 3, 4, 5}) || points[2].Value != 0.5 {
		t.Errorf("val_loss %+v, %v", points, err)
	}
	params, err := s.Params(t.Context(), run.ID)
	if err != nil || params["model"] != "vanilla" || params["epochs"] != "5" || params["augmentation.cutmix.enabled"] != "false" || params["seed"] != "42" {
		t.Errorf("params %v, %v", params, err)
	}
	for _, key := range []string{"best_val_loss", "best_epoch", "test_acc", "system/system_memory_usage_megabytes", "system/max_memory_used_gb"} {
		if points, err := s.History(t.Context(), run.ID, key); err != nil || len(points) == 0 {
			t.Errorf("%s: %v, %v", key, points, err)
		}
	}
	for folder, want := range map[string][]string{"checkpoints": {"best_model.pth", "final_model.pth"}, "image_batches": {"gothic.png"}} {
		if names, err := s.Artifacts(t.Context(), run.ID, folder); err != nil || !slices.Equal(names, want) {
			t.Errorf("artifacts in %s: %v, %v", folder, names, err)
		}
	}
	if len(r.Hint) == 0 || !strings.Contains(strings.Join(r.Hint, "\n"), "mlflow ui") {
		t.Errorf("hint %q", r.Hint)
	}
}

// A server that is down, or refuses everything, costs a warning and no
// training; an invalid place is refused before anything starts.
func TestTrackingFailsNoTraining(t *testing.T) {
	base := folders(t)
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	r, err := local(t, t.Context(), plan(t, base, "mlflow.enabled=true", "mlflow.tracking_uri="+server.URL), "", nil)
	if err != nil || r.History.Status != "finished" || len(r.Warnings()) < 2 {
		t.Errorf("%v, %q", err, r.Warnings())
	}
	p := plan(t, base, "mlflow.enabled=true", "mlflow.tracking_uri=sqlite:///x.db", "checkpoints_dir=other")
	if r, err := local(t, t.Context(), p, "", nil); err == nil || r != nil || !strings.Contains(err.Error(), "mlflow.tracking_uri (--set mlflow.tracking_uri): ") || !strings.Contains(err.Error(), "--no-mlflow") {
		t.Errorf("no such kind of store: %v", err)
	}
	if _, err := os.Stat(filepath.Join(base, "other")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a folder was made for a training that could not begin")
	}
}
