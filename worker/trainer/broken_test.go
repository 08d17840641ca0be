//go:build libtorch

package main_test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/trainerproto"
)

// failure runs a job that must fail and returns its events, the last of which
// says how.
func failure(t *testing.T, job trainerproto.Job) (events []trainerproto.Event, last trainerproto.Event) {
	t.Helper()
	p := start(t)
	p.send(job)
	events = p.until(never)
	if last = events[len(events)-1]; last.Kind != trainerproto.EventFailed {
		t.Fatalf("ended with %+v, want a failure; standard error:\n%s", last, p.stderr)
	}
	return events, last
}

// A network whose weights become NaN behind fused activations is a run that
// diverged: none of its epochs is reported and no checkpoint is kept of it.
func TestBrokenNetworkDiverges(t *testing.T) {
	base := imageFolder(t, 4, 4)
	for name, training := range map[string]map[string]any{
		"mobilenet_v2": {"model": "mobilenet_v2", "epochs": 15, "batch_size": 4, "lr": 10, "optimizer": "sgd"},
		"resnet18":     {"model": "resnet18", "epochs": 15, "batch_size": 4, "lr": 1000, "optimizer": "sgd"},
		"averaged":     {"model": "mobilenet_v2", "epochs": 15, "batch_size": 4, "lr": 10, "optimizer": "sgd", "ema_decay": 0.9},
	} {
		t.Run(name, func(t *testing.T) {
			events, last := failure(t, newJob(t, base, training))
			if last.Class != trainerproto.FailedDiverged || !strings.Contains(last.Message, "lower lr") {
				t.Errorf("failed as %s: %s", last.Class, last.Message)
			}
			for _, e := range of(events, trainerproto.EventCheckpoint) {
				for name, b := range state(t, e.Path) {
					if strings.HasPrefix(name, ".model_state_dict") && len(b)%4 == 0 {
						x := checkpoint.Tensor{Name: name, DType: checkpoint.F32, Shape: []int64{int64(len(b) / 4)}, Data: b}
						if err := checkpoint.Finite([]checkpoint.Tensor{x}); err != nil {
							t.Errorf("the checkpoint of epoch %d: %v", e.Epoch, err)
						}
					}
				}
			}
		})
	}
}

// Finite losses do not save weights that are not: what no image of the
// validation set reaches may be broken, too.
func TestBrokenStatisticsDiverge(t *testing.T) {
	base := imageFolder(t, 4, 2)
	job := newJob(t, base, map[string]any{"model": "resnet18", "epochs": 2, "batch_size": 4, "lr": 1e-5})
	first := of(finish(t, job), trainerproto.EventCheckpoint)[0]
	job.Resume = spoil(t, first.Path, "bn1.running_var", math.NaN())
	if _, last := failure(t, job); last.Class != trainerproto.FailedDiverged || !strings.Contains(last.Message, "bn1.running_var is not finite: NaN at element 0") {
		t.Errorf("failed as %s: %s", last.Class, last.Message)
	}
}

