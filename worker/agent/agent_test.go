package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/worker/agent"
)

func TestTrialsFinishOnceWhateverRepliesAreLost(t *testing.T) {
	c, mux := newCluster(t, 2*time.Second)
	c.loseReply = map[string]int{"acquire": 5, "relay": 5, "heartbeat": 2}
	c.add(20, `{"epochs":3,"epoch_seconds":0.02}`)
	startWorker(t, c, mux, 3, nil)
	c.until("20 trials finished", 15*time.Second, func() bool { return c.ended(finished) == 20 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tr := range c.trials {
		if tr.runs != 1 || !slices.Equal(tr.epochs, []int32{1, 2, 3}) || len(tr.ends) != 1 || tr.fenced != 0 {
			t.Errorf("trial %d: %d runs, epochs %v, ends %v, %d fenced", tr.n, tr.runs, tr.epochs, tr.ends, tr.fenced)
		}
		if len(tr.checkpoints) != 3 {
			t.Errorf("trial %d: %d checkpoints", tr.n, len(tr.checkpoints))
		}
	}
}

func TestRunsGoOnWhileThereIsNoLeader(t *testing.T) {
	c, mux := newCluster(t, 4*time.Second)
	c.add(2, `{"epochs":30,"epoch_seconds":0.05,"checkpoint_every":10}`)
	startWorker(t, c, mux, 2, nil)
	c.until("two trials report", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 2 && len(c.trials[2].epochs) > 2 })
	c.with(func() { c.away = true })
	time.Sleep(1800 * time.Millisecond) // both end meanwhile
	c.with(func() {
		c.away = false
		for _, tr := range c.trials {
			tr.deadline = time.Now().Add(c.ttl) // a new leader gives the full term again
		}
	})
	c.until("both finished", 5*time.Second, func() bool { return c.ended(finished) == 2 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tr := range c.trials {
		if len(tr.epochs) != 30 || tr.runs != 1 {
			t.Errorf("trial %d: %d epochs, %d runs; want 30 and 1", tr.n, len(tr.epochs), tr.runs)
		}
	}
}

func TestRunEndsBeforeALeaseThatCannotBeRenewed(t *testing.T) {
	c, mux := newCluster(t, 2*time.Second)
	c.add(1, `{"epochs":1000,"epoch_seconds":0.05}`)
	w := startWorker(t, c, mux, 1, nil)
	c.until("the trial reports", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 2 })
	c.with(func() { c.away = true })
	began := time.Now()
	// Only the standby is left when the run is dead.
	for w.trainers() > 1 {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the run goes on without a lease")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("ended %s after the last renewal could have been sent; the lease has 2 s", took)
	}
	// Nothing it said is lost, and the trial goes on from its checkpoint.
	c.with(func() { c.trials[1].deadline = time.Now().Add(c.ttl); c.away = false })
	c.until("a second run", 10*time.Second, func() bool { return c.trials[1].runs == 2 && len(c.trials[1].epochs) > 30 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.trials[1].epochs {
		if e != int32(i+1) {
			t.Fatalf("epochs %v: %d is missing", c.trials[1].epochs, i+1)
		}
	}
	if len(c.trials[1].ends) != 1 || wire.Exit(c.trials[1].ends[0].Exit) != trial.ExitLost {
		t.Errorf("ends %v, want LOST", c.trials[1].ends)
	}
}

func TestFencedRunIsKilled(t *testing.T) {
	c, mux := newCluster(t, 30*time.Second) // so that a heartbeat is not what ends it
	c.add(1, `{"epochs":1000,"epoch_seconds":0.02}`)
	w := startWorker(t, c, mux, 1, nil)
	c.until("the trial reports", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 2 })
	c.with(func() { c.noGrant = true; c.trials[1].lease = 0 })
	for began := time.Now(); w.trainers() > 1; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the fenced run goes on")
		}
	}
	time.Sleep(200 * time.Millisecond)
	c.mu.Lock()
	fenced := c.trials[1].fenced
	c.mu.Unlock()
	time.Sleep(300 * time.Millisecond)
	c.until("nothing more is sent for it", time.Second, func() bool { return c.trials[1].fenced == fenced && len(c.trials[1].ends) == 0 })
}

func TestVerdicts(t *testing.T) {
	for name, tc := range map[string]struct {
		training string
		verdict  atelierv1.Verdict
		class    atelierv1.ExitClass
	}{
		"stop":                      {`{"epochs":1000,"epoch_seconds":0.02}`, wire.ToVerdict(trial.VerdictStop), wire.ToExit(trial.ExitStopped)},
		"pause":                     {`{"epochs":1000,"epoch_seconds":0.02}`, wire.ToVerdict(trial.VerdictPause), wire.ToExit(trial.ExitPaused)},
		"stop, and it does not":     {`{"epochs":1000,"epoch_seconds":0.02,"ignore_stop":true}`, wire.ToVerdict(trial.VerdictStop), wire.ToExit(trial.ExitStopped)},
		"stop, by heartbeat":        {`{"epochs":1000,"epoch_seconds":10}`, wire.ToVerdict(trial.VerdictStop), wire.ToExit(trial.ExitStopped)},
		"stop, too late to matter ": {`{"epochs":6,"epoch_seconds":0.02,"ignore_stop":true}`, wire.ToVerdict(trial.VerdictStop), wire.ToExit(trial.ExitFinished)},
	} {
		t.Run(name, func(t *testing.T) {
			c, mux := newCluster(t, 2*time.Second)
			c.add(1, tc.training)
			startWorker(t, c, mux, 1, nil)
			c.until("it runs", 5*time.Second, func() bool { return c.trials[1].lease != 0 })
			c.with(func() { c.trials[1].verdict = tc.verdict })
			c.until("it ended", 6*time.Second, func() bool { return len(c.trials[1].ends) == 1 })
			if e := c.trials[1].ends[0]; e.Exit != tc.class {
				t.Errorf("%v, want %v", e, tc.class)
			}
		})
	}
}

func TestExitClassesReachTheCoordinators(t *testing.T) {
	for training, class := range map[string]atelierv1.ExitClass{
		`{"epoch_seconds":0,"fail_class":"out_of_memory"}`: wire.ToExit(trial.ExitOutOfMemory),
		`{"epoch_seconds":0,"fail_class":"device_fault"}`:  wire.ToExit(trial.ExitDeviceFault),
		`{"epoch_seconds":0,"fail_class":"disk_full"}`:     wire.ToExit(trial.ExitDiskFull),
		`{"epochs":-1}`:                        wire.ToExit(trial.ExitBadSpec),
		`{"epoch_seconds":0,"nan_at_epoch":2}`: wire.ToExit(trial.ExitDiverged),
		`not json`:                             wire.ToExit(trial.ExitCrashed),
		`{"epoch_seconds":0.01,"fail_runs":1,"crash_signal":9}`: wire.ToExit(trial.ExitKilled),
	} {
		c, mux := newCluster(t, 2*time.Second)
		c.add(1, training)
		startWorker(t, c, mux, 1, nil)
		c.until("it ended", 5*time.Second, func() bool { return len(c.trials[1].ends) > 0 })
		if e := c.trials[1].ends[0]; e.Exit != class {
			t.Errorf("%s: %v, want %v", training, e, class)
		}
	}
}

func TestDrainReleasesWithACheckpoint(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(3, `{"epochs":1000,"epoch_seconds":0.05,"checkpoint_every":500}`)
	w := startWorker(t, c, mux, 2, nil)
	c.until("two run", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 && len(c.trials[2].epochs) > 1 })
	w.Drain()
	if err := w.wait(t, 3*time.Second); err != nil {
		t.Error(err)
	}
	if w.trainers() != 0 {
		t.Errorf("%d trainers are left", w.trainers())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := int64(1); n <= 2; n++ {
		tr := c.trials[n]
		if len(tr.ends) != 1 || wire.Exit(tr.ends[0].Exit) != trial.ExitReleased {
			t.Errorf("trial %d: ends %v", n, tr.ends)
		}
		if k := len(tr.checkpoints); k != 1 || tr.checkpoints[0].Epoch != tr.epochs[len(tr.epochs)-1] {
			t.Errorf("trial %d: %d checkpoints after epochs %v", n, k, tr.epochs)
		}
	}
	if c.trials[3].runs != 0 {
		t.Error("a lease was taken while draining")
	}
	if last := c.beats[len(c.beats)-1]; !last.Worker.Draining || len(last.Leases) != 0 {
		t.Errorf("last heartbeat: %v", last)
	}
}

func TestDrainDoesNotWaitForever(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(1, `{"epochs":1000,"epoch_seconds":0.05,"ignore_stop":true}`)
	w := startWorker(t, c, mux, 1, func(cfg *agent.Config) { cfg.DrainGrace = 300 * time.Millisecond })
	c.until("it runs", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 })
	w.Drain()
	if err := w.wait(t, 3*time.Second); err != nil {
		t.Error(err)
	}
	if e := c.trials[1].ends; len(e) != 1 || wire.Exit(e[0].Exit) != trial.ExitReleased {
		t.Errorf("ends %v", e)
	}
}

