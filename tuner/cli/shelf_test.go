package cli_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	v1 "atelier/common/proto/atelier/v1"
	"atelier/tuner/cli"
)

// A terminal is asked before a sweep is deleted; whoever presses Enter or says anything
// but yes deletes nothing.
func TestDeleteAsks(t *testing.T) {
	f := start(t)
	for answer, want := range map[string]int{"\n": 1, "n\n": 1, "yse\n": 1, "": 2, "y\n": 0, "YES\n": 0} {
		var out, errs bytes.Buffer
		before := len(f.requests)
		e := &cli.Env{In: strings.NewReader(answer), Out: &out, Err: &errs, Now: func() time.Time { return now }, Dir: t.TempDir(), Width: func() int { return 80 }, Ask: true}
		code := e.Run(t.Context(), []string{"sweep", "delete", "s-bbbbbbbb"})
		if code != want || (len(f.requests) > before) != (want == 0) {
			t.Errorf("answer %q: exit %d, want %d; %d requests were sent\n%s", answer, code, want, len(f.requests)-before, errs.String())
		}
		if !strings.Contains(errs.String(), "4 trials, 0 reports, 3 checkpoints") {
			t.Errorf("it does not name what goes before it asks:\n%s", errs.String())
		}
	}
}

// A name or a beginning finds archived sweeps, @ does not; a deleted one is found by undelete.
func TestArchivedSweepsGoByName(t *testing.T) {
	f := start(t)
	old := f.sweep("s-aaaaaaaa")
	old.ArchivedMs = ms(time.Hour)
	gone := f.sweep("s-bbbbbbbb")
	gone.Name, gone.DeletedMs = "gone", ms(time.Hour)
	f.listed = []*v1.Sweep{old, gone}
	dir := t.TempDir()
	for args, want := range map[string]int{"show facades": 0, "show @": 3, "show gone": 3, "undelete gone": 0, "archive gone": 3} {
		if r := run(t, dir, append([]string{"sweep"}, strings.Fields(args)...)...); r.code != want {
			t.Errorf("%s: exit %d, want %d: %s", args, r.code, want, r.err)
		}
	}
	if r := run(t, dir, "sweep", "delete", "@", "--yes"); r.code != 3 || !strings.Contains(r.err, "@: there are 0 sweeps besides 1 archived sweep, which @ does not count: give the id (atelier sweep list --archived)") {
		t.Errorf("only archived ones: exit %d: %s", r.code, r.err)
	}
}
