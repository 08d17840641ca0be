package infer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/inference"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/tuner/infer"
	"atelier/tuner/sweep"
)

// A configuration travels as the spec of a sweep of one trial, and comes out of
// it as it went in.
func TestSpecCarriesTheTask(t *testing.T) {
	c := infer.New()
	for key, value := range map[string]string{"mode": "production", "model.checkpoint": "a \"strange\": name/#1/best.pth", "processing.limit": "7", "quality_metrics.thresholds.min_concentration": "0.5", "processing.seed": "9"} {
		if err := c.SetText(key, value, setting.Flag, "test"); err != nil {
			t.Fatal(err)
		}
	}
	model := &inference.Stored{Sweep: "s-k3v9q2ma", Trial: 3, Epoch: 12}
	for _, model := range []*inference.Stored{nil, model} {
		text, err := infer.Spec(c, model)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := sweep.Parse("inference", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if spec.Trainer != "torch" || spec.Budget.Trials != 1 || spec.Seed != 9 || !strings.HasPrefix(spec.Name, "infer production of ") {
			t.Errorf("%+v", spec)
		}
		task, err := inference.ParseTask([]byte(spec.TrainingJSON))
		if err != nil || trial.KindOf([]byte(spec.TrainingJSON)) != trial.Inference || (task.Checkpoint == nil) != (model == nil) || model != nil && *task.Checkpoint != *model {
			t.Fatalf("%+v %v", task, err)
		}
		s, err := inference.Parse(task.Settings)
		if err != nil || s.Mode != "production" || s.Checkpoint != c.String("model.checkpoint") || *s.Limit != 7 || s.MinConcentration != 0.5 {
			t.Errorf("%+v %v", s, err)
		}
	}
}

func TestOutputDir(t *testing.T) {
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "m"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		checkpoint, output string
		model              *inference.Stored
		want               string
	}{
		{"m/best.pth", "", nil, "m/results"},
		{"m/best.pth", "out", nil, "out"},
		{"elsewhere/best.pth", "", nil, ""},
		{"elsewhere/best.pth", "out", nil, "out"},
		{"s-k3v9q2ma", "", &inference.Stored{Sweep: "s-k3v9q2ma", Trial: 4, Epoch: 1}, "results/s-k3v9q2ma-4"},
	} {
		c := infer.New()
		for key, value := range map[string]string{"model.checkpoint": x.checkpoint, "paths.output_dir": x.output} {
			if value == "" {
				continue
			}
			if err := c.SetText(key, value, setting.Flag, "test"); err != nil {
				t.Fatal(err)
			}
		}
		got, err := infer.OutputDir(c, base, x.model)
		if x.want == "" {
			if err == nil || !strings.Contains(err.Error(), "--output-dir") {
				t.Errorf("%s: %s %v", x.checkpoint, got, err)
			}
		} else if err != nil || got != filepath.Join(base, x.want) {
			t.Errorf("%s: %s %v", x.checkpoint, got, err)
		}
	}
}