func TestEndAtOnce(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(1, `{"epochs":1000,"epoch_seconds":0.05,"ignore_stop":true}`)
	w := startWorker(t, c, mux, 1, nil)
	c.until("it runs", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 })
	w.Drain()
	w.cancel()
	if err := w.wait(t, 2*time.Second); err != nil {
		t.Error(err)
	}
	if e := c.trials[1].ends; len(e) != 1 || wire.Exit(e[0].Exit) != trial.ExitReleased {
		t.Errorf("ends %v", e)
	}
}

func TestFullQueueHoldsTrainersBackAndLosesNothing(t *testing.T) {
	c, mux := newCluster(t, 60*time.Second)
	c.add(1, `{"epochs":20000,"epoch_seconds":0,"checkpoint_every":0}`)
	gate := make(chan struct{})
	c.relayGate = gate
	startWorker(t, c, mux, 1, func(cfg *agent.Config) { cfg.QueueBytes = 32 << 10 })
	c.until("it runs", 5*time.Second, func() bool { return c.trials[1].lease != 0 })
	time.Sleep(500 * time.Millisecond)
	c.with(func() { c.relayGate = nil })
	close(gate)
	c.until("it finished", 20*time.Second, func() bool { return c.ended(finished) == 1 })
	if n := len(c.trials[1].epochs); n != 20000 {
		t.Errorf("%d epochs arrived, want 20000", n)
	}
}

