package e2e_test

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/local"
	"atelier/common/trial"
)

// trainingSpec is a sweep of three trials of one model; more are lines of the
// training settings.
func trainingSpec(data string, more ...string) string {
	return fmt.Sprintf(`
name: bad
search_method: random
seed: 3
objective: {metric: val_loss, direction: minimize}
budget: {trials: 3}
parallelism: 1
max_retries: 2
trainer: torch
space:
  label_smoothing: {type: float, low: 0, high: 0.1}
training:
  model: vanilla
  image_size: 32
  data: {train: %s/train, validation: %s/validation}
  %s
`, data, data, strings.Join(more, "\n  "))
}

// evil writes a .pth file whose pickle calls os.system.
func evil(t *testing.T, path, command string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	z := zip.NewWriter(f)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/data.pkl", Method: zip.Store})
	must(t, err)
	_, err = io.WriteString(w, "\x80\x02cposix\nsystem\nX"+string([]byte{byte(len(command)), 0, 0, 0})+command+"\x85R.")
	must(t, err)
	must(t, z.Close())
	must(t, f.Close())
}

// What a person gives a training that cannot be used ends each run with its
// class and says what and where; nothing of it is tried again, and a sweep
// whose trials are all refused ends.
func TestBadInputOfTrainings(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	data, dir := facades(t, ctx), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }

	other := checkpoint.NewDict().Set("arch", "resnet18").
		Set("model_state_dict", checkpoint.NewOrderedDict().Set("conv1.weight", checkpoint.NewF32(make([]float32, 64*3*7*7), 64, 3, 7, 7)))
	_, err := checkpoint.Save(at("other.pth"), other)
	must(t, err)
	bare, _ := checkpoint.Lookup[*checkpoint.Dict](other, "model_state_dict")
	_, err = checkpoint.Save(at("bare.pth"), bare)
	must(t, err)
	tensors, err := checkpoint.StateDict(other)
	must(t, err)
	_, err = checkpoint.SaveSafetensors(at("other.safetensors"), tensors, map[string]string{"arch": "resnet18"})
	must(t, err)
	whole, err := os.ReadFile(at("other.pth"))
	must(t, err)
	must(t, os.WriteFile(at("cut.pth"), whole[:len(whole)/2], 0o644))
	executed := at("executed")
	evil(t, at("evil.pth"), "touch "+executed)
	mixed := filepath.Join(dir, "mixed")
	must(t, os.CopyFS(mixed, os.DirFS(data)))
	must(t, os.Rename(filepath.Join(mixed, "validation", "gothic"), filepath.Join(mixed, "validation", "brutalist")))

	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": flags}})
	c := cluster.Client()
	weights := func(name string) string { return "weights: " + at(name) }
	for _, bad := range []struct {
		name, spec string
		says       []string
	}{
		{"weights of another model", trainingSpec(data, weights("other.pth")), []string{"other.pth", `is of model "resnet18", the run trains "vanilla"`}},
		{"safetensors of another model", trainingSpec(data, weights("other.safetensors")), []string{"other.safetensors", `is of model "resnet18"`}},
		{"state of another model", trainingSpec(data, weights("bare.pth")), []string{"bare.pth", `does not fit model "vanilla"`, "conv1.weight"}},
		{"weights cut off", trainingSpec(data, weights("cut.pth")), []string{"cut.pth", "cut off"}},
		{"malicious weights", trainingSpec(data, weights("evil.pth")), []string{"evil.pth", "posix.system", "refused"}},
		{"weights that are not there", trainingSpec(data, weights("none.pth")), []string{"none.pth", "no such file"}},
		{"classes differ", trainingSpec(mixed), []string{"gothic", "data.validation"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			id := submit(t, ctx, c, bad.spec)
			s := await(t, ctx, c, id, "its end", ended)
			// What is not there may be elsewhere: the only worker says so once, and the
			// sweep ends.
			class, failed := trial.ExitBadSpec, int64(3)
			if bad.name == "weights that are not there" {
				class, failed = trial.ExitDataMissing, 1
			}
			if s.Status != trial.SweepFailed || s.Counts.Failed != failed {
				t.Errorf("sweep ended as %v with %v", s.Status, s.Counts)
			}
			for _, tr := range trials(t, ctx, c, id) {
				if tr.Status == trial.Cancelled {
					continue
				}
				if len(tr.Runs) != 1 || tr.Runs[0].Exit != class {
					t.Fatalf("trial %d: %v", tr.Number, tr.Runs)
				}
				for _, says := range bad.says {
					if !strings.Contains(tr.Runs[0].Message, says) || !strings.Contains(s.Failure, says) {
						t.Errorf("message %q and the sweep's failure %q should both say %q", tr.Runs[0].Message, s.Failure, says)
					}
				}
			}
		})
	}
	if _, err := os.Stat(executed); err == nil {
		t.Error("a pickle was executed")
	}
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "mixed.yaml", trainingSpec(mixed))); code != 1 || !strings.Contains(stderr, "mixed.yaml:15") || !strings.Contains(stderr, "gothic") {
		t.Errorf("classes differ, at submission: exit %d:\n%s", code, stderr)
	}

	t.Run("weights of other classes", func(t *testing.T) {
		id := submit(t, ctx, c, strings.Replace(trainingSpec(data, "epochs: 1"), "trials: 3", "trials: 1", 1))
		await(t, ctx, c, id, "its end", ended)
		pulled := at("three.pth")
		if _, stderr, code := atelier(t, ctx, cluster, "checkpoint", "pull", id, "--to", pulled); code != 0 {
			t.Fatalf("pull: exit %d: %s", code, stderr)
		}
		two := filepath.Join(dir, "two")
		must(t, os.CopyFS(two, os.DirFS(data)))
		must(t, os.RemoveAll(filepath.Join(two, "train", "gothic")))
		must(t, os.RemoveAll(filepath.Join(two, "validation", "gothic")))
		id = submit(t, ctx, c, "# two classes"+strings.Replace(trainingSpec(two, "epochs: 1", "weights: "+pulled), "trials: 3", "trials: 1", 1))
		if s := await(t, ctx, c, id, "its end", ended); s.Counts.Finished != 1 {
			t.Fatalf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
		}
		if logs, _, _ := atelier(t, ctx, cluster, "trial", "logs", id, "1"); !strings.Contains(logs, "the head stays as drawn") {
			t.Errorf("the log does not tell that the head is new:\n%s", logs)
		}
	})

	// The rate rises until weight decay makes weights larger instead of smaller, soon without bounds; what was good before stays.
	t.Run("divergence", func(t *testing.T) {
		id := submit(t, ctx, c, strings.Replace(trainingSpec(data, "epochs: 30000", "warmup_epochs: 20000", "lr: 1000", "optimizer: sgd", "weight_decay: 10"), "trials: 3", "trials: 1", 1))
		await(t, ctx, c, id, "its end", ended)
		tr := trials(t, ctx, c, id)[0]
		if last := tr.Runs[len(tr.Runs)-1]; len(tr.Runs) != 1 || last.Exit != trial.ExitDiverged || !strings.Contains(last.Message, "lower lr") {
			t.Fatalf("runs %v", tr.Runs)
		}
		list, stderr, code := atelier(t, ctx, cluster, "checkpoint", "list", id, "-o", "json")
		if code != 0 || !strings.Contains(list, `"sha256"`) {
			t.Errorf("checkpoint list: exit %d: %s%s", code, list, stderr)
		}
		pulled := at("good.pth")
		if _, stderr, code := atelier(t, ctx, cluster, "checkpoint", "pull", id, "1", "--to", pulled); code != 0 {
			t.Fatalf("pull: exit %d: %s", code, stderr)
		}
		good, err := checkpoint.OpenState(pulled)
		must(t, err)
		defer good.Close()
		for _, x := range good.Tensors {
			values, err := x.Float32s()
			must(t, err)
			for _, v := range values {
				if v != v || v-v != 0 {
					t.Fatalf("%s of the checkpoint kept holds %g", x.Name, v)
				}
			}
		}
	})
}