// One value a channel has no variance: refused before the first epoch, with
// both ways out, and only where a batch is of one image.
func TestOneValueAChannelIsRefused(t *testing.T) {
	base := imageFolder(t, 2, 1)
	events, last := failure(t, newJob(t, base, map[string]any{"model": "resnet18", "epochs": 1, "batch_size": 1}))
	if last.Class != trainerproto.FailedBadSpec || !strings.Contains(last.Message, "batch_size 2 or more, or a larger image_size") || len(of(events, trainerproto.EventEpoch)) > 0 {
		t.Errorf("failed as %s: %s", last.Class, last.Message)
	}
	for name, training := range map[string]map[string]any{
		"larger images":               {"image_size": 64, "batch_size": 1},
		"two at a time":               {"batch_size": 2},
		"frozen features":             {"batch_size": 1, "freeze_features": true},
		"five of six, the last joins": {"batch_size": 5},
	} {
		all := map[string]any{"model": "resnet18", "epochs": 1}
		for k, v := range training {
			all[k] = v
		}
		kept := of(finish(t, newJob(t, base, all)), trainerproto.EventCheckpoint)
		state, err := checkpoint.OpenState(kept[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkpoint.Finite(state.Tensors); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		state.Close()
	}
}

// spoil copies a model with one number of one tensor changed.
func spoil(t *testing.T, path, name string, value float64) string {
	t.Helper()
	file, err := checkpoint.OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	root := file.Root.(*checkpoint.Dict)
	for i := range file.Tensors {
		if x := &file.Tensors[i]; x.Name == name {
			v, err := x.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			v[0] = float32(value)
			file.Tensors[i] = *checkpoint.NewF32(v, x.Shape...)
			file.Tensors[i].Name = name
			name = ""
		}
	}
	if name != "" {
		t.Fatalf("%s has no %s", path, name)
	}
	root.Set("model_state_dict", checkpoint.FromStateDict(file.Tensors))
	out := filepath.Join(t.TempDir(), "spoilt.pth")
	if _, err := checkpoint.Save(out, root); err != nil {
		t.Fatal(err)
	}
	return out
}

// Whoever loads weights that are not finite says so and names the tensor, in
// the same words: starting from them, evaluating, all modes of inference.
func TestBrokenWeightsAreNamed(t *testing.T) {
	base := imageFolder(t, 4, 4)
	good := of(finish(t, newJob(t, base, map[string]any{"model": "resnet18", "epochs": 1})), trainerproto.EventCheckpoint)[0].Path
	for i, c := range []struct {
		tensor string
		value  float64
	}{{"conv1.weight", math.NaN()}, {"fc.bias", math.Inf(1)}} {
		bad := spoil(t, good, c.tensor, c.value)
		want := fmt.Sprintf("the weights are broken: %s is not finite: %g at element 0", c.tensor, c.value)
		if _, last := failure(t, newJob(t, base, map[string]any{"model": "resnet18", "epochs": 1, "weights": bad})); last.Class != trainerproto.FailedBadSpec || !strings.Contains(last.Message, want) {
			t.Errorf("weights: failed as %s: %s", last.Class, last.Message)
		}
		if out, err := exec.Command(trainer, "evaluate", "--checkpoint", bad, "--data", filepath.Join(base, "validation"), "--cache", t.TempDir()).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("evaluate: %v %s", err, out)
		}
		for _, mode := range []string{"evaluate", "explain_single", "explain_batch", "explain_misclassifications", "inference", "production"} {
			if i > 0 && mode != "production" {
				continue // all open the file in one place
			}
			out := t.TempDir()
			training := fmt.Sprintf(`{"mode": %q, "model": {"checkpoint": %q}, "paths": {"image_dir": %q, "image_path": %q, "output_dir": %q}}`,
				mode, bad, filepath.Join(base, "validation"), filepath.Join(base, "validation", "brick", "000.png"), out)
			last := inferOnce(t, trainerproto.Job{Protocol: trainerproto.Version, Training: []byte(training), Params: []byte("{}"), Device: "cpu", Threads: 2, BaseDir: base})
			if last.Kind != trainerproto.EventFailed || last.Class != trainerproto.FailedBadSpec || !strings.Contains(last.Message, want) {
				t.Errorf("%s: %+v", mode, last)
			}
			if left, _ := os.ReadDir(out); len(left) > 0 {
				t.Errorf("%s left %v", mode, left)
			}
		}
	}
}

// inferOnce runs one job of inference and returns its last event.
func inferOnce(t *testing.T, job trainerproto.Job) (last trainerproto.Event) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(trainer, "infer")
	cmd.ExtraFiles = []*os.File{w}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := trainerproto.NewWriter(in).Send(job); err != nil {
		t.Fatal(err)
	}
	events := trainerproto.NewReader(r)
	for {
		e, err := events.Event()
		if err != nil {
			break
		}
		last = e
	}
	cmd.Wait()
	return last
}
