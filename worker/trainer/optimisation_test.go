//go:build libtorch

package main_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/trainerproto"
)

// last returns a finished run's last checkpoint.
func last(t *testing.T, job trainerproto.Job) string {
	t.Helper()
	kept := of(finish(t, job), trainerproto.EventCheckpoint)
	return kept[len(kept)-1].Path
}

// weightsOf reads a state dictionary's floats, by name. Within is "" or the
// path of an inner dictionary.
func weightsOf(t *testing.T, path string, within ...string) map[string][]float32 {
	t.Helper()
	file, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	root := file.Root.(*checkpoint.Dict)
	for _, key := range within {
		var ok bool
		if root, ok = checkpoint.Lookup[*checkpoint.Dict](root, key); !ok {
			t.Fatalf("%s has no %s", path, key)
		}
	}
	all := map[string][]float32{}
	for _, it := range root.Items() {
		x, ok := it.Value.(*checkpoint.Tensor)
		if !ok || x.DType != checkpoint.F32 {
			continue
		}
		v, err := x.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		all[it.Key.(string)] = slices.Clone(v)
	}
	return all
}

func furthest(a, b map[string][]float32) (d float64) {
	for name, v := range a {
		for i := range v {
			d = max(d, math.Abs(float64(v[i]-b[name][i])))
		}
	}
	return d
}