func TestResumeFromTheNewestUsableCheckpoint(t *testing.T) {
	c, mux := newCluster(t, 3*time.Second)
	c.add(1, `{"epochs":8,"epoch_seconds":0.01,"crash_signal":9,"fail_at_epoch":5,"fail_runs":1}`)
	var dir string
	w := startWorker(t, c, mux, 1, nil)
	dir = w.dir
	c.until("the first run was killed", 5*time.Second, func() bool { return len(c.trials[1].ends) > 0 })
	c.until("it finished", 5*time.Second, func() bool { return c.ended(finished) == 1 })
	tr := c.trials[1]
	if !slices.Equal(tr.epochs, []int32{1, 2, 3, 4, 5, 6, 7, 8}) || tr.runs != 2 {
		t.Errorf("%d runs, epochs %v", tr.runs, tr.epochs)
	}
	var second []int32
	for _, cp := range tr.checkpoints {
		if strings.Contains(cp.Location, "/run-2/") {
			second = append(second, cp.Epoch)
		}
	}
	if !slices.Equal(second, []int32{5, 6, 7, 8}) {
		t.Errorf("the second run wrote checkpoints %v, want 5 to 8: it went on from 4", second)
	}
	// Files the index may still name are there, the others go.
	time.Sleep(100 * time.Millisecond)
	files, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "s-test", "1", "run-*", "*.sim"))
	if len(files) == 0 || len(files) > 3 {
		t.Errorf("files left: %v", files)
	}
	best, newest := tr.checkpoints[0], tr.checkpoints[len(tr.checkpoints)-1]
	for _, cp := range tr.checkpoints {
		if cp.Metric < best.Metric {
			best = cp
		}
	}
	for _, cp := range []*atelierv1.Checkpoint{best, newest} {
		if _, err := w.store.Fetch(t.Context(), cp); err != nil {
			t.Error(err)
		}
	}
}

