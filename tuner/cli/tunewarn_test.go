package cli

import (
	"context"
	"errors"
	"strings"
	"testing"

	"atelier/common/trial"
	"atelier/tuner/tune"
	"atelier/tuner/tune/report"

	ucli "github.com/urfave/cli/v2"
)

// What went wrong in a tuning comes with advice, each cause and piece once.
func TestTuningsWarningsComeWithAdvice(t *testing.T) {
	var said strings.Builder
	e := &Env{command: "tune", Err: &said}
	bar := &tuneBar{progress{bar: bar{e: e}}}
	c := ucli.NewContext(ucli.NewApp(), nil, nil)
	c.Context = context.Background()
	cuda := "CUDA out of memory. Tried to allocate 2.00 GiB"
	r := &tune.Result{Folder: "/x", Begun: true, Warnings: []string{"no model of trial 2: write /x/best_model.pth: no space left on device"},
		Report: &report.Sweep{Trials: []report.Trial{{Number: 1, Status: trial.Failed, Failure: cuda}, {Number: 2, Status: trial.Finished}, {Number: 3, Status: trial.Failed, Failure: cuda}}}}
	if err := e.tuned(c, bar, nil, r, errors.New("broke down")); err == nil {
		t.Fatal("no error")
	}
	text := said.String()
	for _, once := range []string{"warning: no model of trial 2", "  - make room", "warning: trial 1 failed: CUDA", "--batch-size 16"} {
		if n := strings.Count(text, once); n != 1 {
			t.Errorf("%q is said %d times:\n%s", once, n, text)
		}
	}
	if strings.Contains(text, "trial 3") {
		t.Errorf("the same cause again:\n%s", text)
	}
	said.Reset()
	bar.quiet = true
	if err := e.tuned(c, bar, nil, r, errors.New("broke down")); err == nil || strings.Contains(said.String(), "warning") {
		t.Errorf("not quiet: %v, %s", err, said.String())
	}
}
