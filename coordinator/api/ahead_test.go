package api_test

import (
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// A slot runs one trial: one that it has fetched for afterwards waits, wherever people look.
func TestLeasedAheadIsWaiting(t *testing.T) {
	t.Parallel()
	c := node.Start(t, node.Options{})
	c.Create(t, coordinatortest.Spec(4, 4))
	c.Create(t, coordinatortest.Spec(4, 4))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	var held []*atelierv1.Lease
	for range 2 {
		l := a.Acquire(5 * time.Second)
		if l == nil {
			t.Fatal("no lease")
		}
		held = append(held, l)
	}
	second := a.Send(a.Request("cpu1", 5*time.Second))
	if second == nil {
		t.Fatal("no lease for the second slot")
	}
	look := func(what string, running int64) {
		t.Helper()
		var counted, listed, shown int64
		for _, s := range coordinatortest.Call(t, c.Sweeps.ListSweeps, &atelierv1.ListSweepsRequest{}).Sweeps {
			counted += s.Counts.Running
			got := coordinatortest.Call(t, c.Sweeps.GetSweep, &atelierv1.GetSweepRequest{Id: s.Id}).Sweep.Counts
			waited := coordinatortest.Call(t, c.Sweeps.WaitSweep, &atelierv1.WaitSweepRequest{Id: s.Id}).Sweep.Counts
			if got.Running != s.Counts.Running || got.Waiting != s.Counts.Waiting || waited.Running != got.Running {
				t.Errorf("%s: the list counts %v, the sweep %v, who waits for it %v", what, s.Counts, got, waited)
			}
			if got.Running+got.Waiting+got.Finished+got.Failed != got.Proposed {
				t.Errorf("%s: not all trials are counted: %v", what, got)
			}
			r := coordinatortest.Call(t, c.Trials.ListTrials, &atelierv1.ListTrialsRequest{SweepId: s.Id, Status: []atelierv1.TrialStatus{wire.ToStatus(trial.Running)}})
			if r.Total != int64(len(r.Trials)) {
				t.Errorf("%s: %d trials of %d", what, len(r.Trials), r.Total)
			}
			listed += r.Total
			for _, x := range r.Trials {
				if c.Trial(t, s.Id, x.Number).Status == x.Status && wire.Status(x.Status) == trial.Running {
					shown++
				}
			}
		}
		status := coordinatortest.Call(t, c.Cluster.GetStatus, &atelierv1.GetStatusRequest{}).RunningTrials
		if counted != running || listed != running || shown != running || status != running {
			t.Errorf("%s: %d counted, %d listed, %d shown, %d in the cluster's status; want %d running", what, counted, listed, shown, status, running)
		}
	}
	look("three leases on two slots", 2)
	if l := held[1]; c.Trial(t, l.SweepId, l.Trial).StartedMs != 0 {
		t.Error("a trial that waits has started")
	}
	a.Relay(coordinatortest.Report(held[0], 1, 0.5), coordinatortest.Ended(held[0], trial.ExitFinished))
	look("the next run began", 2)
	if l := held[1]; c.Trial(t, l.SweepId, l.Trial).StartedMs == 0 {
		t.Error("a run that began has no start")
	}
	a.Relay(coordinatortest.Ended(held[1], trial.ExitFinished))
	look("one slot is idle", 1)
}
