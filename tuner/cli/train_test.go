package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/tuner/cli"
)

// pretender is a trainer that writes its job down and fails. It stands on the
// PATH, where the command looks last.
func pretender(t *testing.T) (job func() map[string]any) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "job.json")
	script := `#!/bin/sh
if [ "$1" = bench ]; then echo '{"images_per_s": 0.5}'; exit; fi
echo '{"event":"hello","protocol":1,"name":"torch","message":"pretended"}' >&3
read job
echo "$job" > ` + file + `
echo '{"event":"failed","class":"bad_spec","message":"enough seen"}' >&3
exit 1
`
	if err := os.WriteFile(filepath.Join(dir, "atelier-trainer"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return func() map[string]any {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal("no job came:", err)
		}
		os.Remove(file)
		var j struct {
			Seed     uint64         `json:"seed"`
			Metric   string         `json:"metric"`
			Training map[string]any `json:"training"`
		}
		if err := json.Unmarshal(b, &j); err != nil {
			t.Fatal(err)
		}
		if j.Metric != "val_loss" {
			t.Errorf("metric %s", j.Metric)
		}
		j.Training["seed"] = j.Seed
		return j.Training
	}
}

// imageFolder makes images where the defaults look for them.
func imageFolder(t *testing.T) string {
	dir := t.TempDir()
	for _, part := range []string{"train", "validation"} {
		for _, class := range []string{"gothic", "tudor"} {
			putImage(t, filepath.Join(dir, "architectural_style_images", part, class, "1.png"))
		}
	}
	return dir
}

// talk runs the command as on a terminal, or not, with typed answers.
func talk(t *testing.T, dir string, terminal bool, typed string, environ []string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(typed), Out: &out, Err: &errs, Now: time.Now, Dir: dir, Width: func() int { return 80 }, Ask: terminal, Environ: environ}
	code := e.Run(t.Context(), args)
	return result{code, out.String(), errs.String()}
}

func TestTrainAsksOnATerminal(t *testing.T) {
	job := pretender(t)
	for _, c := range []struct {
		name, typed, model string
		shown              []string
	}{
		{"by number", "6\n\nn\n", "mobilenet_v2", []string{"   1  vanilla          custom baseline CNN\n   2  resnet18         ResNet-18 (recommended)", "   6  mobilenet_v2", "18 vgg19", "Track this training with MLflow? [Y/n]: "}},
		{"by name, after slips", "99\nresnet43\nresnet34\n7\n2\nperhaps\nno\n", "resnet34", []string{"There is no number 99", "did you mean resnet34?", "Please answer y or n.", "There is no 7 here: give 1 to 2."}},
		{"as it stands", "\n\nn\n", "resnet18", []string{"Model, by number or name [resnet18]: ", "1  from scratch                224 px  about 11 min", "2  from scratch                 64 px  under 1 min", "Times are estimates for 10 epochs"}},
	} {
		r := talk(t, imageFolder(t), true, c.typed, nil, "train")
		if r.code != 1 || !strings.Contains(r.err, "enough seen") {
			t.Errorf("%s: %+v", c.name, r)
			continue
		}
		if got := job()["model"]; got != c.model {
			t.Errorf("%s: model %v", c.name, got)
		}
		for _, want := range c.shown {
			if !strings.Contains(r.err, want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, r.err)
			}
		}
	}
	if r := talk(t, imageFolder(t), true, "", nil, "train"); r.code != 2 || !strings.Contains(r.err, "no answer: give flags instead") {
		t.Errorf("the end of input: %+v", r)
	}
	// Nobody is asked where an answer is known, with flags, or without a terminal.
	for name, r := range map[string]result{
		"environment": talk(t, imageFolder(t), true, "", []string{"ATELIER_TRAIN_MODEL=vgg11", "ATELIER_TRAIN_MLFLOW_ENABLED=false"}, "train"),
		"flags":       talk(t, imageFolder(t), true, "", nil, "train", "--no-mlflow"),
		"no terminal": talk(t, imageFolder(t), false, "", []string{"ATELIER_TRAIN_MLFLOW_ENABLED=false"}, "train"),
	} {
		if r.code != 1 || strings.Contains(r.err, "Model,") || strings.Contains(r.err, "MLflow?") || !strings.Contains(r.err, "enough seen") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestTrainLayers(t *testing.T) {
	job := pretender(t)
	dir := imageFolder(t)
	write(t, filepath.Join(dir, "conf/training_config.yaml"), []byte("epochs: 3\nbatch_size: 8\nlr: 0.5\nmodel: vanilla\naugmentation: {cutmix: {enabled: true}}\nmlflow: {enabled: false}\nseed: 9\n"))
	write(t, filepath.Join(dir, "start.pth"), []byte("weights"))
	r := talk(t, dir, false, "", []string{"ATELIER_TRAIN_LR=0.25", "ATELIER_TRAIN_BATCH_SIZE=4"}, "train", "--batch_size", "2", "--freeze_features", "--weights", "start.pth", "--set", "augmentation.cutmix.alpha=0.3")
	if r.code != 1 || !strings.Contains(r.err, "vanilla from start.pth on 2 images of 2 classes\n") || !strings.Contains(r.err, "  results   checkpoints/vanilla_ep3_bs2_lr0.25 ") ||
		!strings.Contains(r.err, "  epochs    3, batch size 2 ") || !strings.Contains(r.err, "  learning  adam, lr 0.25 ") || !strings.Contains(r.err, ", seed 9 ") {
		t.Fatalf("%+v", r)
	}
	j := job()
	cutmix := j["augmentation"].(map[string]any)["cutmix"].(map[string]any)
	if j["epochs"] != 3.0 || j["freeze_features"] != true || j["seed"] != uint64(9) || cutmix["enabled"] != true || cutmix["alpha"] != 0.3 || j["mlflow"] != nil {
		t.Errorf("job %v", j)
	}
	b, err := os.ReadFile(filepath.Join(dir, "checkpoints/vanilla_ep3_bs2_lr0.25/training_diagnostics.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"(conf/training_config.yaml:1)", "(ATELIER_TRAIN_LR)", "(--batch-size)", "(--set augmentation.cutmix.alpha)", "(--freeze-features)", "(default)"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in\n%s", want, b)
		}
	}
	write(t, filepath.Join(dir, "mine.yaml"), []byte("epochs: 7\nmlflow.enabled: false\n"))
	if r := talk(t, dir, false, "", nil, "train", "--config", "mine.yaml"); r.code != 1 || job()["epochs"] != 7.0 {
		t.Errorf("--config: %+v", r)
	}
}