func TestNextLeaseIsFetchedAheadOfTheEnd(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(6, `{"epochs":2,"epoch_seconds":0.2,"checkpoint_every":0}`)
	startWorker(t, c, mux, 1, nil)
	two := false
	c.until("all finished", 10*time.Second, func() bool {
		live := 0
		for _, tr := range c.trials {
			if tr.lease != 0 {
				live++
			}
		}
		if live > 2 {
			t.Fatalf("%d leases for one slot", live)
		}
		two = two || live == 2
		return c.ended(finished) == 6
	})
	if !two {
		t.Error("no lease was fetched ahead")
	}
}

func TestLeaseFetchedAheadIsGivenBack(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(1, `{"epochs":1,"epoch_seconds":0.3,"checkpoint_every":0}`)
	c.add(1, `{"epochs":1,"epoch_seconds":60,"checkpoint_every":0}`)
	c.add(1, `{"epochs":1,"epoch_seconds":0,"checkpoint_every":0}`)
	w := startWorker(t, c, mux, 1, func(cfg *agent.Config) { cfg.PrefetchHold = 300 * time.Millisecond })
	c.until("a second lease", 5*time.Second, func() bool { return c.trials[3].lease != 0 })
	// Its slot stays busy: others should have it.
	c.until("it was given back", 3*time.Second, func() bool { c.noGrant = true; return len(c.trials[3].ends) == 1 })
	if e := c.trials[3].ends[0]; wire.Exit(e.Exit) != trial.ExitReleased {
		t.Errorf("%v", e)
	}
	w.Drain()
	w.wait(t, 4*time.Second)
	if e := c.trials[2].ends; len(e) != 1 || wire.Exit(e[0].Exit) != trial.ExitReleased {
		t.Errorf("%v", e)
	}
}

