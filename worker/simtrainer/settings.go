package simtrainer

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"atelier/common/trainerproto"
)

// settings of a simulated training: what the sweep's training section says,
// overridden by parameters of the same name. Keys it does not know are passed
// over, so that a spec written for another trainer can be tried here first.
type settings struct {
	Epochs          int     `json:"epochs"`           // default 5
	EpochSeconds    float64 `json:"epoch_seconds"`    // default 0.05
	Curve           string  `json:"curve"`            // quadratic (default) or crossing
	Landscape       uint64  `json:"landscape"`        // seed of the optimum's place: the same for all trials of a sweep
	CheckpointEvery int     `json:"checkpoint_every"` // epochs; default 1, 0 = never
	CheckpointBytes int     `json:"checkpoint_bytes"` // default 256

	// Faults, for tests.
	FailClass   string `json:"fail_class"`    // a class of a failed event, at FailAtEpoch
	CrashSignal int    `json:"crash_signal"`  // the trainer ends itself by this signal, at FailAtEpoch
	FailAtEpoch int    `json:"fail_at_epoch"` // default 1 when a fault is named
	FailRuns    int32  `json:"fail_runs"`     // only the first so many runs of a trial fail; 0 = all
	NaNAtEpoch  int    `json:"nan_at_epoch"`  // metrics are NaN from there
	IgnoreStop  bool   `json:"ignore_stop"`   // neither verdicts nor SIGTERM end it
	NeedsFile   string `json:"needs_file"`    // a file below the worker's cache folder; data is missing where it is not there
	StderrBytes int    `json:"stderr_bytes"`  // noise on standard error before the first epoch
}

const maxCheckpointBytes = 1 << 30

var classes = []string{trainerproto.FailedOutOfMemory, trainerproto.FailedDeviceFault, trainerproto.FailedBadSpec, trainerproto.FailedDataMissing,
	trainerproto.FailedDiverged, trainerproto.FailedDiskFull, trainerproto.FailedCrashed}

func readSettings(training, params json.RawMessage) (settings, error) {
	s := settings{Epochs: 5, EpochSeconds: 0.05, Curve: quadratic, CheckpointEvery: 1, CheckpointBytes: 256}
	for _, part := range []struct {
		name string
		json json.RawMessage
	}{{"training", training}, {"params", params}} {
		if len(part.json) == 0 {
			continue
		}
		if err := json.Unmarshal(part.json, &s); err != nil {
			return s, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if s.FailAtEpoch == 0 && (s.FailClass != "" || s.CrashSignal != 0) {
		s.FailAtEpoch = 1
	}
	switch {
	case s.Epochs < 1 || s.Epochs > 1_000_000:
		return s, fmt.Errorf("epochs: %d; give 1 to 1000000", s.Epochs)
	case !(s.EpochSeconds >= 0 && s.EpochSeconds <= 86400):
		return s, fmt.Errorf("epoch_seconds: %g; give 0 to 86400", s.EpochSeconds)
	case s.Curve != quadratic && s.Curve != crossing:
		return s, fmt.Errorf("curve: %q is not known; give %s or %s", s.Curve, quadratic, crossing)
	case s.CheckpointEvery < 0:
		return s, fmt.Errorf("checkpoint_every: %d; give 0 (never) or a number of epochs", s.CheckpointEvery)
	case s.CheckpointBytes < 0 || s.CheckpointBytes > maxCheckpointBytes:
		return s, fmt.Errorf("checkpoint_bytes: %d; give 0 to %d", s.CheckpointBytes, maxCheckpointBytes)
	case s.FailClass != "" && !slices.Contains(classes, s.FailClass):
		return s, fmt.Errorf("fail_class: %q is not known; give one of %s", s.FailClass, strings.Join(classes, ", "))
	case s.CrashSignal < 0 || s.CrashSignal > 64:
		return s, fmt.Errorf("crash_signal: %d is not a signal", s.CrashSignal)
	}
	return s, nil
}

func writeNoise(w io.Writer, n int) {
	line := []byte(strings.Repeat("simtrainer noise ", 15) + "\n")
	for n > 0 {
		k := min(n, len(line))
		w.Write(line[:k])
		n -= k
	}
}
