package sweep_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/tuner/sweep"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n--- got\n%s--- want\n%s", file, got, want)
	}
}

func specs(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no specs", err)
	}
	return files
}

// Every fault of a file in one go; what is said is in the .txt beside it.
func TestFaults(t *testing.T) {
	for _, file := range specs(t, "faulty") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := sweep.Parse(filepath.Base(file), text)
		var faults sweep.Errors
		if spec != nil || !errors.As(err, &faults) || len(faults) == 0 {
			t.Errorf("%s: %+v, %v", file, spec, err)
			continue
		}
		golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
	}
}

func TestValid(t *testing.T) {
	for _, file := range specs(t, "valid") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sweep.Parse(filepath.Base(file), text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if !json.Valid([]byte(s.TrainingJSON)) {
			t.Errorf("%s: training is not JSON: %s", file, s.TrainingJSON)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "name %s\nmethod %s %q\nseed %d %v\nobjectives %+v\nconstraints %v\nbudget %d\nparallelism %d\nretries %d\ntrainer %s\ntraining %s\n",
			s.Name, s.SearchMethod, s.Algorithm, s.Seed, s.SeedSet, s.Objectives, s.Constraints, s.Budget.Trials, s.Parallelism, s.MaxRetries, s.Trainer, s.TrainingJSON)
		if s.Population != nil {
			fmt.Fprintf(&b, "population %+v\n", *s.Population)
		}
		if s.StoppingJSON != "" {
			fmt.Fprintf(&b, "stopping %s\n", s.StoppingJSON)
		}
		for _, p := range s.Space.Params {
			fmt.Fprintf(&b, "%s: %s [%v, %v] log %v step %v values %v choices %v when %v\n", p.Name, p.Kind, p.Low, p.High, p.Log, p.Step, p.Values, p.Choices, p.When)
		}
		if s.Budget.Epochs > 0 || s.Budget.TimeMS > 0 || s.CheckpointBytes > 0 || s.Priority != 0 || s.WarmStart != "" || len(s.Enqueue)+len(s.Requires) > 0 {
			fmt.Fprintf(&b, "epochs %d, time %v, checkpoints %d bytes, priority %d, warm start %q\nenqueue %q\nrequires %v\n", s.Budget.Epochs, time.Duration(s.Budget.TimeMS)*time.Millisecond, s.CheckpointBytes, s.Priority, s.WarmStart, s.Enqueue, s.Requires)
		}
		n, finite := s.Space.Size()
		fmt.Fprintf(&b, "size %d %v\n", n, finite)
		golden(t, strings.TrimSuffix(file, ".yaml")+".txt", b.String())
	}
}

func TestSizeLimit(t *testing.T) {
	_, err := sweep.Parse("big.yaml", []byte("name: "+strings.Repeat("x", sweep.MaxSize)))
	if err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Error(err)
	}
	_, err = sweep.Parse("latin1.yaml", []byte("name: caf\xe9"))
	if err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Error(err)
	}
}

