package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/inference"
)

// A ResNet at 64 px has maps of 2 x 2 cells: every mode and the web app say that
// they mean nothing, and none flags a prediction by them.
func TestCoarseMapsFlagNothing(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	data, model := filepath.Join(dir, "facades"), filepath.Join(dir, "model")
	if _, stderr, code := atelier(t, ctx, nil, "data", "synth", data, "--train", "4", "--validation", "2", "--test", "2", "--size", "64", "--style", "gothic", "--style", "modernist"); code != 0 {
		t.Fatalf("data synth: exit %d: %s", code, stderr)
	}
	if _, stderr, code := atelier(t, ctx, nil, "train", "--trainer-bin", trainer, "--model", "resnet18", "--data", data, "--epochs", "1", "--no-mlflow",
		"--set", "image_size=64", "--set", "threads=1", "--out", model, "-q"); code != 0 {
		t.Fatalf("train: exit %d: %s", code, stderr)
	}
	const note = "map of 2 x 2 cells: too coarse to mean anything; train with image_size=224"
	results := filepath.Join(dir, "results")
	image := filepath.Join(data, "test", "gothic")
	files, err := os.ReadDir(image)
	must(t, err)
	for _, mode := range inference.Modes() {
		_, stderr, code := atelier(t, ctx, nil, "infer", "--trainer-bin", trainer, "--checkpoint", filepath.Join(model, "best_model.pth"), "--mode", mode, "--image-dir", filepath.Join(data, "test"),
			"--image", filepath.Join(image, files[0].Name()), "--output-dir", results, "--set", "quality_metrics.thresholds.min_concentration=0.99", "--no-mlflow")
		if code != 0 {
			t.Fatalf("%s: exit %d: %s", mode, code, stderr)
		}
		if mode != inference.Evaluate && !strings.Contains(stderr, note) || strings.Contains(stderr, " suspicious") {
			t.Errorf("%s says: %s", mode, stderr)
		}
		for _, name := range map[string][]string{inference.Evaluate: {inference.ResultsFile, "evaluation_summary.txt"}, inference.Plain: {inference.ReportFile}, inference.Production: {inference.ReportFile}}[mode] {
			if b, err := os.ReadFile(filepath.Join(results, name)); err != nil || !strings.Contains(string(b), note) || strings.Contains(string(b), "low_concentration") {
				t.Errorf("%s: %v\n%s", name, err, b)
			}
		}
		if mode == inference.Production {
			b, err := os.ReadFile(filepath.Join(results, inference.MetadataFile))
			must(t, err)
			if n := strings.Count(string(b), `"map_cells":{"width":2,"height":2}`); n != 4 || strings.Contains(string(b), `"suspicious":true`) || strings.Contains(string(b), "low_concentration") {
				t.Errorf("metadata:\n%s", b)
			}
		}
	}
	app := served(t, trainer, model)
	house, err := os.ReadFile(filepath.Join(image, files[0].Name()))
	must(t, err)
	status, b, err := app.ask("", "house.jpg", house)
	must(t, err)
	var answer inference.Answer
	must(t, json.Unmarshal(b, &answer))
	if status != 200 || answer.Suspicious || len(answer.Flags) > 0 || answer.Model.MapNote != note || answer.Model.Map.Width != 2 {
		t.Errorf("the web app answers %d %+v", status, answer)
	}
}
