package cli_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"atelier/common/trial"
	"atelier/tuner/cli"
)

// What is reported at a sweep's end is folded at blanks on a terminal, not cut by it within a number.
func TestTheEndOfASweepFitsTheTerminal(t *testing.T) {
	start(t)
	for _, live := range []bool{true, false} {
		var out, errs bytes.Buffer
		e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Dir: t.TempDir(), Live: live, Width: func() int { return 40 }}
		e.Run(t.Context(), []string{"sweep", "wait", "s-bbbbbbbb"})
		_, end, _ := strings.Cut(errs.String(), "sweep s-")
		end, _, _ = strings.Cut(end, "atelier: ") // the error has a line of its own
		lines := strings.Split(strings.TrimSpace(end), "\n")
		if (len(lines) > 1) != live || !strings.Contains(strings.Join(strings.Fields(end), " "), "4 trials (4 failed)") {
			t.Errorf("live %t: %q", live, errs.String())
		}
		for _, l := range lines {
			if live && len(l) > 40 {
				t.Errorf("%d columns in %q", len(l), l)
			}
		}
	}
}

// The BEST of an inference would be its number of images: it has none.
func TestAnInferenceHasNoBest(t *testing.T) {
	best := &trial.BestTrial{Trial: 1, Value: 34, Epoch: 1}
	rows := cli.SweepRows([]trial.Sweep{{ID: "s-1", Kind: trial.Training, Best: best}, {ID: "s-2", Kind: trial.Inference, Best: best}})
	if training, inference := strings.Join(rows[0], " "), strings.Join(rows[1], " "); !strings.Contains(training, "34") || strings.Contains(inference, "34") {
		t.Errorf("%s\n%s", training, inference)
	}
}
