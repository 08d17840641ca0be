package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
)

// A spec that no trial of the trainer torch could run is refused where it is
// written, with its line and the nearest word: by the command, and by the cluster
// of whoever sends it otherwise.
func TestSpecsThatNoTrialCouldRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1})
	const good = `name: torch
search_method: random
objective: {metric: val_loss, direction: minimize}
budget: {trials: 2}
trainer: torch
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
  optimizer: {type: categorical, choices: [adam, sgd]}
training: {model: resnet18, data: {train: "store://a", validation: "store://b"}}
`
	for _, c := range []struct{ old, new, says string }{
		{"model: resnet18", "modell: resnet18", `spec.yaml:9: training.modell: unknown training setting; did you mean "model"?`},
		{"model: resnet18", "model: resnt18", `spec.yaml:9: training.model: no model "resnt18"; did you mean "resnet18"?`},
		{"  lr:", "  learning_rate:", `spec.yaml:7: space.learning_rate: the trainer has no such setting; did you mean "lr"?`},
		{"[adam, sgd]", "[adm, sgd]", `spec.yaml:8: space.optimizer.choices[0]: want one of sgd, adam, adamw, rmsprop, got "adm"; did you mean adam?`},
		{"high: 1.0e-1", "high: 2000", "spec.yaml:7: space.lr.high: the trainer's lr: want a number above 0 and at most 1000, got 2000"},
		{"metric: val_loss", "metric: val_lss", `spec.yaml:3: objective.metric: the trainer does not report "val_lss"; did you mean val_loss?`},
		{"budget:", "constraints: [{metric: latency, max: 3}]\nbudget:", `spec.yaml:4: constraints[0].metric: the trainer does not report "latency"`},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "spec.yaml", text))
		if code != 1 || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, %s%s", c.new, code, stdout, stderr)
		}
		if _, _, err := cluster.Client().Submit(ctx, client.Submission{Spec: text, Name: "spec.yaml"}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: the cluster: %v", c.new, err)
		}
		external := strings.Replace(text, "trainer: torch", "trainer: external", 1)
		if _, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "external.yaml", external)); code != 0 {
			t.Errorf("%s, of a trainer with settings of its own: exit %d, %s", c.new, code, stderr)
		}
	}
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", write(t, "spec.yaml", good)); code != 0 {
		t.Errorf("the good one: exit %d, %s", code, stderr)
	}
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "submit", strings.Replace(write(t, "spec.yaml", good), "spec.yaml", "spec.yml", 1)); code != 3 || !strings.Contains(stderr, "spec.yaml?") {
		t.Errorf("a file that is not there: exit %d, %s", code, stderr)
	}
}
