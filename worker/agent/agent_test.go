package agent_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trial"
	"atelier/worker/agent"
)

// term is of leases whose end is not what a test is about: a loaded machine is
// slow, and may not lose them.
const term = 20 * time.Second

func TestTrialsFinishOnceWhateverRepliesAreLost(t *testing.T) {
	c := newCluster(t, term)
	c.loseReply = map[string]int{"acquire": 5, "relay": 5, "heartbeat": 2}
	c.add(20, `{"epochs":3,"epoch_seconds":0.02}`)
	startWorker(t, c, 3, nil)
	c.until("20 trials finished", 15*time.Second, func() bool { return c.ended(trial.ExitFinished) == 20 })
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
	c := newCluster(t, term)
	c.add(2, `{"epochs":30,"epoch_seconds":0.05,"checkpoint_every":10}`)
	reg := prometheus.NewRegistry()
	startWorker(t, c, 2, func(cfg *agent.Config) { cfg.Registry = reg })
	c.until("two trials report", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 2 && len(c.trials[2].epochs) > 2 })
	c.with(func() { c.away = true })
	c.until("both have ended here", time.Minute, func() bool { return value(t, reg, "atelier_worker_runs_total") == 2 })
	c.with(func() {
		c.away = false
		for _, tr := range c.trials {
			tr.deadline = time.Now().Add(c.ttl) // a new leader gives the full term again
		}
	})
	c.until("both finished", 5*time.Second, func() bool { return c.ended(trial.ExitFinished) == 2 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tr := range c.trials {
		if len(tr.epochs) != 30 || tr.runs != 1 {
			t.Errorf("trial %d: %d epochs, %d runs; want 30 and 1", tr.n, len(tr.epochs), tr.runs)
		}
	}
}

func TestRunEndsBeforeALeaseThatCannotBeRenewed(t *testing.T) {
	c := newCluster(t, 4*time.Second)
	c.add(1, `{"epochs":1000,"epoch_seconds":0.05}`)
	reg := prometheus.NewRegistry()
	startWorker(t, c, 1, func(cfg *agent.Config) { cfg.Registry = reg })
	c.until("the trial reports", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 2 })
	var runsOut time.Time // by the coordinators' clock
	c.with(func() { c.away = true; runsOut = c.trials[1].deadline })
	// A run counts when its processes are gone.
	c.until("the run is dead", time.Minute, func() bool { return value(t, reg, "atelier_worker_runs_total") == 1 })
	// The agent ends it half a second before; a loaded machine kills slowly.
	if late := time.Since(runsOut); late > time.Second {
		t.Errorf("it went on for %s after its lease had run out", late)
	}
	// Nothing it said is lost, and the trial goes on from its checkpoint.
	c.with(func() {
		c.ttl = time.Minute // the second run shall not lose its own
		c.trials[1].deadline = time.Now().Add(c.ttl)
		c.away = false
	})
	c.until("a second run", 10*time.Second, func() bool { return c.trials[1].runs == 2 && len(c.trials[1].epochs) > 30 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.trials[1].epochs {
		if e != int32(i+1) {
			t.Fatalf("epochs %v: %d is missing", c.trials[1].epochs, i+1)
		}
	}
	if len(c.trials[1].ends) != 1 || c.trials[1].ends[0].Exit != trial.ExitLost {
		t.Errorf("ends %v, want LOST", c.trials[1].ends)
	}
}

func TestFencedRunIsKilled(t *testing.T) {
	c := newCluster(t, term) // so that a heartbeat is not what ends it
	c.add(1, `{"epochs":1000,"epoch_seconds":0.02}`)
	reg := prometheus.NewRegistry()
	w := startWorker(t, c, 1, func(cfg *agent.Config) { cfg.Registry = reg })
	c.until("the trial reports", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 2 })
	c.with(func() { c.noGrant = true; c.trials[1].lease = 0 })
	c.until("the fenced run is dead", time.Minute, func() bool { return value(t, reg, "atelier_worker_runs_total") == 1 })
	// The coordinators know: when all that waits is sent, its end is not told.
	w.Drain()
	if err := w.wait(t, 5*time.Second); err != nil {
		t.Error(err)
	}
	c.with(func() {
		if tr := c.trials[1]; tr.fenced == 0 || len(tr.ends) != 0 {
			t.Errorf("%d events fenced, ends %v", tr.fenced, tr.ends)
		}
	})
}

func TestVerdicts(t *testing.T) {
	for name, tc := range map[string]struct {
		training string
		verdict  trial.Verdict
		class    trial.Exit
	}{
		"stop":                      {`{"epochs":1000,"epoch_seconds":0.02}`, trial.VerdictStop, trial.ExitStopped},
		"pause":                     {`{"epochs":1000,"epoch_seconds":0.02}`, trial.VerdictPause, trial.ExitPaused},
		"stop, and it does not":     {`{"epochs":1000,"epoch_seconds":0.02,"ignore_stop":true}`, trial.VerdictStop, trial.ExitStopped},
		"stop, by heartbeat":        {`{"epochs":1000,"epoch_seconds":10}`, trial.VerdictStop, trial.ExitStopped},
		"stop, too late to matter ": {`{"epochs":6,"epoch_seconds":0.02,"ignore_stop":true}`, trial.VerdictStop, trial.ExitFinished},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 4*time.Second)
			c.add(1, tc.training)
			startWorker(t, c, 1, nil)
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
	for training, class := range map[string]trial.Exit{
		`{"epoch_seconds":0,"fail_class":"out_of_memory"}`: trial.ExitOutOfMemory,
		`{"epoch_seconds":0,"fail_class":"device_fault"}`:  trial.ExitDeviceFault,
		`{"epoch_seconds":0,"fail_class":"disk_full"}`:     trial.ExitDiskFull,
		`{"epochs":-1}`:                        trial.ExitBadSpec,
		`{"epoch_seconds":0,"nan_at_epoch":2}`: trial.ExitDiverged,
		`not json`:                             trial.ExitCrashed,
		`{"epoch_seconds":0.01,"fail_runs":1,"crash_signal":9}`: trial.ExitKilled,
	} {
		c := newCluster(t, term)
		c.add(1, training)
		startWorker(t, c, 1, nil)
		c.until("it ended", 5*time.Second, func() bool { return len(c.trials[1].ends) > 0 })
		if e := c.trials[1].ends[0]; e.Exit != class {
			t.Errorf("%s: %v, want %v", training, e, class)
		}
	}
}

func TestDrainReleasesWithACheckpoint(t *testing.T) {
	c := newCluster(t, term)
	c.add(3, `{"epochs":1000,"epoch_seconds":0.05,"checkpoint_every":500}`)
	w := startWorker(t, c, 2, nil)
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
		if len(tr.ends) != 1 || tr.ends[0].Exit != trial.ExitReleased {
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
	c := newCluster(t, term)
	c.add(1, `{"epochs":1000,"epoch_seconds":0.05,"ignore_stop":true}`)
	w := startWorker(t, c, 1, func(cfg *agent.Config) { cfg.DrainGrace = 300 * time.Millisecond })
	c.until("it runs", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 })
	w.Drain()
	if err := w.wait(t, 3*time.Second); err != nil {
		t.Error(err)
	}
	if e := c.trials[1].ends; len(e) != 1 || e[0].Exit != trial.ExitReleased {
		t.Errorf("ends %v", e)
	}
}

func TestEndAtOnce(t *testing.T) {
	c := newCluster(t, term)
	c.add(1, `{"epochs":1000,"epoch_seconds":0.05,"ignore_stop":true}`)
	w := startWorker(t, c, 1, nil)
	c.until("it runs", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 })
	w.Drain()
	w.cancel()
	if err := w.wait(t, 2*time.Second); err != nil {
		t.Error(err)
	}
	if e := c.trials[1].ends; len(e) != 1 || e[0].Exit != trial.ExitReleased {
		t.Errorf("ends %v", e)
	}
}

