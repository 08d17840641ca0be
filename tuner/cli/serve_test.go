package cli_test

import (
	"fmt"
	"testing"

	"atelier/tuner/cli"
)

// The web app offers the leaderboards of the ten newest sweeps, and of none of the
// runs of inference.
func TestBoardsOfTheNewestSweeps(t *testing.T) {
	f := start(t)
	for i := range 12 {
		s := f.sweep("s-aaaaaaaa")
		s.Name = fmt.Sprint("facades ", i)
		if i == 1 {
			s.Kind = 2
		}
		f.listed = append(f.listed, s)
	}
	got, err := cli.Boards(t.Context(), f.files)
	if err != nil || len(got) != 10 || got[0].Name != "facades 0, trial 7" || got[1].Name != "facades 2, trial 7" || got[9].Name != "facades 10, trial 7" || got[0].Note != "val_loss 0.1235, epoch 2" {
		t.Errorf("%v, %v", got, err)
	}
}
