package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"atelier/common/metadata"
)

// All six modes on a model trained here: every file the runbook lists is there
// and opens, bad images are counted and named, mistakes of the asker are
// explained.
func TestInferenceModes(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	data, model := trained(t, ctx, dir, trainer)
	best := filepath.Join(model, "best_model.pth")
	results := filepath.Join(model, "results")
	infer := func(args ...string) (stdout, stderr string, code int) {
		return atelier(t, ctx, nil, append([]string{"infer", "--trainer-bin", trainer, "--checkpoint", best, "--set", "processing.threads=1"}, args...)...)
	}
	ok := func(args ...string) string {
		t.Helper()
		_, stderr, code := infer(args...)
		if code != 0 {
			t.Fatalf("infer %v: exit %d: %s", args, code, stderr)
		}
		return stderr
	}
	opens := func(path string) {
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
			err = json.NewDecoder(f).Decode(new(map[string]any))
		case ".npy":
			b := make([]byte, 6)
			if _, err = f.Read(b); err == nil && string(b) != "\x93NUMPY" {
				t.Errorf("%s begins with %q", path, b)
			}
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
	charts := func(pattern string) int {
		t.Helper()
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			opens(f)
		}
		return len(files)
	}

	stdout, stderr, code := infer("--image_dir", filepath.Join(data, "test"))
	if code != 0 || stdout != results+"\n" || !strings.Contains(stderr, "accuracy") {
		t.Fatalf("evaluate: exit %d, %q: %s", code, stdout, stderr)
	}
	for _, name := range []string{"evaluation_results.json", "evaluation_summary.txt", "confusion_matrix.png", "class_accuracy.png", "comprehensive_analysis.png",
		"per_class_metrics.png", "train_history.png", "confusion_matrix.svg", "train_history.svg", "classification_report.txt"} {
		opens(filepath.Join(results, name))
	}
	var doc struct {
		Accuracy    float64
		Samples     int `json:"num_samples"`
		Predictions []struct{ Correct bool }
	}
	b, err := os.ReadFile(filepath.Join(results, "evaluation_results.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &doc))
	h, err := readHistory(model)
	must(t, err)
	if doc.Samples != 24 || h.TestAcc == nil || doc.Accuracy < *h.TestAcc-1e-6 || doc.Accuracy > *h.TestAcc+1e-6 {
		t.Errorf("accuracy %v of %d images, the training measured %v", doc.Accuracy, doc.Samples, h.TestAcc)
	}
	wrong := 0
	for _, p := range doc.Predictions {
		if !p.Correct {
			wrong++
		}
	}

	ok("--mode", "explain_misclassifications", "--set", "explain_misclassifications_mode.limit=100")
	if n := charts(filepath.Join(results, "misclassifications", "*_as_*.png")); n != wrong {
		t.Errorf("%d pictures of %d mistakes", n, wrong)
	}

	single := filepath.Join(dir, "single")
	house := filepath.Join(data, "test", "gothic")
	files, err := os.ReadDir(house)
	must(t, err)
	ok("--mode", "explain_single", "--image", filepath.Join(house, files[0].Name()), "--true-class", "gothic", "--output_dir", single, "--set", "outputs.gradcam_heatmaps.raw=true")
	for _, pattern := range []string{"gradcam_*.png", "class_comparison_*.png", "gradcam_*.npy"} {
		if n := charts(filepath.Join(single, pattern)); n != 1 {
			t.Errorf("%d files %s", n, pattern)
		}
	}

	// A folder as people have them: files that are no images among good ones, names
	// that lead out of folders, a bomb.
	mixed := filepath.Join(dir, "mixed")
	must(t, os.CopyFS(mixed, os.DirFS(house)))
	must(t, os.WriteFile(filepath.Join(mixed, "notes.jpg"), []byte("these are not the pictures\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(mixed, "bomb..gif"), []byte("GIF89a\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;"), 0o644))
	must(t, os.WriteFile(filepath.Join(mixed, "half.png"), []byte("\x89PNG\r\n\x1a\n\x00\x00"), 0o644))
	batch := filepath.Join(dir, "batch")
	said := ok("--mode", "explain_batch", "--image-dir", mixed, "--output-dir", batch)
	if !strings.Contains(said, "8 images") || !strings.Contains(said, "3 skipped") {
		t.Errorf("explain_batch: %s", said)
	}
	log, err := os.ReadFile(filepath.Join(batch, "inference.log"))
	must(t, err)
	for _, name := range []string{"notes.jpg", "bomb..gif", "half.png"} {
		if !strings.Contains(string(log), name) {
			t.Errorf("%s is not named in the log:\n%s", name, log)
		}
	}
	if n := charts(filepath.Join(batch, "heatmaps", "*.png")); n != 8 {
		t.Errorf("%d heat maps", n)
	}

	plain := filepath.Join(dir, "plain")
	ok("--mode", "inference", "--image-dir", mixed, "--output-dir", plain)
	table, err := os.ReadFile(filepath.Join(plain, "predictions.csv"))
	must(t, err)
	if n := strings.Count(string(table), "\n"); n != 9 || !strings.Contains(string(table), "colonial,gothic,modernist") {
		t.Errorf("predictions.csv:\n%s", table)
	}

	// Everything is suspicious to a threshold that nothing meets.
	prod := filepath.Join(dir, "prod")
	ok("--mode", "production", "--image-dir", filepath.Join(data, "test"), "--output-dir", prod, "--set", "production_mode.run_evaluation=true",
		"--set", "quality_metrics.thresholds.min_concentration=0.99", "--set", "outputs.gradcam_heatmaps.save_suspicious_only=true")
	for _, name := range []string{"inference_metadata.jsonl", "inference_report.txt", "inference.log", "evaluation_results.json"} {
		opens(filepath.Join(prod, name))
	}
	if n := charts(filepath.Join(prod, "suspicious", "*_FLAGGED.png")); n != 24 {
		t.Errorf("%d flagged pictures", n)
	}
	f, err := os.Open(filepath.Join(prod, "inference_metadata.jsonl"))
	must(t, err)
	defer f.Close()
	stats, err := metadata.Query{Suspicious: true}.Each(f, func(r metadata.Record) error {
		opens(filepath.Join(prod, r.Heatmap))
		if q := r.Quality; q == nil || q.Full < 0.3 || q.Concentration <= 0 || q.Coverage <= 0 {
			t.Errorf("%s: %+v", r.Image, q)
		}
		return nil
	})
	if err != nil || stats.Matched != 24 || stats.Bad != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	if stdout, _, _ := atelier(t, ctx, nil, "metadata", "query", f.Name(), "--suspicious", "-o", "csv"); strings.Count(stdout, "\n") != 25 {
		t.Errorf("metadata query:\n%s", stdout)
	}

	strange := filepath.Join(dir, "strange")
	must(t, os.CopyFS(filepath.Join(strange, "igloo"), os.DirFS(house)))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"missing checkpoint": {[]string{"--checkpoint", filepath.Join(dir, "modle", "best_model.pth")}, best},
		"no images":          {[]string{"--image-dir", results, "--set", "processing.extensions=[.webp]"}, ".png"},
		"other classes":      {[]string{"--image-dir", strange}, "not classes of the model"},
		"no such folder":     {[]string{"--image-dir", filepath.Join(dir, "none")}, "facades"},
		"a text as picture":  {[]string{"--mode", "explain_single", "--image", filepath.Join(mixed, "notes.jpg")}, "text"},
		"mode":               {[]string{"--mode", "evalute"}, "did you mean evaluate"},
		"true class":         {[]string{"--mode", "explain_single", "--image", filepath.Join(house, files[0].Name()), "--true-class", "barn"}, "barn"},
		"not a checkpoint":   {[]string{"--checkpoint", filepath.Join(results, "confusion_matrix.png")}, "confusion_matrix.png"},
	} {
		if _, stderr, code := infer(c.args...); code == 0 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, want %q in: %s", name, code, c.want, stderr)
		}
	}
}

// What people type first: the folder of a training in place of its model, the root
// of a split in place of its test images, mistakes to be explained before anything
// was evaluated.
func TestInferenceMeetsPeople(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	data, model := trained(t, ctx, dir, trainer)
	out := filepath.Join(dir, "out")
	_, stderr, code := atelier(t, ctx, nil, "infer", "--trainer-bin", trainer, "--checkpoint", model, "--image-dir", data, "--mode", "explain_misclassifications", "--output-dir", out, "--no-mlflow")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	best, test := filepath.Join(model, "best_model.pth"), filepath.Join(data, "test")
	for _, want := range []string{"is a folder: taking " + best + " (test accuracy ", data + " is split into parts: evaluated on " + test, "accuracy ", "Look at:", "Next:\n", "atelier serve --checkpoint " + best} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in: %s", want, stderr)
		}
	}
	var doc struct {
		Samples int `json:"num_samples"`
		Correct int `json:"num_correct"`
	}
	b, err := os.ReadFile(filepath.Join(out, "evaluation_results.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &doc))
	explained, _ := filepath.Glob(filepath.Join(out, "misclassifications", "*_as_*.png"))
	if doc.Samples != 24 || len(explained) != min(doc.Samples-doc.Correct, 20) {
		t.Errorf("%d of %d images were recognised, %d mistakes explained", doc.Correct, doc.Samples, len(explained))
	}
	// An evaluation of another model in that folder has other mistakes.
	other := regexp.MustCompile(`"epoch": \d+`).ReplaceAll(b, []byte(`"epoch": 99`))
	must(t, os.WriteFile(filepath.Join(out, "evaluation_results.json"), other, 0o644))
	if _, stderr, code := atelier(t, ctx, nil, "infer", "--trainer-bin", trainer, "--checkpoint", model, "--mode", "explain_misclassifications", "--output-dir", out, "--no-mlflow"); code == 0 || !strings.Contains(stderr, "is an evaluation of another model (vanilla, epoch 99, 32 px") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// trained draws a data set and trains a small model on it.
func trained(t *testing.T, ctx context.Context, dir, trainer string) (data, model string) {
	t.Helper()
	data, model = filepath.Join(dir, "facades"), filepath.Join(dir, "model")
	if _, stderr, code := atelier(t, ctx, nil, "data", "synth", data, "--train", "30", "--validation", "8", "--test", "8", "--size", "40",
		"--style", "gothic", "--style", "modernist", "--style", "colonial"); code != 0 {
		t.Fatalf("data synth: exit %d: %s", code, stderr)
	}
	if _, stderr, code := atelier(t, ctx, nil, "train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "3", "--lr", "0.003", "--no-mlflow",
		"--set", "image_size=32", "--set", "threads=1", "--out", model, "-q"); code != 0 {
		t.Fatalf("train: exit %d: %s", code, stderr)
	}
	return data, model
}
