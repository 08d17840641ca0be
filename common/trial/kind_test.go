package trial_test

import (
	"testing"

	"atelier/common/trial"
)

func TestKindOf(t *testing.T) {
	for training, want := range map[string]trial.Kind{
		`{"model":"resnet18","epochs":3}`: trial.Training,
		`{}`:                              trial.Training,
		`null`:                            trial.Training,
		`[1]`:                             trial.Training,
		`nonsense`:                        trial.Training,
		`{"task":null}`:                   trial.Training,
		`{"task":"infer","settings":{}}`:  trial.Inference,
		`{"settings":{"mode":"x"}, "task" : "infer"}`: trial.Inference,
	} {
		if got := trial.KindOf([]byte(training)); got != want {
			t.Errorf("%s: %s, want %s", training, got, want)
		}
	}
	for k, want := range map[trial.Kind]string{0: "", trial.Training: "training", trial.Inference: "inference"} {
		if k.String() != want {
			t.Errorf("%d is %q", k, k)
		}
	}
}
