package api_test

import (
	"strings"
	"testing"
	"time"

	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// The answer to a report carries the stopping rule's verdict on it, so that a
// run does not train beyond its rung; a promoted trial is given out before a new
// one is proposed; what can no longer be promoted is stopped, with the reason.
func TestStoppingRuleThroughTheAPI(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(3, 1)+"stopping: {rule: asha, min_epochs: 1, reduction: 2}\n")
	if sw.StoppingJson != `{"rule":"asha","min_epochs":1,"max_epochs":2,"reduction":2,"spend":0.25}` {
		t.Fatalf("the sweep's rule is %s", sw.StoppingJson)
	}
	a := coordinatortest.NewAgent(t, c.API, "w1")
	toRung := func(number int64, value float64) {
		t.Helper()
		l := a.Acquire(30 * time.Second)
		if l == nil || l.Trial != number || l.Run != 1 {
			t.Fatalf("the lease is %v, want the first run of trial %d", l, number)
		}
		answers := a.Relay(coordinatortest.Report(l, 1, value), coordinatortest.Checkpointed(l, 1, value))
		if v := answers[0]; wire.Verdict(v.Verdict) != trial.VerdictPause || !strings.Contains(v.Message, "rung of epoch 1") {
			t.Fatalf("the answer to the report of the rung is %v", v)
		}
		a.Relay(coordinatortest.Ended(l, trial.ExitPaused))
	}
	toRung(1, 0.5)
	toRung(2, 0.3) // the better of two: goes on at once
	l := a.Acquire(30 * time.Second)
	if l == nil || l.Trial != 2 || l.Run != 2 || l.LastEpoch != 1 || len(l.Checkpoints) != 1 || l.Checkpoints[0].Epoch != 1 {
		t.Fatalf("the lease is %v, want trial 2 from its checkpoint", l)
	}
	if answers := a.Relay(coordinatortest.Report(l, 2, 0.2)); wire.Verdict(answers[0].Verdict) != trial.VerdictContinue {
		t.Errorf("the answer to the last report is %v", answers[0])
	}
	a.Relay(coordinatortest.Ended(l, trial.ExitFinished))
	toRung(3, 0.4)
	coordinatortest.Until(t, "the sweep ends", func() bool { return wire.SweepStatus(c.Sweep(t, sw.Id).Status) == trial.SweepFinished })
	for n, want := range map[int64]string{1: "2nd of 2", 3: "2nd of 3"} {
		tr := c.Trial(t, sw.Id, n)
		if wire.Status(tr.Status) != trial.Stopped || !strings.Contains(tr.StopReason, want) {
			t.Errorf("trial %d is %v: %q, want it stopped as the %s", n, tr.Status, tr.StopReason, want)
		}
	}
}