// A written file tells the line; a bad flag is a usage error.
func TestTrainRefuses(t *testing.T) {
	pretender(t)
	dir := imageFolder(t)
	write(t, filepath.Join(dir, "bad.yaml"), []byte("# mine\nepochz: 3\nlr: -1\nmodel: resnet81\n"))
	r := talk(t, dir, false, "", nil, "train", "--config", "bad.yaml")
	for _, want := range []string{`bad.yaml:2: epochz: unknown key; did you mean "epochs"?`, "bad.yaml:3: lr: want a number above 0", `bad.yaml:4: model: no model "resnet81"; did you mean "resnet18"?`} {
		if r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("no %q in %+v", want, r)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if r := talk(t, dir, false, "", nil, "train", "--no-mlflow"); r.code != 1 || !strings.Contains(r.err, "make trainer") {
		t.Errorf("without a trainer: %+v", r)
	}
}

// A training that failed before its first epoch ended is in nobody's way the next
// time; a folder that is not there has an exit code of its own.
func TestFailedStartLeavesTheFolderFree(t *testing.T) {
	job := pretender(t)
	dir := imageFolder(t)
	for range 2 {
		if r := talk(t, dir, false, "", nil, "train", "--no-mlflow"); r.code != 1 || !strings.Contains(r.err, "enough seen") || !strings.Contains(r.err, "failed before the first epoch ended") {
			t.Fatalf("%+v", r)
		}
		job()
	}
	for arg, want := range map[string]string{"resnet18": "did you mean --model resnet18?", "styles": "did you mean --data styles?"} {
		if r := talk(t, dir, false, "", nil, "train", arg); r.code != 2 || !strings.Contains(r.err, "atelier train takes no arguments") || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v", arg, r)
		}
	}
	for _, args := range [][]string{{"train", "--resume", "nosuch"}, {"tune", "--resume", "nosuch"}, {"train", "--resume", "architectural_style_images"},
		{"infer", "--checkpoint", "nosuch.pth", "--image-dir", "architectural_style_images", "--local"}} {
		if r := talk(t, dir, false, "", nil, args...); r.code != 3 {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// --resume alone resumes the training that was at work last and has not finished,
// and prints which; where there is none it gives the remedy.
func TestResumeFindsTheNewestTraining(t *testing.T) {
	job := pretender(t)
	dir := imageFolder(t)
	if r := talk(t, dir, false, "", nil, "train", "--resume"); r.code != 3 || !strings.Contains(r.err, "no unfinished training in ") || !strings.Contains(r.err, "--resume DIR") {
		t.Errorf("none: %+v", r)
	}
	for i, name := range []string{"older", "newer", "done"} {
		out := filepath.Join(dir, "checkpoints", name)
		if r := talk(t, dir, false, "", nil, "train", "--no-mlflow", "--out", "checkpoints/"+name, "--epochs", fmt.Sprint(i+3)); r.code != 1 {
			t.Fatalf("%+v", r)
		}
		job()
		status := map[bool]string{true: "finished", false: "interrupted"}[name == "done"]
		b, err := os.ReadFile(filepath.Join(out, "training_history.json"))
		if err != nil || !strings.Contains(string(b), `"failed"`) {
			t.Fatalf("%s %v", b, err)
		}
		write(t, filepath.Join(out, "training_history.json"), []byte(strings.Replace(string(b), `"failed"`, `"`+status+`"`, 1)))
		for _, file := range []string{"training_history.json", "resume/run.json"} {
			at := time.Now().Add(time.Duration(i-5) * time.Minute)
			if err := os.Chtimes(filepath.Join(out, file), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, args := range [][]string{{"train", "--resume", "--no-mlflow"}, {"train", "--no-mlflow", "--resume"}} {
		r := talk(t, dir, false, "", nil, args...)
		if !strings.Contains(r.err, "resuming checkpoints/newer, the newest unfinished training\n") || !strings.Contains(r.err, "enough seen") || job()["epochs"] != 4.0 {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if r := talk(t, dir, false, "", nil, "train", "--no-mlflow", "--resume=checkpoints/older"); !strings.Contains(r.err, "enough seen") || strings.Contains(r.err, "newest") || job()["epochs"] != 3.0 {
		t.Errorf("a folder: %+v", r)
	}
}