func TestFullQueueHoldsTrainersBackAndLosesNothing(t *testing.T) {
	c := newCluster(t, 60*time.Second)
	c.add(1, `{"epochs":20000,"epoch_seconds":0,"checkpoint_every":0}`)
	gate := make(chan struct{})
	c.relayGate = gate
	const limit = 32 << 10
	reg := prometheus.NewRegistry()
	startWorker(t, c, 1, func(cfg *agent.Config) { cfg.QueueBytes, cfg.Registry = limit, reg })
	c.until("the queue is full", 5*time.Second, func() bool { return value(t, reg, "atelier_worker_queue_bytes") > limit*9/10 })
	if n := value(t, reg, "atelier_worker_queue_bytes"); n > limit {
		t.Errorf("%v bytes wait, the limit is %d", n, limit)
	}
	c.with(func() { c.relayGate = nil })
	close(gate)
	c.until("it finished", 20*time.Second, func() bool { return c.ended(trial.ExitFinished) == 1 })
	if n := len(c.trials[1].epochs); n != 20000 {
		t.Errorf("%d epochs arrived, want 20000", n)
	}
}

func TestResumeFromTheNewestUsableCheckpoint(t *testing.T) {
	c := newCluster(t, term)
	c.add(1, `{"epochs":8,"epoch_seconds":0.01,"crash_signal":9,"fail_at_epoch":5,"fail_runs":1}`)
	var dir string
	w := startWorker(t, c, 1, nil)
	dir = w.dir
	c.until("the first run was killed", 5*time.Second, func() bool { return len(c.trials[1].ends) > 0 })
	c.until("it finished", 5*time.Second, func() bool { return c.ended(trial.ExitFinished) == 1 })
	tr := c.trials[1]
	if !slices.Equal(tr.epochs, []int32{1, 2, 3, 4, 5, 6, 7, 8}) || tr.runs != 2 {
		t.Errorf("%d runs, epochs %v", tr.runs, tr.epochs)
	}
	var second []int32
	for _, cp := range tr.checkpoints {
		if strings.Contains(string(cp.Location), "/run-2/") {
			second = append(second, cp.Epoch)
		}
	}
	if !slices.Equal(second, []int32{5, 6, 7, 8}) {
		t.Errorf("the second run wrote checkpoints %v, want 5 to 8: it went on from 4", second)
	}
	// Files the index may still name are there, the others go.
	c.until("the others are gone", time.Minute, func() bool {
		files, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "s-test", "1", "run-*", "*.sim"))
		return len(files) > 0 && len(files) <= 3
	})
	best, newest := tr.checkpoints[0], tr.checkpoints[len(tr.checkpoints)-1]
	for _, cp := range tr.checkpoints {
		if *cp.Metric < *best.Metric {
			best = cp
		}
	}
	for _, cp := range []trial.Checkpoint{best, newest} {
		if _, err := w.store.Fetch(t.Context(), cp); err != nil {
			t.Error(err)
		}
	}
}

