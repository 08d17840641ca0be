package track_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"atelier/common/mlflow"
	"atelier/common/mlflow/mlflowtest"
	"atelier/common/trial"
	"atelier/tuner/track"
)

// The files of a report become the sweep's artifacts once it has ended, in the
// session that mirrored it and in a later one, and the run is complete again.
func TestAttach(t *testing.T) {
	file := filepath.Join(t.TempDir(), "diagnostics_summary.txt")
	if err := os.WriteFile(file, []byte("the best trial is 4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := mlflowtest.New(t)
	for name, uri := range map[string]string{"server": server.URL, "files": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			t.Setenv("XDG_STATE_HOME", t.TempDir())
			c := newCluster()
			open := func() *track.Mirror {
				s, err := mlflow.Open(uri, mlflow.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return track.New(s, "tuning", "s-1", c)
			}
			look := func(want ...string) {
				t.Helper()
				s, err := mlflow.Open(uri, mlflow.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close(ctx)
				check(t, s)
				runs, err := s.FindRuns(ctx, "tuning", map[string]string{track.TagSweep: "s-1"})
				if err != nil || len(runs) != 5 || runs[0].Status != mlflow.Finished {
					t.Fatalf("%+v, %v", runs, err)
				}
				got, err := s.Artifacts(ctx, runs[0].ID, "")
				if err != nil || len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
					t.Errorf("artifacts %q, %v; want %q", got, err, want)
				}
			}
			m := open()
			early := error(nil)
			story(c, func() {
				if _, err := m.Sync(ctx); err != nil {
					t.Fatal(err)
				}
				if c.sweep.Status == trial.SweepRunning && early == nil {
					early = m.Attach(ctx, []string{file})
				}
			})
			if early == nil {
				t.Error("files were attached to a sweep that goes on")
			}
			if err := m.Close(ctx); err != nil {
				t.Fatal(err)
			}
			look()
			for range 2 { // another program, twice
				m = open()
				if err := m.Attach(ctx, []string{file}); err != nil {
					t.Fatal(err)
				}
				if err := m.Close(ctx); err != nil {
					t.Fatal(err)
				}
				look("diagnostics_summary.txt")
			}
			m = open()
			if err := m.Attach(ctx, []string{filepath.Join(filepath.Dir(file), "nowhere.png")}); err == nil {
				err = m.Close(ctx)
				if err == nil {
					t.Error("a file that is not there was attached")
				}
			}
		})
	}
}
