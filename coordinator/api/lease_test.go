package api_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// The reply to a grant is lost: the repeat of the request gets the same lease,
// and no second trial is spent on it.
func TestRepeatedAcquireGetsTheSameLease(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(10, 10))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	req := a.Request("cpu0", time.Second)
	first, again := a.Send(req), a.Send(req)
	if first == nil || again == nil || first.Token != again.Token || first.Trial != again.Trial {
		t.Fatalf("first %v, again %v", first, again)
	}
	if first.TrainingJson != `{"epochs":2}` || first.BaseDir != "/data" || first.Objective.Metric != "loss" || first.Run != 1 || first.Slot != "cpu0" ||
		first.ParamsJson == "" || first.TtlMs != 8000 || first.Trainer != "sim" {
		t.Errorf("lease %v", first)
	}
	if n := c.Sweep(t, sw.Id).Counts.Running; n != 1 {
		t.Errorf("%d trials run", n)
	}
	// Both at once, as when a client gives up and asks again elsewhere.
	req = a.Request("cpu1", time.Second)
	leases := make(chan *atelierv1.Lease, 2)
	for range 2 {
		go func() {
			resp, err := c.Workers.Acquire(coordinatortest.Context(t), connect.NewRequest(req))
			if err != nil {
				t.Error(err)
				leases <- nil
				return
			}
			leases <- resp.Msg.Lease
		}()
	}
	x, y := <-leases, <-leases
	if x == nil && y == nil || x != nil && y != nil && x.Token != y.Token {
		t.Errorf("two at once got %v and %v", x, y)
	}
	if n := c.Sweep(t, sw.Id).Counts.Running; n != 2 {
		t.Errorf("%d trials run, want 2", n)
	}
	if next := a.Acquire(time.Second); next == nil || next.Seed == first.Seed {
		t.Errorf("seeds of two trials: %v and %v", next, first)
	}
}

func TestLeaseRunsOutAndIsFenced(t *testing.T) {
	c := node.Start(t, node.Options{LeaseTTL: 1500 * time.Millisecond})
	sw := c.Create(t, coordinatortest.Spec(2, 1))
	a, b := coordinatortest.NewAgent(t, c.API, "w1"), coordinatortest.NewAgent(t, c.API, "w2")
	first := a.Acquire(5 * time.Second)
	if first == nil {
		t.Fatal("no lease")
	}
	a.Relay(coordinatortest.Report(first, 1, 0.5), coordinatortest.Checkpointed(first, 1, 0.5))
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(100 * time.Millisecond) {
		if r := a.Beat(first); len(r.Lost) != 0 || r.TtlMs != 1500 || len(r.Coordinators) != 1 {
			t.Fatalf("a renewed lease is lost: %v", r)
		}
	}
	// From here on w1 is silent. w2 waits; parallelism 1 leaves it only this trial.
	silent := time.Now()
	second := b.Acquire(10 * time.Second)
	took := time.Since(silent)
	if second == nil || second.Trial != first.Trial || second.Token <= first.Token || second.Run != 2 || second.LastEpoch != 1 {
		t.Fatalf("after %v: %v, was %v", took, second, first)
	}
	if len(second.Checkpoints) != 1 || second.Checkpoints[0].Epoch != 1 {
		t.Errorf("goes on from %v", second.Checkpoints)
	}
	if took < time.Second || took > 9*time.Second {
		t.Errorf("the lease was taken back after %v", took)
	}
	for _, r := range a.Relay(coordinatortest.Report(first, 2, 0.1), coordinatortest.Ended(first, trial.ExitFinished)) {
		if wire.Outcome(r.Outcome) != trial.OutcomeFenced {
			t.Errorf("a stale event was %v", r.Outcome)
		}
	}
	if r := a.Beat(first); len(r.Lost) != 1 || r.Lost[0].Token != first.Token {
		t.Errorf("w1 is not told of its loss: %v", r)
	}
	tr := c.Trial(t, sw.Id, first.Trial)
	if tr.Value != 0.5 || len(tr.Runs) != 2 || wire.Exit(tr.Runs[0].Exit) != trial.ExitLost {
		t.Errorf("trial %v", tr)
	}
	// A renewal that does not name the lease does not renew it.
	for began := time.Now(); time.Since(began) < 4*time.Second; time.Sleep(100 * time.Millisecond) {
		b.Beat()
	}
	if r := b.Beat(second); len(r.Lost) != 1 {
		t.Errorf("an unnamed lease lives on: %v", r)
	}
}