func TestTrainerThatCannotStartDoesNotBurnTrials(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(50, `{}`)
	startWorker(t, c, mux, 1, func(cfg *agent.Config) { cfg.Trainers[0].Command = []string{"/bin/false"} })
	c.until("one failed", 5*time.Second, func() bool { return c.ended(wire.ToExit(trial.ExitCrashed)) > 0 })
	time.Sleep(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.ended(wire.ToExit(trial.ExitCrashed)); n > 3 {
		t.Errorf("%d trials failed within a second", n)
	}
	if m := c.trials[1].ends[0].Message; !strings.Contains(m, "without a hello") {
		t.Errorf("message %q", m)
	}
}

// Four failures in a row, and none that started before: the installation is at
// fault, and no retry mends it.
func TestTrainerThatNeverStartedIsRefused(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(50, `{}`)
	startWorker(t, c, mux, 1, func(cfg *agent.Config) {
		cfg.Trainers[0].Command = []string{"/bin/sh", "-c", "echo libnone.so: cannot open shared object file >&2; exit 127"}
	})
	c.until("one was refused", 30*time.Second, func() bool { return c.ended(wire.ToExit(trial.ExitBadSpec)) > 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.ended(wire.ToExit(trial.ExitCrashed)); n != 3 {
		t.Errorf("%d crashed before", n)
	}
	for _, tr := range c.trials {
		for _, e := range tr.ends {
			refused := wire.Exit(e.Exit) == trial.ExitBadSpec
			if !strings.Contains(e.Message, "libnone.so: cannot open shared object file") || refused != strings.Contains(e.Message, `worker w has never been able to start trainer "sim"`) {
				t.Errorf("%v", e)
			}
		}
	}
}

// A trainer that started once and then does not is out of luck: its runs are
// tried again.
func TestTrainerThatStartedOnceIsTriedAgain(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	broken := filepath.Join(t.TempDir(), "broken")
	startWorker(t, c, mux, 1, func(cfg *agent.Config) {
		cfg.Trainers[0].Command = []string{"/bin/sh", "-c", `[ -e "$0" ] && exit 1; exec "$1"`, broken, cfg.Trainers[0].Command[0]}
	})
	c.until("the first finished", 30*time.Second, func() bool { return c.ended(finished) == 1 })
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.add(50, `{"epochs":1,"epoch_seconds":0}`)
	c.until("five crashed", 60*time.Second, func() bool { return c.ended(wire.ToExit(trial.ExitCrashed)) >= 5 })
	c.with(func() {
		if n := c.ended(wire.ToExit(trial.ExitBadSpec)); n > 0 {
			t.Errorf("%d were refused", n)
		}
	})
}

func TestDrainedByTheCoordinators(t *testing.T) {
	c, mux := newCluster(t, 2*time.Second)
	c.with(func() { c.drained = true })
	startWorker(t, c, mux, 1, nil)
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	time.Sleep(600 * time.Millisecond)
	c.with(func() {
		if c.trials[1].runs != 0 {
			t.Error("took a lease")
		}
		c.drained = false
	})
	c.until("it finished after the drain was undone", 5*time.Second, func() bool { return c.ended(finished) == 1 })
}

func TestStandbyThatDiedIsReplaced(t *testing.T) {
	c, mux := newCluster(t, 5*time.Second)
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	w := startWorker(t, c, mux, 1, nil)
	c.until("one finished", 5*time.Second, func() bool { return c.ended(finished) == 1 })
	time.Sleep(200 * time.Millisecond)
	files, _ := filepath.Glob(filepath.Join(w.dir, "pids", "*.json"))
	if len(files) != 1 {
		t.Fatalf("standing by: %v", files)
	}
	pid := 0
	for _, r := range filepath.Base(files[0]) {
		if r < '0' || r > '9' {
			break
		}
		pid = pid*10 + int(r-'0')
	}
	syscall.Kill(pid, syscall.SIGKILL)
	for range 100 {
		if _, err := os.Stat(files[0]); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	c.until("the next finished", 5*time.Second, func() bool { return c.ended(finished) == 2 })
	if n := c.trials[2].runs; n != 1 {
		t.Errorf("%d runs", n)
	}
}

// A run ends at its lease's last epoch while nobody leads: by itself, or, where
// its trainer knows of no end, by the agent; nothing beyond is told.
func TestRunEndsAtItsLastEpochByItself(t *testing.T) {
	for name, training := range map[string]string{
		"trainer that knows its end":   `{"epochs":1000,"epoch_seconds":0.05,"checkpoint_every":100}`,
		"trainer that knows of no end": `{"epochs":1000,"epoch_seconds":0.05,"ignore_stop":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, mux := newCluster(t, 4*time.Second)
			c.add(1, training)
			c.with(func() { c.trials[1].end = 8 })
			startWorker(t, c, mux, 1, nil)
			c.until("the trial reports", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 })
			c.with(func() { c.away = true })
			time.Sleep(1200 * time.Millisecond)
			c.with(func() { c.away = false; c.trials[1].deadline = time.Now().Add(c.ttl) })
			c.until("it ended", 6*time.Second, func() bool { return len(c.trials[1].ends) == 1 })
			c.mu.Lock()
			defer c.mu.Unlock()
			tr := c.trials[1]
			if wire.Exit(tr.ends[0].Exit) != trial.ExitPaused || len(tr.epochs) != 8 || tr.epochs[7] != 8 || tr.runs != 1 {
				t.Errorf("ended %v with epochs %v in %d runs", tr.ends[0], tr.epochs, tr.runs)
			}
			if n := len(tr.checkpoints); n == 0 || tr.checkpoints[n-1].Epoch != 8 {
				t.Errorf("the newest checkpoint is of %v, want epoch 8", tr.checkpoints)
			}
		})
	}
}

// An agent that the cluster will have nothing to do with ends and says why; one
// whose name may become free waits, and asks for no trial meanwhile.
func TestRefusedAgentEnds(t *testing.T) {
	c, mux := newCluster(t, 2*time.Second)
	c.with(func() { c.refuses = "the name is held by another worker" })
	c.add(1, `{"epochs":2,"epoch_seconds":0.02}`)
	w := startWorker(t, c, mux, 1, nil)
	c.until("it asks again", 10*time.Second, func() bool { return len(c.beats) > 2 })
	c.with(func() {
		if c.trials[1].runs != 0 {
			t.Error("a worker that was not taken in got a trial")
		}
		c.refuses = ""
	})
	c.until("it is taken in and works", 10*time.Second, func() bool { return len(c.trials[1].ends) == 1 })
	c.with(func() { c.refuses, c.final = "it was started again at 127.0.0.1:9", true })
	if err := w.wait(t, 10*time.Second); err == nil || !strings.Contains(err.Error(), "started again at 127.0.0.1:9") {
		t.Errorf("it ended with %v", err)
	}
}
