//go:build libtorch

package main_test

import (
	"strings"
	"testing"

	"atelier/common/trainerproto"
)

// A training without kernels of ours says so, and computes otherwise: its losses
// agree with the other's to some digits, not to the last.
func TestTrainingWithoutKernels(t *testing.T) {
	base := imageFolder(t, 8, 3)
	losses := func(training map[string]any, on string) (all []float64) {
		p := start(t)
		p.send(newJob(t, base, training))
		for _, e := range of(p.until(never), trainerproto.EventEpoch) {
			v, _ := e.Metrics.Get("train_loss")
			all = append(all, v)
		}
		if c := p.code(); c != 0 || len(all) != 2 || !strings.Contains(p.stderr.String(), `"kernels of our own" on=`+on+" ") {
			t.Fatalf("exit code %d, losses %v, standard error:\n%s", c, all, p.stderr)
		}
		return all
	}
	with := losses(map[string]any{"epochs": 2}, "all")
	without := losses(map[string]any{"epochs": 2, "kernels": "none"}, "none")
	if d := with[0] - without[0]; d == 0 || d > 0.05 || d < -0.05 {
		t.Errorf("losses %v with kernels, %v without", with, without)
	}
}
