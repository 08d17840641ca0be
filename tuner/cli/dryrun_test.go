package cli_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	checkedspec "atelier/common/spec"
	"atelier/tuner/sweep"
)

const torchSpec = `name: facades
search_method: grid_search
objective: {metric: val_loss, direction: minimize}
space:
  lr: {type: float, values: [0.1, 0.01]}
  batch_size: {type: categorical, choices: [16, 32, 64]}
training: {model: vanilla, epochs: 1000, data: {train: data/train, validation: data/validation}}
`

// A dry run shows what would run, and sends nothing; what an epoch takes it knows
// from an earlier sweep of the same model and images.
func TestDryRun(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	for _, class := range []string{"gothic", "colonial"} {
		for _, n := range []string{"1", "2"} {
			putImage(t, filepath.Join(dir, "data/train", class, n+".png"))
		}
		putImage(t, filepath.Join(dir, "data/validation", class, "1.png"))
	}
	write(t, filepath.Join(dir, "spec.yaml"), []byte(torchSpec))
	r := run(t, dir, "sweep", "submit", "spec.yaml", "--dry-run")
	for _, want := range []string{"6 points: lr (float), batch_size (categorical)", "6, at most 8 at once", "1,000 per trial, 6,000 in all", "4 training, 2 validation of 2 classes", "no earlier sweep trained vanilla on these images; 2 slots"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	// Trials of several slots: what they take, and whether there are so many.
	for members, want := range map[string][]string{"2": {"2 slots a trial, 2 shards", "no worker that may take these trials is there now"}, "{min: 1, max: 4}": {"1 to 4 slots a trial, 4 shards"}} {
		write(t, filepath.Join(dir, "members.yaml"), []byte(strings.Replace(torchSpec, "epochs: 1000", "epochs: 1000, members: "+members, 1)))
		if r := run(t, dir, "sweep", "submit", "members.yaml", "--dry-run"); r.code != 0 || slices.ContainsFunc(want, func(s string) bool { return !strings.Contains(r.out, s) }) {
			t.Errorf("no %q in\n%s%s", want, r.out, r.err)
		}
	}
	f.groups = true // one slot of a worker that knows groups
	write(t, filepath.Join(dir, "members.yaml"), []byte(strings.Replace(torchSpec, "epochs: 1000", "epochs: 1000, members: 2", 1)))
	if r := run(t, dir, "sweep", "submit", "members.yaml", "--dry-run"); !strings.Contains(r.out, "a trial needs 2 slots, 1 that may take it exist now") {
		t.Errorf("%s%s", r.out, r.err)
	}
	f.groups = false
	old := strings.ReplaceAll(torchSpec, "data/", dir+"/data/")
	s, err := sweep.Parse("old.yaml", []byte(old))
	if err != nil {
		t.Fatal(err)
	}
	f.specJSON = checkedspec.Encode(s)
	r = run(t, dir, "sweep", "submit", "spec.yaml", "--dry-run", "-o", "json")
	var d struct {
		Points    int64
		Images    map[string]int
		Classes   []string
		Seconds   float64
		Epoch     float64 `json:"epoch_seconds"`
		Proposals []any
		Estimate  string
	}
	// Its newest trial has run for 39 s, since epoch 1, and is at epoch 3.
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || r.code != 0 || d.Points != 6 || d.Images["training"] != 4 || len(d.Classes) != 2 || d.Epoch != 19.5 || d.Seconds != 19.5*6000/2 || len(d.Proposals) != 5 {
		t.Errorf("%v: %+v\n%s%s", err, d, r.out, r.err)
	}
	// Another image size is another pace.
	write(t, filepath.Join(dir, "spec.yaml"), []byte(strings.Replace(torchSpec, "epochs: 1000", "epochs: 3, image_size: 128", 1)))
	if r := run(t, dir, "sweep", "submit", "spec.yaml", "--dry-run"); !strings.Contains(r.out, "unknown before the first trial") {
		t.Errorf("%+v", r)
	}
	write(t, filepath.Join(dir, "spec.yaml"), []byte(strings.Replace(torchSpec, "vanilla", "vanila", 1)))
	if r := run(t, dir, "sweep", "submit", "spec.yaml", "--dry-run"); r.code != 1 || !strings.Contains(r.err, `spec.yaml:7: training.model: no model "vanila"; did you mean "vanilla"?`) {
		t.Errorf("a fault of the spec: %+v", r)
	}
	for _, args := range [][]string{{"--dry-run", "--follow"}, {"-o", "json"}, {"--dry-run", "-o", "xml"}} {
		if r := run(t, dir, append([]string{"sweep", "submit", "spec.yaml"}, args...)...); r.code != 2 {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if len(f.requests) > 0 {
		t.Errorf("something was sent: %v", f.requests)
	}
}

// A dry run shows what kind each parameter is; a space with a float in it is not all continuous.
func TestDryRunShowsKinds(t *testing.T) {
	start(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "spec.yaml"), []byte(`name: kinds
search_method: random
seed: 1
objective: {metric: val_loss, direction: minimize}
budget: {trials: 4}
trainer: sim
space:
  lr: {type: float, low: 0.001, high: 0.1, log: true}
  depth: {type: int, low: 1, high: 5}
  optimizer: {type: categorical, choices: [adam, sgd]}
training: {epochs: 2}
`))
	r := run(t, dir, "sweep", "submit", "spec.yaml", "--dry-run")
	if !strings.Contains(r.out, "lr (float), depth (int), optimizer (categorical)") || strings.Contains(r.out, "continuous") {
		t.Errorf("%+v", r)
	}
}
