package sweep_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/tuner/sweep"
)

// What the trainer torch would refuse in the first trial is refused with its line
// before there is a sweep; a spec as such is still read, for whoever reads what
// is stored, and for a search without a trainer.
func TestFaultsOfASpecToRun(t *testing.T) {
	for _, file := range specs(t, "torun") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		_, err = sweep.ParseToRun(name, text)
		var faults sweep.Errors
		if !errors.As(err, &faults) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		if _, err := sweep.Parse(name, text); err != nil {
			t.Errorf("%s is no spec any more: %v", name, err)
		}
		if bytes.Contains(text, []byte("members:")) {
			continue // slots are granted by them whoever trains
		}
		for _, trainer := range []string{"external", "sim", "ours"} {
			if _, err := sweep.ParseToRun(name, append(text, []byte("trainer: "+trainer+"\n")...)); err != nil {
				t.Errorf("%s with trainer %s, whose settings only it knows: %v", name, trainer, err)
			}
		}
	}
}

// What the trainer takes is not refused.
func TestSpecsToRun(t *testing.T) {
	const head = "search_method: random\nobjective: {metric: val_acc, direction: maximize}\nbudget: {trials: 4}\n"
	for name, text := range map[string]string{
		"nested and dotted keys":        "training: {model: vanilla, augmentation: {cutmix: {enabled: true}}, augmentation.flip: false, data: {train: a, validation: b}}\nspace: {lr: {type: float, low: 0.001, high: 0.1}}\n",
		"a whole float axis":            "training: {data: {train: a, validation: b}}\nspace: {batch_size: {type: float, low: 8, high: 64, step: 8}, epochs: {type: float, values: [2, 4.0]}}\n",
		"folders that are searched":     "training: {data.validation: b}\nspace: {data.train: {type: categorical, choices: [a, c]}}\n",
		"a conflict that space decides": "training: {warmup_epochs: 5, data: {train: a, validation: b}}\nspace: {epochs: {type: int, low: 6, high: 9}}\n",
		"a merge and an alias":          "training: &t {data: {train: a, validation: b}}\nspace: {seed: {type: int, low: 0, high: 9}}\nenqueue: [{seed: 3}]\n",
		"batches in shards":             "training: {members: {min: 1, max: 4}, data: {train: a, validation: b}}\nspace: {batch_size: {type: int, low: 16, high: 64, step: 8}}\n",
		"shards of another trainer":     "trainer: ours\ntraining: {shards: all, batch_size: 7}\nspace: {lr: {type: float, low: 0.001, high: 0.1}}\n",
		"inference":                     "training: {task: infer, settings: {mode: evaluate}}\nspace: {mode: {type: categorical, choices: [evaluate]}}\n",
	} {
		if _, err := sweep.ParseToRun("s.yaml", []byte(head+text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
