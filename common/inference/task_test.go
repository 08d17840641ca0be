package inference_test

import (
	"encoding/json"
	"strings"
	"testing"

	"atelier/common/inference"
)

func TestTaskOf(t *testing.T) {
	for _, training := range []string{`{"model":"resnet18","epochs":3}`, `{}`, `null`, `[1]`, `nonsense`, `{"task":null}`} {
		if _, is, err := inference.TaskOf([]byte(training)); is || err != nil {
			t.Errorf("%s: %v %v", training, is, err)
		}
	}
	want := inference.Task{Kind: inference.TaskInfer, Settings: json.RawMessage(`{"mode":"evaluate"}`), Checkpoint: &inference.Stored{Sweep: "s-k3v9q2ma", Trial: 2, Epoch: 7}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, is, err := inference.TaskOf(b)
	if err != nil || !is || string(got.Settings) != string(want.Settings) || got.Checkpoint == nil || *got.Checkpoint != *want.Checkpoint {
		t.Errorf("%+v %v %v", got, is, err)
	}
	if got, is, err := inference.TaskOf([]byte(`{"task":"infer"}`)); err != nil || !is || string(got.Settings) != "{}" || got.Checkpoint != nil {
		t.Errorf("%+v %v %v", got, is, err)
	}
	for training, want := range map[string]string{
		`{"task":"train"}`:                                                   "leave it out for a training",
		`{"task":"infer","epochs":3}`:                                        "epochs",
		`{"task":"infer","checkpoint":{"sweep":"s-a"}}`:                      "sweep, trial and epoch",
		`{"task":"infer","checkpoint":{"sweep":"","trial":1,"epoch":1}}`:     "sweep, trial and epoch",
		`{"task":"infer","checkpoint":{"sweep":"s-a","trial":-1,"epoch":1}}`: "sweep, trial and epoch",
	} {
		if _, is, err := inference.TaskOf([]byte(training)); !is || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %v", training, is, err)
		}
	}
}

func FuzzTaskOf(f *testing.F) {
	f.Add([]byte(`{"task":"infer","settings":{"mode":"evaluate"},"checkpoint":{"sweep":"s-a","trial":1,"epoch":1}}`))
	f.Add([]byte(`{"task":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		task, is, err := inference.TaskOf(b)
		if is && err == nil && (task.Kind != inference.TaskInfer || len(task.Settings) == 0 || task.Checkpoint != nil && task.Checkpoint.Trial < 1) {
			t.Errorf("%s: %+v", b, task)
		}
	})
}
