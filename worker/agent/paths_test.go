package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trial"
	"atelier/worker/agent"
	"atelier/worker/confine"
	"atelier/worker/runner"
)

// confinedIn makes a worker's trainers confined, with its own folders below data.
func confinedIn(t *testing.T, data string, roots ...string) func(*agent.Config) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runs := filepath.Join(data, "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(cfg *agent.Config) {
		cf, err := confine.New(confine.Config{Mode: confine.On, Launcher: []string{self, confine.Verb}, Write: []string{cfg.CacheDir, runs}, Private: []string{data}, Roots: roots, Temp: filepath.Join(data, "tmp")})
		if err != nil {
			t.Fatal(err)
		}
		l, err := runner.New(runner.Config{Dir: filepath.Join(data, "pids"), Grace: 500 * time.Millisecond, Confine: cf})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		cfg.Launcher = l
	}
}

// training of the simulated trainer, with a folder of images that it leaves alone.
func training(t *testing.T, folder string) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"epochs": 2, "epoch_seconds": 0.05, "data": map[string]any{"train": folder}, "notes": []any{"/etc/shadow", 7}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A trainer that stands by takes the runs that name what it may read; for another
// folder one is started that may read it.
func TestTrainersReadWhatTheirRunsName(t *testing.T) {
	top := t.TempDir()
	first, second := filepath.Join(top, "first"), filepath.Join(top, "second")
	for _, dir := range []string{first, second, filepath.Join(top, "w")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := newCluster(t, term)
	c.add(2, training(t, first))
	reg := prometheus.NewRegistry()
	confined := confinedIn(t, filepath.Join(top, "w"))
	var folders bool
	startWorker(t, c, 1, func(cfg *agent.Config) {
		confined(cfg)
		cfg.Registry = reg
		folders = cfg.Launcher.Confinement().Folders()
	})
	if !folders {
		t.Skip("this kernel has no Landlock")
	}
	c.until("both of the first sweep have finished", 20*time.Second, func() bool { return c.ended(trial.ExitFinished) == 2 })
	before := value(t, reg, "atelier_worker_cold_starts_total") // 2 where the next trainer was not ready in time
	if before < 1 {
		t.Errorf("%v trainers were started cold: nobody may read the first folder beforehand", before)
	}
	c.add(2, training(t, second))
	c.until("those of the second, too", 20*time.Second, func() bool { return c.ended(trial.ExitFinished) == 4 })
	if after := value(t, reg, "atelier_worker_cold_starts_total"); after <= before {
		t.Errorf("%v trainers were started cold, %v before: the one that stood by may not read the second folder", after, before)
	}
}

// A path that trainers must not have ends the run, with the setting's name, on
// this worker; another one may have the data.
func TestRunsThatNameForbiddenPaths(t *testing.T) {
	top := t.TempDir()
	data, photos := filepath.Join(top, "w"), filepath.Join(top, "photos")
	for _, dir := range []string{data, photos} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(data, filepath.Join(photos, "link")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ path, want string }{
		"the worker's own folder":   {data, "training.data.train: " + data + " lies in the worker's own data folder"},
		"by a link":                 {filepath.Join(photos, "link"), "own data folder"},
		"outside of the data roots": {"/etc", "training.data.train: /etc lies outside"},
		"by the way up":             {filepath.Join(photos, "..", "w"), "own data folder"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, term)
			c.add(1, training(t, tc.path))
			startWorker(t, c, 1, confinedIn(t, data, photos))
			c.until("the run has ended", 10*time.Second, func() bool { return len(c.trials[1].ends) > 0 })
			if e := c.trials[1].ends[0]; e.Exit != trial.ExitDataMissing || !strings.Contains(fmt.Sprint(e), tc.want) {
				t.Errorf("%+v; want data_missing with %q", e, tc.want)
			}
		})
	}
}
