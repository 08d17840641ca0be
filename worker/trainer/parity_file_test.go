//go:build libtorch

package main_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/trainerproto"
)

// The model file of a run opens in Python as it should, weights_only=True,
// strictly into torchvision's model, says what is needed to use it, and
// answers as ours does.
func TestModelFileParity(t *testing.T) {
	python := askPython(t)
	job := newJob(t, imageFolder(t, 8, 3), map[string]any{"model": "resnet18", "epochs": 2, "batch_size": 8, "image_size": 48, "normalize": "computed"})
	kept := of(finish(t, job), trainerproto.EventCheckpoint)
	dir := t.TempDir()
	file, input := filepath.Join(dir, "best_model.pth"), filepath.Join(dir, "input.f32")
	if _, err := checkpoint.Export(kept[1].Path, file, false); err != nil {
		t.Fatal(err)
	}
	x := checkpoint.NewF32(nil, 2, 3, 48, 48)
	for i := range 2 * 3 * 48 * 48 {
		x.Data = binary.LittleEndian.AppendUint32(x.Data, math.Float32bits(float32(math.Sin(float64(i)))))
	}
	if err := os.WriteFile(input, x.Data, 0o644); err != nil {
		t.Fatal(err)
	}
	python.ask(map[string]any{"do": "open", "file": file, "input": input, "shape": x.Shape})
	var theirs struct {
		Classes   map[string]int
		ImageSize int `json:"image_size"`
		Mean      []float64
		Epoch     int
		Loss      float64 `json:"best_val_loss"`
		Config    struct{ Model string }
		Logits    [][]float64
	}
	python.answer(&theirs)
	loss := math.Inf(1)
	for _, e := range kept {
		v, _ := e.Metrics.Get("val_loss")
		loss = min(loss, v)
	}
	if theirs.Classes["timber"] != 2 || theirs.ImageSize != 48 || theirs.Epoch != 2 || theirs.Loss != loss || theirs.Config.Model != "resnet18" {
		t.Errorf("Python read %+v; the lowest loss was %v", theirs, loss)
	}
	ours := logitsOf(t, "--weights", file, "--shape", "2,3,48,48", "--input", input)
	if len(ours) != 2 || len(ours[0]) != 3 {
		t.Fatalf("logits %v", ours)
	}
	// After two epochs the running statistics fit no such input: logits are of thousands, and have the digits float32 has.
	size := 1.0
	for _, row := range theirs.Logits {
		for _, v := range row {
			size = max(size, math.Abs(v))
		}
	}
	for i := range ours {
		for k := range ours[i] {
			if d := math.Abs(ours[i][k] - theirs.Logits[i][k]); !(d <= 1e-5*size) {
				t.Errorf("logit %d of image %d differs by %g of %g", k, i, d, size)
			}
		}
	}
	opened, err := checkpoint.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if said, err := opened.Model(); err != nil || !slices.Equal(said.Mean, theirs.Mean) || len(said.Mean) != 3 || said.Mean[0] == 0.485 {
		t.Errorf("normalisation %v, Python's %v (%v)", said.Mean, theirs.Mean, err)
	}
}

// logitsOf runs the command for comparisons.
func logitsOf(t *testing.T, args ...string) [][]float64 {
	t.Helper()
	cmd := exec.Command(trainer, append([]string{"logits"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Logits [][]float64 }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got.Logits
}

// The command for comparisons from outside answers as the model here does.
func TestLogitsCommandParity(t *testing.T) {
	dir := t.TempDir()
	python := askPython(t)
	python.ask(map[string]any{"do": "make", "arch": "resnet18", "dir": dir, "classes": 7})
	python.answer(&json.RawMessage{})
	got := logitsOf(t, "--model", "resnet18", "--classes", "7", "--weights", filepath.Join(dir, "weights.pth"), "--shape", "4,3,64,64", "--input", filepath.Join(dir, "input.f32"))
	if len(got) != parityImages {
		t.Fatalf("logits of %d images, want %d", len(got), parityImages)
	}
	for i, v := range floats(t, filepath.Join(dir, "logits.f32")) {
		if d := math.Abs(float64(v) - got[i/7][i%7]); !(d <= 1e-4) {
			t.Errorf("logit %d of image %d differs by %g", i%7, i/7, d)
		}
	}
}

// A checkpoint of ours opens in Python: model strictly, optimiser and all.
func TestPythonGoesOnFromOurCheckpoint(t *testing.T) {
	job := newJob(t, imageFolder(t, 8, 3), map[string]any{"model": "resnet18", "epochs": 1, "optimizer": "adam", "batch_size": 8})
	kept := of(finish(t, job), trainerproto.EventCheckpoint)
	var got struct {
		Arch    string
		Classes map[string]int
		Epoch   int
		Steps   []int
	}
	python := askPython(t)
	python.ask(map[string]any{"do": "resume", "arch": "resnet18", "file": kept[0].Path, "classes": 3})
	python.answer(&got)
	if got.Arch != "resnet18" || got.Epoch != 1 || got.Classes["timber"] != 2 || !slices.Equal(got.Steps, []int{4}) {
		t.Errorf("Python read %+v", got)
	}
}