// wrapped makes a trainer out of a line of shell in front of the real one, whose file
// it might not start if it was confined.
func wrapped(t *testing.T, line string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trainer.sh")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+line+"\nexec "+torch(t)[1]+" \"$@\"\n"), 0o755))
	return []string{"--trainer-bin", path, "--confine", "off"}
}

// A batch that memory cannot hold: the run's class says so, its message what
// to do, and nobody tries it again.
func TestBatchTooLargeForMemory(t *testing.T) {
	flags := wrapped(t, "ulimit -v 3500000")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": flags}})
	c := cluster.Client()
	spec := strings.Replace(trainingSpec(data, "batch_size: 180", "epochs: 1"), "model: vanilla\n  image_size: 32", "model: resnet18\n  image_size: 448", 1)
	id := submit(t, ctx, c, strings.Replace(spec, "trials: 3", "trials: 1", 1))
	await(t, ctx, c, id, "its end", ended)
	tr := trials(t, ctx, c, id)[0]
	if len(tr.Runs) != 1 || tr.Runs[0].Exit != trial.ExitOutOfMemory || !strings.Contains(tr.Failure, "reduce batch_size") {
		t.Errorf("runs %v, failure %q", tr.Runs, tr.Failure)
	}
}

// A trainer whose library is not there ends its sweep soon, with the loader's
// words.
func TestTrainerThatCannotStart(t *testing.T) {
	real := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	alone := filepath.Join(t.TempDir(), "atelier-trainer") // without the library that stands beside it in bin/
	b, err := os.ReadFile(real)
	must(t, err)
	must(t, os.WriteFile(alone, b, 0o755))
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": {"--trainer-bin", alone}}})
	c := cluster.Client()
	id := submit(t, ctx, c, strings.Replace(trainingSpec(data, "epochs: 1"), "trials: 3", "trials: 40", 1))
	s := await(t, ctx, c, id, "its end", ended)
	if s.Status != trial.SweepFailed || s.Counts.Proposed > 10 {
		t.Errorf("sweep ended as %v with %v", s.Status, s.Counts)
	}
	for _, says := range []string{"libcgotorch.so", "cannot open shared object file", `trainer "torch"`, s.Trainer} {
		if !strings.Contains(s.Failure, says) {
			t.Errorf("failure %q should say %q", s.Failure, says)
		}
	}
}
