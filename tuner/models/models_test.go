package models_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/tuner/models"
)

// model writes a model file, of an age.
func model(t *testing.T, path, arch string, hours int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	classes := checkpoint.NewDict().Set("gothic", int64(0)).Set("tudor", int64(1))
	root := checkpoint.NewDict().Set("model_state_dict", checkpoint.NewDict().Set("w", checkpoint.NewF32([]float32{1}, 1))).Set("arch", arch).
		Set("class_to_idx", classes).Set("image_size", int64(64)).Set("epoch", int64(2))
	if _, err := checkpoint.Save(path, root); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
}

func history(t *testing.T, dir string, test string, validation ...float64) {
	t.Helper()
	var epochs, acc, ones []string
	best := 0.0
	for i, v := range validation {
		epochs, acc, ones = append(epochs, fmt.Sprint(i+1)), append(acc, fmt.Sprint(v)), append(ones, "1")
		best = max(best, v)
	}
	list := func(x []string) string { return "[" + strings.Join(x, ",") + "]" }
	images := 10
	if test == "null" {
		images = 0
	}
	text := fmt.Sprintf(`{"epochs":%s,"train_loss":%[3]s,"train_acc":%[3]s,"val_loss":%[3]s,"val_acc":%[2]s,"lr":%[3]s,"images_per_s":%[3]s,"epoch_seconds":%[3]s,"best_epoch":1,"best_val_acc":%v,"test_acc":%s,"test_images":%d}`,
		list(epochs), list(acc), list(ones), best, test, images)
	if err := os.WriteFile(filepath.Join(dir, "training_history.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The best model comes first, not the newest, and a tuning's models are found; a
// training's last model is not listed beside its best.
func TestTheBestFirst(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	model(t, at("checkpoints/good/best_model.pth"), "resnet18", 9)
	model(t, at("checkpoints/good/final_model.pth"), "resnet18", 9)
	history(t, at("checkpoints/good"), "0.75", 0.5, 0.8)
	model(t, at("checkpoints/tried/best_model.pth"), "vanilla", 1)
	model(t, at("checkpoints/tried/epoch.pth"), "vanilla", 1)
	history(t, at("checkpoints/tried"), "0.32", 0.3, 0.2)
	model(t, at("checkpoints/untested/final_model.pth"), "vanilla", 2)
	history(t, at("checkpoints/untested"), "null", 0.1, 0.6)
	model(t, at("checkpoints/strange/model.pth"), "vanilla", 0)
	for i := range 7 {
		model(t, at(fmt.Sprintf("checkpoints_tuning/vanilla/random/trials/trial_%04d/best_model.pth", i+1)), "vanilla", 3)
		write(t, at(fmt.Sprintf("checkpoints_tuning/vanilla/random/trials/trial_%04d/trial.json", i+1)), fmt.Sprintf(`{"trial":%d,"metrics":{"val_loss":1,"val_acc":0.6%d}}`, i+1, i))
	}
	model(t, at("checkpoints/good/resume/best.pth"), "resnet18", 0)
	write(t, at("checkpoints/broken/best_model.pth"), "words")

	f := &models.Finder{Dir: dir, Named: []string{"checkpoints", "checkpoints_tuning", "away"}}
	found, err := f.Ranked()
	if err == nil || !strings.Contains(err.Error(), "there is no away") {
		t.Error(err)
	}
	var lines []string
	for _, m := range found {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s | %s %s", m.ID, m.Group, m.Text())))
	}
	const tuning = "checkpoints_tuning/vanilla/random"
	want := `checkpoints/good/best_model.pth | checkpoints/good test accuracy 75.0 %
` + tuning + `/trials/trial_0007/best_model.pth | ` + tuning + ` validation accuracy 66.0 %
` + tuning + `/trials/trial_0006/best_model.pth | ` + tuning + ` validation accuracy 65.0 %
` + tuning + `/trials/trial_0005/best_model.pth | ` + tuning + ` validation accuracy 64.0 %
` + tuning + `/trials/trial_0004/best_model.pth | ` + tuning + ` validation accuracy 63.0 %
` + tuning + `/trials/trial_0003/best_model.pth | ` + tuning + ` validation accuracy 62.0 %
checkpoints/untested/final_model.pth | checkpoints/untested validation accuracy 60.0 %
checkpoints/tried/best_model.pth | checkpoints/tried test accuracy 32.0 %
checkpoints/tried/epoch.pth | checkpoints/tried validation accuracy 20.0 %
checkpoints/strange/model.pth | checkpoints/strange
checkpoints/broken/best_model.pth | checkpoints/broken`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("listed\n%s\nwant\n%s", got, want)
	}
	if m := found[0]; m.Architecture != "resnet18" || m.ImageSize != 64 || strings.Join(m.Classes, " ") != "gothic tudor" || m.Epoch != 2 || m.Fault != "" {
		t.Errorf("%+v", m)
	}
	if m := found[len(found)-1]; m.Fault == "" {
		t.Errorf("a broken file: %+v", m)
	}
	if found[1].Trial != 7 {
		t.Errorf("%+v", found[1])
	}

	// What is written anew is read anew.
	history(t, at("checkpoints/tried"), "0.999", 0.3, 0.2)
	if again, _ := f.Ranked(); again[0].ID != "checkpoints/tried/best_model.pth" {
		t.Errorf("%s is first", again[0].ID)
	}
	// A file that is given is in the list, whatever is beside it.
	named, err := (&models.Finder{Dir: dir, Named: []string{"checkpoints/good/final_model.pth"}}).Ranked()
	if err != nil || len(named) != 1 || named[0].Text() != "validation accuracy 80.0 %" {
		t.Errorf("%+v %v", named, err)
	}
	for folder, want := range map[string]string{"checkpoints/good": "checkpoints/good/best_model.pth", "checkpoints": "checkpoints/tried/best_model.pth",
		tuning: tuning + "/trials/trial_0007/best_model.pth", at("checkpoints/untested"): "checkpoints/untested/final_model.pth"} {
		if m, err := models.Best(dir, folder); err != nil || m.ID != want {
			t.Errorf("the best in %s is %s, want %s: %v", folder, m.ID, want, err)
		}
	}
	if err := os.Mkdir(at("empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := models.Best(dir, "empty"); err == nil || !strings.Contains(err.Error(), "no model file") {
		t.Error(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
