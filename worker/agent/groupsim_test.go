package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"atelier/common/trial"
)

// simulated is a training whose epoch takes a member so many seconds alone, and so
// many members a share of it. It is longer than a test.
func simulated(epochs int, seconds float64) string {
	return fmt.Sprintf(`{"epochs":%d,"epoch_seconds":%g}`, epochs, seconds)
}

// result is what a simulated training came to: the values of each epoch, and the
// hashes of the checkpoints.
func (c *groupCluster) result(t *testing.T, class trial.Exit) (epochs []string, sums map[int32]string) {
	t.Helper()
	c.until("the run ends", func() bool { return c.runEnd() != nil })
	c.mu.Lock()
	defer c.mu.Unlock()
	if end := c.runEnd(); end.Exit != class {
		t.Fatalf("the run ended %+v", end)
	}
	sums = map[int32]string{}
	for _, e := range c.events {
		if e.Report != nil {
			text := fmt.Sprint(e.Report.Epoch)
			for _, m := range e.Report.Metrics {
				if m.Name != "step_seconds" && m.Name != "waiting_share" { // what the clock shows is another each time
					text += fmt.Sprintf(" %s %v", m.Name, m.Value)
				}
			}
			switch n := int(e.Report.Epoch); {
			case n == len(epochs)+1:
				epochs = append(epochs, text)
			case n > len(epochs) || epochs[n-1] != text: // a successor may repeat what was not acknowledged
				t.Errorf("epoch %d is reported as %s after %s", n, text, epochs)
			}
		}
		if k := e.Checkpoint; k != nil {
			if sums[k.Epoch] != "" && sums[k.Epoch] != k.SHA256 {
				t.Errorf("epoch %d has two checkpoints that differ", k.Epoch)
			}
			sums[k.Epoch] = k.SHA256
		}
	}
	return epochs, sums
}

// runEnd is the end of the run, nil while it continues.
func (c *groupCluster) runEnd() *trial.Ended {
	for _, e := range c.events {
		if e.Ended != nil {
			return e.Ended
		}
	}
	return nil
}

func (c *groupCluster) reported(epoch int32) bool {
	return slices.ContainsFunc(c.events, func(e trial.Event) bool { return e.Report != nil && e.Report.Epoch == epoch })
}

// viewed reports whether the newest view is of these members.
func (c *groupCluster) viewed(members ...int32) bool {
	var newest *trial.View
	for _, e := range c.events {
		if e.View != nil && (newest == nil || e.View.Number > newest.Number) {
			newest = e.View
		}
	}
	return newest != nil && slices.Equal(newest.Members, members)
}

// pid of the trainer that works for a member: the oldest of its slot, since the next
// one stands by.
func (c *groupCluster) pid(t *testing.T, workers map[string]*worker, member int) int {
	t.Helper()
	name, slot, _ := strings.Cut(c.name(member), "/")
	files, _ := filepath.Glob(filepath.Join(workers[name].dir, "pids", "*.json"))
	pid, oldest := 0, uint64(1<<63)
	for _, f := range files {
		var r struct {
			PID   int
			Start uint64
			Slot  string
		}
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &r) == nil && r.Slot == slot && r.Start < oldest {
			pid, oldest = r.PID, r.Start
		}
	}
	if pid == 0 {
		t.Fatalf("no trainer of %s among %v", c.name(member), files)
	}
	return pid
}

// TestSimulatedGroupComesToTheSame: a training whose members are killed, join, are
// stopped and lose their agent comes to what one member alone comes to.
func TestSimulatedGroupComesToTheSame(t *testing.T) {
	alone := newGroupCluster(t, 1, simulated(200, 0))
	alone.trainer = "sim"
	startWorker(t, alone, 1, named("w1"))
	wantEpochs, wantSums := alone.result(t, trial.ExitFinished)

	c := newGroupCluster(t, 3, simulated(200, 2))
	c.trainer = "sim"
	workers := map[string]*worker{"w1": startWorker(t, c, 1, named("w1")), "w2": startWorker(t, c, 2, named("w2"))}
	c.until("it begins", func() bool { return c.reported(1) && c.viewed(1, 2, 3) })
	syscall.Kill(c.pid(t, workers, 1), syscall.SIGKILL) // it reports
	c.until("the others continue", func() bool { return c.viewed(2, 3) && c.reported(2) })
	workers["w3"] = startWorker(t, c, 2, named("w3", patient))
	c.with(func() { c.from, c.joins = "w3", 2 })
	c.until("newcomers join", func() bool { return c.viewed(2, 3, 4, 5) })
	syscall.Kill(c.pid(t, workers, 3), syscall.SIGSTOP)
	c.until("the stopped one is left out", func() bool { return c.viewed(2, 4, 5) })
	if end, whole := c.ended(3); whole || end.Exit != trial.ExitKilled || !strings.HasSuffix(end.Message, "gave no sign of life for 2 s") {
		t.Errorf("the stopped one ended %+v, of the run: %v", end, whole)
	}
	at, _, _ := strings.Cut(c.name(2), "/")
	workers[at].cancel()
	c.until("its agent ends", func() bool { return c.viewed(4, 5) })
	c.with(func() { c.leave = []int32{4} })
	c.until("one leaves", func() bool { return c.viewed(5) })
	last := len(wantEpochs)
	c.with(func() {
		for last = 1; c.reported(int32(last)); last++ {
		}
	})
	c.until("an epoch more", func() bool { return c.reported(int32(last)) })
	c.with(func() { c.verdict = trial.VerdictPause })
	epochs, sums := c.result(t, trial.ExitPaused)
	if n := len(epochs); n < last || n > len(wantEpochs) || !slices.Equal(epochs, wantEpochs[:n]) {
		t.Errorf("with faults:\n%s\nalone:\n%s", epochs, wantEpochs[:min(len(epochs)+1, len(wantEpochs))])
	}
	for epoch, sum := range sums {
		if sum != wantSums[epoch] {
			t.Errorf("the checkpoint of epoch %d is another than without faults", epoch)
		}
	}
	if sums[int32(len(epochs))] == "" {
		t.Errorf("%d epochs, and checkpoints %v", len(epochs), sums)
	}
}