func TestNewIncarnationEndsOldLeasesAtOnce(t *testing.T) {
	c := node.Start(t, node.Options{}) // term of 8 s: only the incarnation can end them sooner
	sw := c.Create(t, coordinatortest.Spec(4, 1))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	first := a.Acquire(5 * time.Second)
	old := a.Incarnation
	a.Incarnation = "w1-2"
	began := time.Now()
	a.Beat()
	second := a.Acquire(5 * time.Second)
	if second == nil || second.Trial != first.Trial || second.Token <= first.Token {
		t.Fatalf("the restarted agent got %v after %v", second, first)
	}
	if d := time.Since(began); d > 7*time.Second {
		t.Errorf("that took %v", d)
	}
	if r := c.Trial(t, sw.Id, first.Trial).Runs[0]; wire.Exit(r.Exit) != trial.ExitLost {
		t.Errorf("old run %v", r)
	}
	// A late word of the old incarnation does no harm to the new one.
	a.Incarnation = old
	if r := a.Beat(first); len(r.Lost) != 1 {
		t.Errorf("old incarnation is told %v", r)
	}
	_, err := c.Workers.Acquire(coordinatortest.Context(t), connect.NewRequest(a.Request("cpu0", 0)))
	coordinatortest.WantCode(t, "acquire of an old incarnation", err, connect.CodeFailedPrecondition, "started again")
	a.Incarnation = "w1-2"
	if r := a.Beat(second); len(r.Lost) != 0 {
		t.Errorf("new incarnation lost its lease: %v", r)
	}
}

func TestDrain(t *testing.T) {
	c := node.Start(t, node.Options{})
	a, b := coordinatortest.NewAgent(t, c.API, "w1"), coordinatortest.NewAgent(t, c.API, "w2")
	drain := func(undo bool) {
		t.Helper()
		if _, err := c.Workers.DrainWorker(coordinatortest.Context(t), connect.NewRequest(&atelierv1.DrainWorkerRequest{Name: "w1", Undo: undo})); err != nil {
			t.Fatal(err)
		}
	}
	drain(false)
	c.Create(t, coordinatortest.Spec(4, 4))
	if l := a.Acquire(300 * time.Millisecond); l != nil {
		t.Errorf("a draining worker got %v", l)
	}
	if l := b.Acquire(5 * time.Second); l == nil {
		t.Error("the other worker got nothing")
	}
	if r := a.Beat(); !r.Drain {
		t.Error("the worker is not told to drain")
	}
	list, err := c.Workers.ListWorkers(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListWorkersRequest{}))
	if err != nil || len(list.Msg.Workers) != 2 || list.Msg.Workers[0].State != "draining" || list.Msg.Workers[1].State != "ready" {
		t.Errorf("workers %v, %v", list, err)
	}
	got := make(chan *atelierv1.Lease, 1)
	req := a.Request("cpu0", 10*time.Second)
	go func() { got <- a.Send(req) }()
	time.Sleep(100 * time.Millisecond)
	drain(true)
	if <-got == nil {
		t.Error("nothing after the drain was undone")
	}
}

// Only a worker that offers the trainer gets a trial; verdicts reach the worker.
func TestTrainersAndVerdicts(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(3, 1))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	req := a.Request("cpu0", 200*time.Millisecond)
	req.Trainers = []string{"torch"}
	if l := a.Send(req); l != nil {
		t.Errorf("a worker without the trainer got %v", l)
	}
	l := a.Acquire(5 * time.Second)
	if _, err := c.Trials.StopTrial(coordinatortest.Context(t), connect.NewRequest(&atelierv1.StopTrialRequest{RequestId: "s", SweepId: sw.Id, Trial: l.Trial})); err != nil {
		t.Fatal(err)
	}
	if r := a.Beat(l); len(r.Verdicts) != 1 || wire.Verdict(r.Verdicts[0].Verdict) != trial.VerdictStop || r.Verdicts[0].Reason == "" {
		t.Errorf("heartbeat says %v", r)
	}
	if r := a.Relay(coordinatortest.Report(l, 1, 0.5)); wire.Verdict(r[0].Verdict) != trial.VerdictStop {
		t.Errorf("relay says %v", r)
	}
	a.Relay(coordinatortest.Ended(l, trial.ExitStopped))
	if tr := c.Trial(t, sw.Id, l.Trial); wire.Status(tr.Status) != trial.Stopped {
		t.Errorf("trial %v", tr)
	}
}
