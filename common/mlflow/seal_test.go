package mlflow_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"atelier/common/mlflow"
)

// A run of which something could not be written carries no seal; one that has
// everything does.
func TestSeal(t *testing.T) {
	for lost, params := range map[bool][]string{false: {"opt"}, true: {"opt", "opt/lr"}} {
		dir := t.TempDir()
		s, err := mlflow.Open("mlruns", mlflow.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		run, err := s.StartRun(t.Context(), mlflow.RunSpec{Experiment: "x", Name: "r", Start: time.Unix(1, 0)})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range params {
			if err := run.Params(map[string]string{name: "1"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := run.Seal("complete", "yes"); err != nil {
			t.Fatal(err)
		}
		if err := run.End(mlflow.Finished, time.Unix(2, 0)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); (err != nil) != lost {
			t.Errorf("lost %v: closed with %v", lost, err)
		}
		seals, _ := filepath.Glob(filepath.Join(dir, "mlruns", "*", "*", "tags", "complete"))
		if (len(seals) == 0) != lost {
			t.Errorf("lost %v: seals %q", lost, seals)
		}
		if _, err := os.Stat(filepath.Join(dir, "mlruns")); err != nil {
			t.Error(err)
		}
	}
}