func TestNextLeaseIsFetchedAheadOfTheEnd(t *testing.T) {
	c := newCluster(t, term)
	w := startWorker(t, c, 1, func(cfg *agent.Config) { cfg.Warm = []string{"sim"} })
	// The longest run so far is what the next lease is timed by: a cold start would be in it.
	c.until("a trainer stands by", 5*time.Second, func() bool { return w.trainers() == 1 })
	two, rounds := false, 0
	// A run that a loaded machine began late is timed too long: those after it are not.
	for ; !two && rounds < 5; rounds++ {
		c.add(4, `{"epochs":2,"epoch_seconds":0.4,"checkpoint_every":0}`)
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
			return c.ended(trial.ExitFinished) == 4*(rounds+1)
		})
	}
	if !two {
		t.Error("no lease was fetched ahead")
	}
}

func TestLeaseFetchedAheadIsGivenBack(t *testing.T) {
	c := newCluster(t, term)
	c.add(1, `{"epochs":1,"epoch_seconds":0.3,"checkpoint_every":0}`)
	c.add(1, `{"epochs":1,"epoch_seconds":60,"checkpoint_every":0}`)
	c.add(1, `{"epochs":1,"epoch_seconds":0,"checkpoint_every":0}`)
	w := startWorker(t, c, 1, func(cfg *agent.Config) { cfg.PrefetchHold = 300 * time.Millisecond })
	c.until("a second lease", 5*time.Second, func() bool { return c.trials[3].lease != 0 })
	// Its slot stays busy: others should have it.
	c.until("it was given back", 3*time.Second, func() bool { c.noGrant = true; return len(c.trials[3].ends) == 1 })
	if e := c.trials[3].ends[0]; e.Exit != trial.ExitReleased {
		t.Errorf("%v", e)
	}
	w.Drain()
	w.wait(t, 4*time.Second)
	if e := c.trials[2].ends; len(e) != 1 || e[0].Exit != trial.ExitReleased {
		t.Errorf("%v", e)
	}
}

func TestDrainedByTheCoordinators(t *testing.T) {
	c := newCluster(t, 2*time.Second)
	c.with(func() { c.drained = true })
	startWorker(t, c, 1, nil)
	c.add(1, `{"epochs":1,"epoch_seconds":0}`)
	c.until("it is told twice", 5*time.Second, func() bool { return len(c.beats) > 2 })
	c.with(func() {
		if c.trials[1].runs != 0 {
			t.Error("took a lease")
		}
		c.drained = false
	})
	c.until("it finished after the drain was undone", 5*time.Second, func() bool { return c.ended(trial.ExitFinished) == 1 })
}

// A run ends at its lease's last epoch while nobody leads: by itself, or, where
// its trainer knows of no end, by the agent; nothing beyond is told.
func TestRunEndsAtItsLastEpochByItself(t *testing.T) {
	for name, training := range map[string]string{
		"trainer that knows its end":   `{"epochs":1000,"epoch_seconds":0.05,"checkpoint_every":100}`,
		"trainer that knows of no end": `{"epochs":1000,"epoch_seconds":0.05,"ignore_stop":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, term)
			c.add(1, training)
			c.with(func() { c.trials[1].end = 8 })
			reg := prometheus.NewRegistry()
			startWorker(t, c, 1, func(cfg *agent.Config) { cfg.Registry = reg })
			c.until("the trial reports", 5*time.Second, func() bool { return len(c.trials[1].epochs) > 1 })
			c.with(func() { c.away = true })
			c.until("it has ended here", time.Minute, func() bool { return value(t, reg, "atelier_worker_runs_total") == 1 })
			c.with(func() { c.away = false; c.trials[1].deadline = time.Now().Add(c.ttl) })
			c.until("it ended", 6*time.Second, func() bool { return len(c.trials[1].ends) == 1 })
			c.mu.Lock()
			defer c.mu.Unlock()
			tr := c.trials[1]
			if tr.ends[0].Exit != trial.ExitPaused || len(tr.epochs) != 8 || tr.epochs[7] != 8 || tr.runs != 1 {
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
	c := newCluster(t, 2*time.Second)
	c.with(func() { c.refuses = "the name is held by another worker" })
	c.add(1, `{"epochs":2,"epoch_seconds":0.02}`)
	w := startWorker(t, c, 1, nil)
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