func TestDeepTraining(t *testing.T) {
	text, err := os.ReadFile("testdata/valid/least.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = sweep.Parse("deep.yaml", append(text, []byte("training: {a: "+strings.Repeat("[", 200)+strings.Repeat("]", 200)+"}\n")...))
	if err == nil || !strings.Contains(err.Error(), "64 levels") {
		t.Error(err)
	}
}

func TestGridOfExactlyTheLimit(t *testing.T) {
	const spec = "search_method: grid_search\nobjective: {metric: m, direction: minimize}\nspace: {a: {type: int, low: 1, high: %d}}\n"
	s, err := sweep.Parse("a.yaml", []byte(fmt.Sprintf(spec, sweep.MaxGrid)))
	if err != nil || s.Budget.Trials != sweep.MaxGrid {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = sweep.Parse("a.yaml", []byte(fmt.Sprintf(spec, sweep.MaxGrid+1)))
	if err == nil || !strings.Contains(err.Error(), "a.yaml:3: space: the grid has 10000001 points") {
		t.Error(err)
	}
	s, err = sweep.Parse("a.yaml", []byte("budget: {trials: 50}\n"+strings.Replace(spec, "%d", "1000000000000", 1)))
	if err != nil || s.Budget.Trials != 50 {
		t.Errorf("a huge grid with a budget: %+v, %v", s, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, folder := range []string{"faulty", "valid", "torun"} {
		files, _ := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil {
				f.Add(text)
			}
		}
	}
	f.Add([]byte("space: {a: {type: float, steps: 3, low: 1e-320, high: 1e308, log: true}}"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := sweep.Parse("fuzz.yaml", text)
		if (s == nil) == (err == nil) {
			t.Fatalf("spec %v, error %v", s, err)
		}
		// What is to run is a spec first, and has no fault twice.
		strict, wrong := sweep.ParseToRun("fuzz.yaml", text)
		if (strict == nil) == (wrong == nil) || err != nil && wrong == nil {
			t.Fatalf("to run: %v, %v; as such: %v", strict, wrong, err)
		}
		var faults sweep.Errors
		if errors.As(wrong, &faults) {
			for i := range faults {
				if slices.Contains(faults[:i], faults[i]) {
					t.Fatalf("twice: %s", faults[i])
				}
			}
		}
		if err != nil {
			_ = err.Error()
			return
		}
		if !json.Valid([]byte(s.TrainingJSON)) {
			t.Fatalf("training %s", s.TrainingJSON)
		}
		if err := s.Space.Validate(); err != nil {
			t.Fatal(err)
		}
		if s.Budget.Trials < 1 && s.Budget.Epochs < 1 && s.Budget.TimeMS < 1 || s.Parallelism < 1 {
			t.Fatalf("%+v", s)
		}
	})
}

// A given point names all that it lacks, beside what is wrong with it.
func TestGivenPointNamesAllThatIsMissing(t *testing.T) {
	s, err := sweep.Parse("s.yaml", []byte(`search_method: random
objective: {metric: m, direction: minimize}
budget: {trials: 3}
space:
  lr: {type: float, low: 0.001, high: 0.1}
  batch_size: {type: categorical, choices: [16, 32]}
  optimizer: {type: categorical, choices: [adam, sgd]}
  momentum: {type: float, low: 0, high: 0.9, when: {optimizer: [sgd]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	for point, want := range map[string]string{
		`{"lr":5}`:                      `decode point: "lr": 5 is outside [0.001, 0.1]; it has no value for batch_size, optimizer`,
		`{}`:                            `it has no value for lr, batch_size, optimizer`,
		`{"lr":0.01,"optimizer":"sgd"}`: `it has no value for batch_size, momentum`,
		`{"lr":0.01,"optimizer":"adam","batch_size":16,"depth":1}`: `decode point: "depth" is not a parameter of the space`,
		`[]`: `decode point: not a JSON object`,
	} {
		if _, err := sweep.GivenPoint(&s.Space, point); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", point, err, want)
		}
	}
}

// What no trial's record could hold is refused where it is written.
func TestPointsTooLargeToRecord(t *testing.T) {
	text := func(choice string) []byte {
		return []byte("search_method: random\nobjective: {metric: loss, direction: minimize}\nbudget: {trials: 2}\ntrainer: external\nspace:\n  x: {type: float, low: 0, high: 1}\n  blob: {type: categorical, choices: [a, " + choice + "]}\n")
	}
	if _, err := sweep.Parse("s.yaml", text(strings.Repeat("x", 60_000))); err != nil {
		t.Error(err)
	}
	_, err := sweep.Parse("s.yaml", text(strings.Repeat("x", 70_000)))
	if err == nil || !strings.Contains(err.Error(), "s.yaml:7: space.blob: takes up to 70") {
		t.Error(err)
	}
}
