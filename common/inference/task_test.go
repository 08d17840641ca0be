package inference_test

import (
	"encoding/json"
	"strings"
	"testing"

	"atelier/common/inference"
)

func TestParseTask(t *testing.T) {
	want := inference.Task{Kind: inference.TaskInfer, Settings: json.RawMessage(`{"mode":"evaluate"}`), Checkpoint: &inference.Stored{Sweep: "s-k3v9q2ma", Trial: 2, Epoch: 7}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := inference.ParseTask(b)
	if err != nil || string(got.Settings) != string(want.Settings) || got.Checkpoint == nil || *got.Checkpoint != *want.Checkpoint {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := inference.ParseTask([]byte(`{"task":"infer"}`)); err != nil || string(got.Settings) != "{}" || got.Checkpoint != nil {
		t.Errorf("%+v %v", got, err)
	}
	for training, want := range map[string]string{
		`{"task":null}`:               "leave it out for a training",
		`nonsense`:                    "leave it out for a training",
		`{"task":"train"}`:            "leave it out for a training",
		`{"task":"infer","epochs":3}`: "epochs",
		`{"task":"infer","checkpoint":{"sweep":"s-a"}}`:                      "sweep, trial and epoch",
		`{"task":"infer","checkpoint":{"sweep":"","trial":1,"epoch":1}}`:     "sweep, trial and epoch",
		`{"task":"infer","checkpoint":{"sweep":"s-a","trial":-1,"epoch":1}}`: "sweep, trial and epoch",
	} {
		if _, err := inference.ParseTask([]byte(training)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", training, err)
		}
	}
}

func FuzzParseTask(f *testing.F) {
	f.Add([]byte(`{"task":"infer","settings":{"mode":"evaluate"},"checkpoint":{"sweep":"s-a","trial":1,"epoch":1}}`))
	f.Add([]byte(`{"task":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		task, err := inference.ParseTask(b)
		if err == nil && (task.Kind != inference.TaskInfer || len(task.Settings) == 0 || task.Checkpoint != nil && task.Checkpoint.Trial < 1) {
			t.Errorf("%s: %+v", b, task)
		}
	})
}
