package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Task is a run of inference as a trial's training settings carry it to a
// worker.
type Task struct {
	Kind     string          `json:"task"`     // TaskInfer
	Settings json.RawMessage `json:"settings"` // as Parse takes them

	// Checkpoint is a model of the cluster, instead of a file that the settings
	// name: the worker's agent fetches it.
	Checkpoint *Stored `json:"checkpoint,omitempty"`
}

// TaskInfer is the kind of a Task.
const TaskInfer = "infer"

// Stored names a checkpoint of the cluster's index.
type Stored struct {
	Sweep string `json:"sweep"`
	Trial int64  `json:"trial"`
	Epoch int    `json:"epoch"`
	// SHA256, in hex, says which one of that epoch is meant; "" = the newest run's.
	SHA256 string `json:"sha256,omitempty"`
}

// How a task is told to a cluster, which knows epochs and checkpoints.
const (
	TaskEpochs  = 100            // epoch k: so many hundredths of the images are done
	MetricDone  = "images_done"  // of a report: images looked at
	MetricTotal = "images_total" // and how many there are
	BundleFile  = "results.tar"  // the checkpoint of the last epoch: the output folder (common/bundle); its note is the Outcome
)

// ParseTask reads the settings of a run of inference (trial.Inference).
func ParseTask(training []byte) (t Task, err error) {
	var kind struct {
		Kind string `json:"task"`
	}
	if json.Unmarshal(training, &kind); kind.Kind != TaskInfer { // a fault shows below
		return t, fmt.Errorf("training.task: %.60q is not one of %s; leave it out for a training", kind.Kind, TaskInfer)
	}
	d := json.NewDecoder(bytes.NewReader(training))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("training: a task of inference has task, settings and perhaps checkpoint: %w", err)
	}
	if len(t.Settings) == 0 {
		t.Settings = json.RawMessage("{}")
	}
	if k := t.Checkpoint; k != nil && (k.Sweep == "" || k.Trial < 1 || k.Epoch < 1) {
		return t, errors.New("training.checkpoint: want sweep, trial and epoch of a checkpoint of the cluster")
	}
	return t, nil
}
