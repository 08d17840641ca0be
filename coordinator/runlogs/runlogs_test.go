package runlogs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"atelier/common/trial"
	"atelier/coordinator/runlogs"
)

func TestKeepsTheNewestWithinItsBounds(t *testing.T) {
	dir := t.TempDir()
	limits := runlogs.Limits{Sweep: 1000, Runs: 3, Total: 2000}
	s, err := runlogs.Open(filepath.Join(dir, "logs"), limits)
	if err != nil {
		t.Fatal(err)
	}
	put := func(sweep string, n int64, run int32, size int) {
		t.Helper()
		if err := s.Put(sweep, n, run, bytes.Repeat([]byte{'a' + byte(n)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want bool, sweep string, n int64, run int32) {
		t.Helper()
		_, _, err := s.Get(sweep, n, run)
		if want != (err == nil) || err != nil && !errors.Is(err, runlogs.ErrNone) {
			t.Errorf("%s %d %d: %v, want it %v", sweep, n, run, err, want)
		}
	}
	put("s-1", 1, 1, 400)
	put("s-1", 1, 1, 500) // longer meanwhile
	put("s-1", 2, 1, 400)
	put("s-1", 2, 2, 200) // 1100: the first goes
	has(false, "s-1", 1, 1)
	has(true, "s-1", 2, 1)
	put("s-1", 3, 1, 1)
	put("s-1", 4, 1, 1) // four runs
	has(false, "s-1", 2, 1)
	put("s-2", 1, 1, 900)
	put("s-3", 1, 1, 950) // more than 2000: the sweep that is quiet for longest goes
	has(false, "s-1", 4, 1)
	has(true, "s-2", 1, 1)
	// After a restart the same is there, and deleted sweeps go.
	if s, err = runlogs.Open(filepath.Join(dir, "logs"), limits); err != nil {
		t.Fatal(err)
	}
	has(true, "s-2", 1, 1)
	s.DropIf(func(id string) bool { return id == "s-2" })
	has(false, "s-2", 1, 1)
	has(true, "s-3", 1, 1)
	if left, _ := os.ReadDir(filepath.Join(dir, "logs")); len(left) != 1 {
		t.Errorf("%v", left)
	}
	for _, bad := range []string{"../x", "", "a/b"} {
		if s.Put(bad, 1, 1, nil) == nil {
			t.Errorf("sweep %q is taken", bad)
		}
	}
	if s.Put("s-1", 1, 1, make([]byte, trial.KeptLog+1)) == nil {
		t.Error("a log of any size is taken")
	}
}
