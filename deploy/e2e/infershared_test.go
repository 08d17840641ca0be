package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// styles are real images that lie beside the repository on some machines.
const styles = "../../../shared/data/building-styles"

// Every mode on real images of buildings, split as people split them: each
// file that a mode promises is there and opens. The model is small and hardly
// trained; what it says does not matter here.
func TestBuildingStyles(t *testing.T) {
	trainer := torch(t)[1]
	if _, err := os.Stat(styles); err != nil {
		t.Skipf("no pictures at %s", styles)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	data, model := filepath.Join(dir, "data"), filepath.Join(dir, "model")
	do := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := atelier(t, ctx, nil, args...)
		if code != 0 {
			t.Fatalf("atelier %s: exit %d: %s", strings.Join(args, " "), code, stderr)
		}
		return stdout
	}
	do("data", "split", styles, data, "--ratios", "0.4,0.5,0.1")
	do("train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "1", "--no-mlflow", "--set", "image_size=32", "--set", "threads=1", "--out", model, "-q")
	test := filepath.Join(data, "test")
	results := filepath.Join(model, "results")
	images, err := filepath.Glob(filepath.Join(test, "*", "*"))
	must(t, err)
	infer := func(args ...string) {
		t.Helper()
		do(append([]string{"infer", "--trainer-bin", trainer, "--checkpoint", filepath.Join(model, "best_model.pth"), "--image_dir", test, "--set", "processing.threads=1", "-q"}, args...)...)
	}
	infer() // evaluate
	infer("--mode", "explain_misclassifications")
	infer("--mode", "explain_single", "--image", images[0])
	infer("--mode", "explain_batch", "--output_dir", filepath.Join(dir, "batch"))
	infer("--mode", "inference", "--output_dir", filepath.Join(dir, "plain"))
	infer("--mode", "production")

	var doc struct {
		Predictions []struct{ Correct bool }
	}
	b, err := os.ReadFile(filepath.Join(results, "evaluation_results.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &doc))
	wrong := 0
	for _, p := range doc.Predictions {
		if !p.Correct {
			wrong++
		}
	}
	wrong = min(wrong, 20) // the configuration's limit
	for _, name := range []string{"evaluation_results.json", "evaluation_summary.txt", "classification_report.txt", "inference_metadata.jsonl", "inference_report.txt", "inference.log"} {
		if info, err := os.Stat(filepath.Join(results, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	stem := strings.TrimSuffix(filepath.Base(images[0]), ".jpg")
	for pattern, want := range map[string]int{
		"model/results/confusion_matrix.png":                        1,
		"model/results/class_accuracy.png":                          1,
		"model/results/per_class_metrics.png":                       1,
		"model/results/comprehensive_analysis.png":                  1,
		"model/results/train_history.png":                           1,
		"model/results/train_history.svg":                           1,
		"model/results/gradcam_" + stem + ".png":                    1,
		"model/results/class_comparison_" + stem + ".png":           1,
		"model/results/misclassifications/*_as_*.png":               wrong,
		"model/results/{heatmaps/*,suspicious/*_FLAGGED}.png":       len(images),
		"batch/heatmaps/*.png":                                      len(images),
		"plain/{heatmaps/*,suspicious/*_FLAGGED}.png":               len(images),
		"model/results/misclassifications/inference_metadata.jsonl": 1,
	} {
		files := braces(t, filepath.Join(dir, pattern))
		if len(files) != want {
			t.Errorf("%s: %d files, want %d", pattern, len(files), want)
		}
		for _, f := range files {
			if filepath.Ext(f) != ".png" {
				continue
			}
			if err := shows(f); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
}

// braces is a glob with one {a,b} in it.
func braces(t *testing.T, pattern string) (files []string) {
	t.Helper()
	before, rest, found := strings.Cut(pattern, "{")
	middle, after, _ := strings.Cut(rest, "}")
	for _, m := range strings.Split(middle, ",") {
		if !found {
			before, after = pattern, ""
		}
		got, err := filepath.Glob(before + m + after)
		must(t, err)
		files = append(files, got...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// shows reports whether an image opens and has something on it.
func shows(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	img, err := png.Decode(bufio.NewReader(f))
	if err != nil {
		return err
	}
	colors := map[[4]uint32]bool{}
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y += 7 {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x += 7 {
			r, g, b, a := img.At(x, y).RGBA()
			colors[[4]uint32{r, g, b, a}] = true
		}
	}
	if len(colors) < 4 {
		return fmt.Errorf("it has %d colours", len(colors))
	}
	return nil
}
