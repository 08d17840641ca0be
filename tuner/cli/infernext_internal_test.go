package cli

import (
	"bytes"
	"strings"
	"testing"

	"atelier/common/inference"
	"atelier/common/setting"
	"atelier/tuner/infer"
)

// The next commands have the checkpoint itself: @ and an alias may be another one
// by the time they are pasted.
func TestNextHasTheCheckpointItself(t *testing.T) {
	var errs bytes.Buffer
	e := &Env{Err: &errs, Width: func() int { return 80 }}
	conf := infer.New()
	if err := conf.Set(keyCheckpoint, "@", setting.Flag, "--checkpoint"); err != nil {
		t.Fatal(err)
	}
	accuracy := 0.5
	e.inferNext(&inference.Summary{Dir: "results/s-aaaaaaaa-7", Accuracy: &accuracy}, conf, &inference.Stored{Sweep: "s-aaaaaaaa", Trial: 7, Epoch: 9})
	if shown := errs.String(); !strings.Contains(shown, "--mode explain_misclassifications --checkpoint s-aaaaaaaa/7/9 ") || strings.Contains(shown, "@") {
		t.Error(shown)
	}
}
