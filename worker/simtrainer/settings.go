package simtrainer

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"atelier/common/setting"
	"atelier/common/trainerproto"
)

// settings of a simulated training: what the sweep's training section says,
// overridden by parameters of the same name. Keys it does not know are passed
// over, so that a spec written for another trainer can be tried here first.
type settings struct {
	Epochs          int     `json:"epochs"`
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
	FailMember  int    `json:"fail_member"`   // of a group only this one fails; 0 = all
	NaNAtEpoch  int    `json:"nan_at_epoch"`  // metrics are NaN from there
	IgnoreStop  bool   `json:"ignore_stop"`   // neither verdicts nor SIGTERM end it
	NeedsFile   string `json:"needs_file"`    // a file below the worker's cache folder; data is missing where it is not there
	StderrBytes int    `json:"stderr_bytes"`  // noise on standard error before the first epoch
	LogEpochs   bool   `json:"log_epochs"`    // a line on standard error for each epoch
}

var table = setting.Table{
	{Name: "epochs", Type: setting.Integer(1, 1_000_000), Default: int64(5)},
	{Name: "epoch_seconds", Type: setting.Within(0, 86400), Default: 0.05},
	{Name: "curve", Type: setting.OneOf(quadratic, crossing), Default: quadratic},
	{Name: "landscape", Type: setting.Unsigned()},
	{Name: "checkpoint_every", Type: setting.Integer(0, -1), Default: int64(1)},
	{Name: "checkpoint_bytes", Type: setting.Integer(0, 1<<30), Default: int64(256)},
	{Name: "fail_class", Type: setting.OneOf(trainerproto.FailedOutOfMemory, trainerproto.FailedDeviceFault, trainerproto.FailedBadSpec, trainerproto.FailedDataMissing,
		trainerproto.FailedDiverged, trainerproto.FailedDiskFull, trainerproto.FailedCrashed)},
	{Name: "crash_signal", Type: setting.Integer(0, 64)},
	{Name: "fail_at_epoch", Type: setting.Integer(0, 1_000_000)},
	{Name: "fail_runs", Type: setting.Integer(0, math.MaxInt32)},
	{Name: "fail_member", Type: setting.Integer(0, math.MaxInt32)},
	{Name: "nan_at_epoch", Type: setting.Integer(0, 1_000_000)},
	{Name: "ignore_stop", Type: setting.Truth()},
	{Name: "needs_file", Type: setting.Text("a file")},
	{Name: "stderr_bytes", Type: setting.Integer(0, 1<<30)},
	{Name: "log_epochs", Type: setting.Truth()},
}

func readSettings(training, params json.RawMessage) (settings, error) {
	var s settings
	setting.Fill(&s, table.Defaults())
	for _, part := range []struct {
		name string
		json json.RawMessage
	}{{"training", training}, {"params", params}} {
		if len(part.json) == 0 || string(part.json) == "null" {
			continue
		}
		members, err := setting.Members(part.json)
		if err != nil {
			return s, fmt.Errorf("%s: %w", part.name, err)
		}
		for _, m := range members {
			if row := table.Find(m.Key); row != nil {
				v := setting.Plain(m.Raw)
				if err := row.Type.Check(v); err != nil {
					return s, fmt.Errorf("%s: %s: %w", part.name, m.Key, err)
				}
				setting.Fill(&s, []setting.Given{{Key: m.Key, Data: v}})
			}
		}
	}
	if s.FailAtEpoch == 0 && (s.FailClass != "" || s.CrashSignal != 0) {
		s.FailAtEpoch = 1
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
