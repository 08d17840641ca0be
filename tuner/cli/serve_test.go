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

// What an alias names is offered before the leaderboards, and follows the alias.
func TestAliasesAreOfferedFirst(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	for _, epoch := range []string{"2", "3"} {
		if r := run(t, dir, "checkpoint", "promote", "s-aaaaaaaa/7/"+epoch, "production", "--by", "ada"); r.code != 0 {
			t.Fatal(r.err)
		}
		got, err := cli.Boards(t.Context(), f.files)
		if err != nil || len(got) < 2 || got[0].ID != "alias:production" || got[0].Note != "s-aaaaaaaa/7/"+epoch || got[0].Fault != "" || got[1].Source != "leaderboard" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	f.named[0].Location = ""
	if got, err := cli.Boards(t.Context(), f.files); err != nil || got[0].Fault != "its file is gone" {
		t.Errorf("%+v, %v", got, err)
	}
}
