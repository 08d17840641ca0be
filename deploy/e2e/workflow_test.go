package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/metadata"
)

// The runbook's whole workflow, as deploy/docs/workflow.sh types it, on real
// images where they lie beside the project, else on drawn ones, in small:
// every file it promises is there and opens.
func TestWorkflow(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	const key = "a0b1c2d3e4f5-not-to-be-seen"
	searches := 0
	serp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/account.json" || r.URL.Query().Get("api_key") != key {
			searches++
			http.Error(w, `{"error":"a dry run asks for nothing but the quota"}`, http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, `{"total_searches_left":77,"account_rate_limit_per_hour":50,"this_hour_searches":3}`)
	}))
	defer serp.Close()

	dir := t.TempDir()
	work := filepath.Join(dir, "work")
	cmd := exec.CommandContext(ctx, "../docs/workflow.sh")
	cmd.Env = append(os.Environ(), "ATELIER="+filepath.Join(bin, "atelier"), "ATELIER_TRAINER_BIN="+trainer, "WORK="+work, "MODELS=vanilla", "EPOCHS=2", "IMAGE_SIZE=32", "BATCH_SIZE=16",
		"LR=0.003", "EXPLAIN=3", "DRAW=24", "TUNE_FLAGS=--quick --set quick.trials=3 --set quick.epochs=1 --set local.slots=cpu:1 --set local.redis=off --set space.batch_size.choices=[16]",
		"SERPAPI_API_KEY="+key, "SERPAPI_ENDPOINT="+serp.URL, "CLASSES=gothic tudor", "SCRAPE_FLAGS=--dry-run",
		"XDG_CACHE_HOME="+filepath.Join(dir, "cache"), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	real := "../../../shared/data/building-styles"
	want := 8 * 24
	if _, err := os.Stat(real); err == nil {
		cmd.Env = append(cmd.Env, "IMAGES="+real)
		want = 236
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("workflow.sh: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "77 left this month") || searches > 0 {
		t.Errorf("the dry run of the search: %d searches\n%s", searches, out)
	}

	for _, name := range []string{"cleanup.json", "pictures/split.json", "pictures.png", "pictures.json", "low_confidence.csv"} {
		whole(t, filepath.Join(work, name))
	}
	var info struct {
		Images int
		Kind   string
		Parts  []struct {
			Part   string
			Images int
		}
	}
	b, err := os.ReadFile(filepath.Join(work, "pictures.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &info))
	if _, err := os.Stat(real); err != nil {
		want = info.Images // as many as there are styles
	}
	if info.Kind != "split" || info.Images != want || len(info.Parts) != 3 || info.Parts[0].Images < info.Images*6/10 {
		t.Errorf("%+v, want %d pictures", info, want)
	}
	if packs, _ := filepath.Glob(filepath.Join(work, "packs", "*32px*.pack")); len(packs) < 2 {
		t.Errorf("packed sets: %v", packs)
	}

	model := filepath.Join(work, "checkpoints", "vanilla_ep2_bs16_lr0.003")
	for _, folder := range []string{model, filepath.Join(work, "final")} {
		for _, name := range []string{"best_model.pth", "final_model.pth", "training_history.json", "training_diagnostics.txt"} {
			whole(t, filepath.Join(folder, name))
		}
		if n := every(t, filepath.Join(folder, "image_batches", "*.png")); n < 2 {
			t.Errorf("%s: %d sheets of augmented images", folder, n)
		}
	}
	results := filepath.Join(model, "results")
	for _, name := range []string{"evaluation_results.json", "evaluation_summary.txt", "confusion_matrix.png", "class_accuracy.png", "comprehensive_analysis.png", "per_class_metrics.png",
		"train_history.png", "classification_report.txt", "inference_metadata.jsonl", "inference_report.txt", "inference.log"} {
		whole(t, filepath.Join(results, name))
	}
	if n := every(t, filepath.Join(results, "misclassifications", "*_as_*.png")); n < 1 || n > 3 {
		t.Errorf("%d mistakes explained, want 1 to 3", n)
	}
	f, err := os.Open(filepath.Join(results, "inference_metadata.jsonl"))
	must(t, err)
	defer f.Close()
	stats, err := metadata.Query{}.Each(f, func(metadata.Record) error { return nil })
	if err != nil || int(stats.Matched) != info.Parts[2].Images || stats.Bad != 0 {
		t.Errorf("metadata of %+v, %v; %d pictures to test on", stats, err, info.Parts[2].Images)
	}

	tuned := filepath.Join(work, "checkpoints_tuning", "vanilla", "bayesian")
	for _, name := range []string{"tuning_results.json", "diagnostics_summary.txt", "trials/trial_0001/trial.json", "trials/trial_0003/best_model.pth"} {
		whole(t, filepath.Join(tuned, name))
	}
	if n := every(t, filepath.Join(tuned, "*.png")); n < 5 { // of seven; few trials say nothing of importance
		t.Errorf("%d charts of the tuning", n)
	}
	for _, experiment := range []string{"architectural-style-training", "architectural-style-tuning"} {
		found := false
		metas, _ := filepath.Glob(filepath.Join(work, "mlruns", "*", "meta.yaml"))
		for _, m := range metas {
			b, err := os.ReadFile(m)
			must(t, err)
			runs, _ := filepath.Glob(filepath.Join(filepath.Dir(m), "*", "meta.yaml"))
			found = found || strings.Contains(string(b), "name: "+experiment) && len(runs) > 0
		}
		if !found {
			t.Errorf("mlruns has no runs of %s", experiment)
		}
	}

	// The key is in no output and in no file.
	if strings.Contains(string(out), key) {
		t.Error("the key was printed")
	}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), key) {
			t.Errorf("the key is in %s", path)
		}
		return err
	}))
}

// whole reports whether a file is there and opens as what its name says.
func whole(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	switch filepath.Ext(path) {
	case ".png":
		_, err = png.Decode(bufio.NewReader(f))
	case ".json":
		err = json.NewDecoder(f).Decode(new(any))
	default:
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && st.Size() == 0 {
			t.Errorf("%s is empty", path)
		}
	}
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
}

// every opens all files of a pattern and counts them.
func every(t *testing.T, pattern string) int {
	t.Helper()
	files, _ := filepath.Glob(pattern)
	for _, f := range files {
		whole(t, f)
	}
	return len(files)
}