// remove takes images of a class away.
func remove(t *testing.T, dir string, keep int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries[keep:] {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// Two batches of 8 to an update are one of 16, for a network whose images do
// not see one another (frozen batch normalisation), with unequal class weights
// and a last update that is cut short.
func TestAccumulationIsTheLargerBatch(t *testing.T) {
	base := imageFolder(t, 16, 4)
	remove(t, filepath.Join(base, "train", "glass"), 5) // 37 images: 8 8, 8 8, 5
	common := map[string]any{"optimizer": "sgd", "lr": 0.1, "freeze_features": true, "dropout_rate": 0, "augment": false,
		"class_weights": "balanced", "label_smoothing": 0.1, "clip_norm": 0.5, "schedule": "cosine", "epochs": 2}
	run := func(batch, accumulate int, weights string) map[string][]float32 {
		training := map[string]any{"batch_size": batch, "accumulate": accumulate}
		for k, v := range common {
			training[k] = v
		}
		training["class_weights"] = weights
		return weightsOf(t, last(t, newJob(t, base, training)), "model_state_dict")
	}
	large, small := run(16, 1, "balanced"), run(8, 2, "balanced")
	if d := furthest(large, small); d > 1e-5 {
		t.Errorf("weights differ by %g", d)
	}
	if d := furthest(large, run(16, 1, "none")); d < 1e-3 {
		t.Errorf("class weights changed the result by %g only: the test shows nothing", d)
	}
}

func TestAveragedWeightsAreWhatIsKept(t *testing.T) {
	base := imageFolder(t, 16, 4)
	training := map[string]any{"epochs": 1, "batch_size": 8, "dropout_rate": 0}
	alone := last(t, newJob(t, base, training))
	training["ema_decay"] = 0.9
	kept := last(t, newJob(t, base, training))
	if !bytes.Equal(state(t, alone)[".model_state_dict.features.0.weight"], state(t, kept)[".atelier.trained_state_dict.features.0.weight"]) {
		t.Error("averaging changed the training")
	}
	averaged, trained := weightsOf(t, kept, "model_state_dict"), weightsOf(t, kept, "atelier", "trained_state_dict")
	for _, name := range []string{"features.0.weight", "features.1.running_mean", "classifier.1.bias"} {
		if slices.Equal(averaged[name], trained[name]) || furthest(map[string][]float32{name: averaged[name]}, trained) > 1 {
			t.Errorf("%s is no average", name)
		}
	}
}

// The rate reported is that of the epoch's last update.
func TestScheduledRates(t *testing.T) {
	base := imageFolder(t, 8, 3) // 24 images, 3 updates an epoch
	for _, c := range []struct {
		training map[string]any
		want     []float64
	}{
		{map[string]any{"epochs": 4, "schedule": "step", "step_epochs": 1, "gamma": 0.5, "warmup_epochs": 1}, []float64{0.075, 0.1, 0.05, 0.025}},
		{map[string]any{"epochs": 3, "schedule": "cosine", "min_lr": 0.02}, []float64{
			0.02 + 0.04*(1+math.Cos(math.Pi*2/9)), 0.02 + 0.04*(1+math.Cos(math.Pi*5/9)), 0.02 + 0.04*(1+math.Cos(math.Pi*8/9))}},
		{map[string]any{"epochs": 4, "schedule": "plateau", "step_epochs": 1, "metric": "lr"}, []float64{0.1, 0.1, 0.01, 0.001}},
	} {
		c.training["batch_size"], c.training["lr"], c.training["optimizer"] = 8, 0.1, "sgd"
		metric := "val_loss"
		if m, ok := c.training["metric"]; ok { // the rate itself never gets larger
			metric = m.(string)
			delete(c.training, "metric")
		}
		job := newJob(t, base, c.training)
		job.Metric, job.Maximize = metric, true
		for i, e := range of(finish(t, job), trainerproto.EventEpoch) {
			if got, _ := e.Metrics.Get("lr"); math.Abs(got-c.want[i]) > 1e-12 {
				t.Errorf("%v: epoch %d has lr %v, want %v", c.training["schedule"], i+1, got, c.want[i])
			}
		}
	}
}

func TestStartFromWeights(t *testing.T) {
	base := imageFolder(t, 8, 3)
	first := last(t, newJob(t, base, map[string]any{"epochs": 1}))
	start3 := func(base string, training map[string]any) (trainerproto.Event, string) {
		training["epochs"] = 1
		p := start(t)
		p.send(newJob(t, base, training))
		events := p.until(never)
		p.code()
		for _, e := range events {
			if e.Kind == trainerproto.EventCheckpoint {
				return e, p.stderr.String()
			}
		}
		return events[len(events)-1], p.stderr.String()
	}

	// With a rate of nearly nothing and statistics frozen the weights come out as they went in.
	e, _ := start3(base, map[string]any{"weights": first, "lr": 1e-30, "freeze_features": true})
	if d := furthest(weightsOf(t, first, "model_state_dict"), weightsOf(t, e.Path, "model_state_dict")); e.Path == "" || d != 0 {
		t.Errorf("weights of the file changed by %g: %+v", d, e)
	}

	// Two classes: the features are taken, the head is drawn.
	two := imageFolder(t, 8, 3)
	for _, part := range []string{"train", "validation"} {
		if err := os.RemoveAll(filepath.Join(two, part, "glass")); err != nil {
			t.Fatal(err)
		}
	}
	e, text := start3(two, map[string]any{"weights": first, "lr": 1e-30, "freeze_features": true})
	const warned = "freeze_features without weights"
	if _, without := start3(two, map[string]any{"freeze_features": true}); !strings.Contains(without, warned) || strings.Contains(text, warned) {
		t.Errorf("warned with weights: %v; without:\n%s", strings.Contains(text, warned), without)
	}
	got, want := weightsOf(t, e.Path, "model_state_dict"), weightsOf(t, first, "model_state_dict")
	if len(got["classifier.1.bias"]) != 2 || !slices.Equal(got["features.4.weight"], want["features.4.weight"]) {
		t.Errorf("head of %d classes", len(got["classifier.1.bias"]))
	}
	if !strings.Contains(text, "the head stays as drawn") || !strings.Contains(text, "classifier.1.weight classifier.1.bias") {
		t.Errorf("standard error does not tell of the head:\n%s", text)
	}

	// A bare state with one name too few and one too many.
	dict := checkpoint.NewDict().Set("extra.weight", checkpoint.NewF32([]float32{1}, 1))
	file, err := checkpoint.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tensors, err := checkpoint.StateDict(file.Root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tensors[1:] {
		dict.Set(tensors[i+1].Name, &tensors[i+1])
	}
	odd := filepath.Join(t.TempDir(), "odd.pth")
	if _, err := checkpoint.Save(odd, dict); err != nil {
		t.Fatal(err)
	}
	_, text = start3(base, map[string]any{"weights": odd})
	for _, want := range []string{"names=features.0.weight", "names=extra.weight"} {
		if !strings.Contains(text, want) {
			t.Errorf("standard error does not say %q:\n%s", want, text)
		}
	}

	garbage := filepath.Join(t.TempDir(), "garbage.pth")
	if err := os.WriteFile(garbage, []byte("not a checkpoint"), 0o644); err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(t.TempDir(), "bare.pth")
	if _, err := checkpoint.Save(bare, checkpoint.FromStateDict(tensors)); err != nil {
		t.Fatal(err)
	}
	// Sisters: one with half the layers of the run's model and one with twice as many, all of the right shapes.
	small, large := filepath.Join(t.TempDir(), "small.pth"), filepath.Join(t.TempDir(), "large.pth")
	more := slices.Clone(tensors)
	for _, x := range tensors {
		x.Name = "features.99." + x.Name
		more = append(more, x)
	}
	for path, s := range map[string][]checkpoint.Tensor{small: tensors[:len(tensors)/2], large: more} {
		if _, err := checkpoint.Save(path, checkpoint.FromStateDict(s)); err != nil {
			t.Fatal(err)
		}
	}
	named := filepath.Join(t.TempDir(), "named.safetensors")
	if _, err := checkpoint.SaveSafetensors(named, tensors, map[string]string{"arch": "resnet34"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ model, weights, want string }{
		{"vanilla", named, `named.safetensors is of model "resnet34", the run trains "vanilla"`},
		{"vanilla", small, `does not fit model "vanilla": of `},
		{"vanilla", large, "; unexpected: features.99.features.0.weight"},
		{"resnet18", first, `is of model "vanilla", the run trains "resnet18"`},
		{"resnet18", bare, `does not fit model "resnet18": of 122 tensors it has 0; missing: conv1.weight`},
		{"vanilla", garbage, "garbage.pth"},
	} {
		if e, _ := start3(base, map[string]any{"model": c.model, "weights": c.weights}); e.Class != trainerproto.FailedBadSpec || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s from %s ended with %+v, want bad_spec with %q", c.model, c.weights, e, c.want)
		}
	}
	// A file that is not on this machine may be on another.
	if e, _ := start3(base, map[string]any{"weights": "nowhere.pth"}); e.Class != trainerproto.FailedDataMissing || !strings.Contains(e.Message, filepath.Join(base, "nowhere.pth")) {
		t.Errorf("weights from nowhere.pth ended with %+v, want data_missing with its path", e)
	}
	if e, _ := start3(base, map[string]any{"precision": "fp16"}); e.Class != trainerproto.FailedBadSpec || !strings.Contains(e.Message, "fp16 needs a GPU") {
		t.Errorf("fp16 on the CPU ended with %+v", e)
	}
}

// Python's optimisers take our state.
func TestPythonGoesOnWithEachOptimizer(t *testing.T) {
	python := askPython(t)
	base := imageFolder(t, 8, 3)
	for class, training := range map[string]map[string]any{
		"SGD":     {"optimizer": "sgd", "nesterov": true},
		"AdamW":   {"optimizer": "adamw", "ema_decay": 0.9, "weight_decay": 0.01},
		"RMSprop": {"optimizer": "rmsprop", "momentum": 0.9},
	} {
		training["epochs"], training["lr"] = 1, 0.003
		python.ask(map[string]any{"do": "go on", "file": last(t, newJob(t, base, training)), "optimiser": class})
		var got struct {
			Moved bool
			LR    float64
			State []string
		}
		python.answer(&got)
		want := map[string][]string{"SGD": {"momentum_buffer"}, "AdamW": {"exp_avg", "exp_avg_sq", "step"}, "RMSprop": {"momentum_buffer", "square_avg", "step"}}[class]
		if !got.Moved || got.LR != 0.003 || !slices.Equal(got.State, want) {
			t.Errorf("%s: %+v", class, got)
		}
	}
}
