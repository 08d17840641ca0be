package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/trial"
	"atelier/worker/agent"
)

func TestTrainerThatCannotStartDoesNotBurnTrials(t *testing.T) {
	c := newCluster(t, term)
	c.add(50, `{}`)
	startWorker(t, c, 1, func(cfg *agent.Config) { cfg.Trainers[0].Command = []string{"/bin/false"} })
	c.until("three failed", 5*time.Second, func() bool { return c.ended(trial.ExitCrashed) == 3 })
	c.mu.Lock()
	defer c.mu.Unlock()
	// The slot pauses for half a second, then for one.
	if took := c.trials[3].endTimes[0].Sub(c.trials[1].endTimes[0]); took < 1500*time.Millisecond {
		t.Errorf("the third trial failed %s after the first", took)
	}
	if m := c.trials[1].ends[0].Message; !strings.Contains(m, "without a hello") {
		t.Errorf("message %q", m)
	}
}

// Four failures in a row, and none that started before: the installation is at
// fault, and no retry mends it.
func TestTrainerThatNeverStartedIsRefused(t *testing.T) {
	c := newCluster(t, term)
	c.add(50, `{}`)
	startWorker(t, c, 1, func(cfg *agent.Config) {
		cfg.Trainers[0].Command = []string{"/bin/sh", "-c", "echo libnone.so: cannot open shared object file >&2; exit 127"}
	})
	c.until("one was refused", 30*time.Second, func() bool { return c.ended(trial.ExitBadSpec) > 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.ended(trial.ExitCrashed); n != 3 {
		t.Errorf("%d crashed before", n)
	}
	for _, tr := range c.trials {
		for _, e := range tr.ends {
			refused := e.Exit == trial.ExitBadSpec
			if !strings.Contains(e.Message, "libnone.so: cannot open shared object file") || refused != strings.Contains(e.Message, `worker w has never been able to start trainer "sim"`) {
				t.Errorf("%v", e)
			}
		}
	}
}

// A trainer that started once and then does not is out of luck: its runs are
// tried again.
func TestTrainerThatStartedOnceIsTriedAgain(t *testing.T) {
	c := newCluster(t, term)
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	broken := filepath.Join(t.TempDir(), "broken")
	startWorker(t, c, 1, func(cfg *agent.Config) {
		cfg.Trainers[0].Command = []string{"/bin/sh", "-c", `[ -e "$0" ] && exit 1; exec "$1"`, broken, cfg.Trainers[0].Command[0]}
	})
	c.until("the first finished", 30*time.Second, func() bool { return c.ended(trial.ExitFinished) == 1 })
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.add(50, `{"epochs":1,"epoch_seconds":0}`)
	c.until("five crashed", 60*time.Second, func() bool { return c.ended(trial.ExitCrashed) >= 5 })
	c.with(func() {
		if n := c.ended(trial.ExitBadSpec); n > 0 {
			t.Errorf("%d were refused", n)
		}
	})
}

func TestStandbyThatDiedIsReplaced(t *testing.T) {
	c := newCluster(t, term)
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	w := startWorker(t, c, 1, nil)
	c.until("one finished", 5*time.Second, func() bool { return c.ended(trial.ExitFinished) == 1 })
	c.until("a trainer stands by", 5*time.Second, func() bool { return w.trainers() == 1 })
	files, _ := filepath.Glob(filepath.Join(w.dir, "pids", "*.json"))
	pid := 0
	for _, r := range filepath.Base(files[0]) {
		if r < '0' || r > '9' {
			break
		}
		pid = pid*10 + int(r-'0')
	}
	syscall.Kill(pid, syscall.SIGKILL)
	c.until("it is gone", 5*time.Second, func() bool { _, err := os.Stat(files[0]); return err != nil })
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	c.until("the next finished", 5*time.Second, func() bool { return c.ended(trial.ExitFinished) == 2 })
	if n := c.trials[2].runs; n != 1 {
		t.Errorf("%d runs", n)
	}
}
