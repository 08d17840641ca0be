package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
)

// Parameters and metrics whose names are one in MLflow, or of which one would be
// a file and another a folder of that name, are all there, each with its own
// value, under the same names in every trial.
func TestNamesThatCollideInMLflow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	cluster := start(t, ctx, local.Config{Coordinators: 1})
	id := strings.TrimSpace(must0(t, ctx, cluster, "sweep", "submit", "-q", write(t, "collide.yaml", `name: coll
search_method: random
seed: 7
objective: {metric: val_loss, direction: minimize}
budget: {trials: 4}
trainer: external
space:
  opt: {type: categorical, choices: [adam, sgd]}
  opt/lr: {type: float, low: 0, high: 1}
  'x=y': {type: int, low: 1, high: 3}
  'x,y': {type: int, low: 4, high: 9}
`)))
	for range 4 {
		var asked struct{ Trial int64 }
		must(t, json.Unmarshal([]byte(must0(t, ctx, cluster, "trial", "ask", id)), &asked))
		must0(t, ctx, cluster, "trial", "tell", id, fmt.Sprint(asked.Trial), "--value", "0.5", "--metric", "val=2", "--metric", "val/loss=3", "--done")
	}
	store := filepath.Join(t.TempDir(), "mlr")
	out, errs, code := atelier(t, ctx, cluster, "sweep", "export-mlflow", id, "--mlflow-uri", store)
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	names := map[string]int{}
	runs, err := filepath.Glob(filepath.Join(store, "*", "*", "params", "opt"))
	must(t, err)
	if len(runs) != 4 {
		t.Fatalf("%d runs with a parameter opt: %s", len(runs), errs)
	}
	for _, r := range runs {
		dir := filepath.Dir(r)
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, _ := filepath.Rel(dir, path)
			b, err := os.ReadFile(path)
			names[name]++
			text := string(b)
			switch {
			case strings.HasPrefix(name, "x_y-"):
				name = text
				names[map[bool]string{true: "x=y", false: "x,y"}[text <= "3"]]++
			case name == "opt" && text != "adam" && text != "sgd":
				t.Errorf("opt is %q", text)
			}
			return err
		})
		must(t, err)
		metrics, _ := os.ReadDir(filepath.Join(filepath.Dir(dir), "metrics"))
		if len(metrics) != 4 { // val_loss, val, val/loss, best_val_loss
			t.Errorf("metrics %v", metrics)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "tags", "atelier.seen")); err != nil {
			t.Error("a run that has everything is not called complete:", err)
		}
	}
	if len(names) != 6 || names["x=y"] != 4 || names["x,y"] != 4 || names["opt"] != 4 {
		t.Errorf("names over 4 trials: %v", names)
	}
}
