package api_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// The same spec and seed give the same points, whatever the parallelism was and
// however the proposals came about.
func TestPointsDependOnTheSeedAlone(t *testing.T) {
	c := node.Start(t, node.Options{})
	points := func(id string) string {
		page, err := c.Trials.ListTrials(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: id}))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, tr := range page.Msg.Trials {
			all = append(all, tr.ParamsJson)
		}
		return strings.Join(all, "\n")
	}
	one, many := c.Create(t, coordinatortest.Spec(12, 1)), c.Create(t, coordinatortest.Spec(12, 12))
	other := c.Create(t, strings.Replace(coordinatortest.Spec(12, 12), "seed: 7", "seed: 8", 1))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	a.Work(one.Id)
	a.Work(many.Id)
	a.Work(other.Id)
	if points(one.Id) != points(many.Id) {
		t.Errorf("one at a time:\n%s\nall at once:\n%s", points(one.Id), points(many.Id))
	}
	if points(one.Id) == points(other.Id) {
		t.Error("another seed gave the same points")
	}
}

// Never more than parallelism trials are open, nor more than the budget made;
// an extension goes on, pause and resume hold and let go.
func TestBudgetParallelismPauseExtend(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(6, 2))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	x, y := a.Acquire(5*time.Second), a.Acquire(5*time.Second)
	if x == nil || y == nil || a.Acquire(200*time.Millisecond) != nil {
		t.Fatal("parallelism 2 did not give two leases and no third")
	}
	control := func(action atelierv1.SweepAction) {
		t.Helper()
		if _, err := c.Sweeps.ControlSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ControlSweepRequest{Id: sw.Id, Action: action})); err != nil {
			t.Fatal(err)
		}
	}
	control(wire.ToAction(trial.ActionPause))
	a.Relay(coordinatortest.Report(x, 1, 1), coordinatortest.Ended(x, trial.ExitFinished))
	if l := a.Acquire(200 * time.Millisecond); l != nil {
		t.Errorf("a paused sweep gave %v", l)
	}
	control(wire.ToAction(trial.ActionResume))
	a.Relay(coordinatortest.Report(y, 1, 1), coordinatortest.Ended(y, trial.ExitFinished))
	a.Work(sw.Id)
	if s := c.Sweep(t, sw.Id); s.Counts.Proposed != 6 || s.Counts.Finished != 6 {
		t.Errorf("%v", s.Counts)
	}
	for range 2 { // the same request twice extends once
		if _, err := c.Sweeps.ExtendSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ExtendSweepRequest{RequestId: "more", Id: sw.Id, AddTrials: 3})); err != nil {
			t.Fatal(err)
		}
	}
	a.Work(sw.Id)
	if s := c.Sweep(t, sw.Id); s.BudgetTrials != 9 || s.Counts.Finished != 9 || wire.SweepStatus(s.Status) != trial.SweepFinished {
		t.Errorf("extended: %v %v", s.Status, s.Counts)
	}
}
