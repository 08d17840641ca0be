package main

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// The reply to a grant is lost: the repeat of the request gets the same lease,
// and no second trial is spent on it.
func TestRepeatedAcquireGetsTheSameLease(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	sw := create(t, c, spec(10, 10))
	a := newAgent(t, c, "w1")
	req := a.request("cpu0", time.Second)
	first, again := a.send(req), a.send(req)
	if first == nil || again == nil || first.Token != again.Token || first.Trial != again.Trial {
		t.Fatalf("first %v, again %v", first, again)
	}
	if first.TrainingJson != `{"epochs":2}` || first.BaseDir != "/data" || first.Objective.Metric != "loss" || first.Run != 1 || first.Slot != "cpu0" ||
		first.ParamsJson == "" || first.TtlMs != 8000 || first.Trainer != "sim" {
		t.Errorf("lease %v", first)
	}
	if n := get(t, c, sw.Id).Counts.Running; n != 1 {
		t.Errorf("%d trials run", n)
	}
	// Both at once, as when a client gives up and asks again elsewhere.
	req = a.request("cpu1", time.Second)
	leases := make(chan *atelierv1.Lease, 2)
	for range 2 {
		go func() {
			resp, err := c.Workers.Acquire(background(t), connect.NewRequest(req))
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
	if n := get(t, c, sw.Id).Counts.Running; n != 2 {
		t.Errorf("%d trials run, want 2", n)
	}
	if next := a.acquire(time.Second); next == nil || next.Seed == first.Seed {
		t.Errorf("seeds of two trials: %v and %v", next, first)
	}
}

func TestLeaseRunsOutAndIsFenced(t *testing.T) {
	cl := startCluster(t, 1, "--lease-ttl", "1500ms")
	c := cl.client()
	sw := create(t, c, spec(2, 1))
	a, b := newAgent(t, c, "w1"), newAgent(t, c, "w2")
	first := a.acquire(5 * time.Second)
	if first == nil {
		t.Fatal("no lease")
	}
	a.relay(report(first, 1, 0.5), checkpointed(first, 1, 0.5))
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(100 * time.Millisecond) {
		if r := a.beat(first); len(r.Lost) != 0 || r.TtlMs != 1500 || len(r.Coordinators) != 1 {
			t.Fatalf("a renewed lease is lost: %v", r)
		}
	}
	// From here on w1 is silent. w2 waits; parallelism 1 leaves it only this trial.
	silent := time.Now()
	second := b.acquire(10 * time.Second)
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
	for _, r := range a.relay(report(first, 2, 0.1), ended(first, trial.ExitFinished)) {
		if wire.Outcome(r.Outcome) != trial.OutcomeFenced {
			t.Errorf("a stale event was %v", r.Outcome)
		}
	}
	if r := a.beat(first); len(r.Lost) != 1 || r.Lost[0].Token != first.Token {
		t.Errorf("w1 is not told of its loss: %v", r)
	}
	tr := getTrial(t, c, sw.Id, first.Trial)
	if tr.Value != 0.5 || len(tr.Runs) != 2 || wire.Exit(tr.Runs[0].Exit) != trial.ExitLost {
		t.Errorf("trial %v", tr)
	}
	// A renewal that does not name the lease does not renew it.
	for began := time.Now(); time.Since(began) < 4*time.Second; time.Sleep(100 * time.Millisecond) {
		b.beat()
	}
	if r := b.beat(second); len(r.Lost) != 1 {
		t.Errorf("an unnamed lease lives on: %v", r)
	}
}

func TestNewIncarnationEndsOldLeasesAtOnce(t *testing.T) {
	cl := startCluster(t, 1) // term of 8 s: only the incarnation can end them sooner
	c := cl.client()
	sw := create(t, c, spec(4, 1))
	a := newAgent(t, c, "w1")
	first := a.acquire(5 * time.Second)
	old := a.incarnation
	a.incarnation = "w1-2"
	began := time.Now()
	a.beat()
	second := a.acquire(5 * time.Second)
	if second == nil || second.Trial != first.Trial || second.Token <= first.Token {
		t.Fatalf("the restarted agent got %v after %v", second, first)
	}
	if d := time.Since(began); d > 7*time.Second {
		t.Errorf("that took %v", d)
	}
	if r := getTrial(t, c, sw.Id, first.Trial).Runs[0]; wire.Exit(r.Exit) != trial.ExitLost {
		t.Errorf("old run %v", r)
	}
	// A late word of the old incarnation does no harm to the new one.
	a.incarnation = old
	if r := a.beat(first); len(r.Lost) != 1 {
		t.Errorf("old incarnation is told %v", r)
	}
	_, err := a.c.Workers.Acquire(background(t), connect.NewRequest(a.request("cpu0", 0)))
	wantCode(t, "acquire of an old incarnation", err, connect.CodeFailedPrecondition, "started again")
	a.incarnation = "w1-2"
	if r := a.beat(second); len(r.Lost) != 0 {
		t.Errorf("new incarnation lost its lease: %v", r)
	}
}

func TestDrain(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	a, b := newAgent(t, c, "w1"), newAgent(t, c, "w2")
	drain := func(undo bool) {
		t.Helper()
		if _, err := c.Workers.DrainWorker(background(t), connect.NewRequest(&atelierv1.DrainWorkerRequest{Name: "w1", Undo: undo})); err != nil {
			t.Fatal(err)
		}
	}
	drain(false)
	create(t, c, spec(4, 4))
	if l := a.acquire(300 * time.Millisecond); l != nil {
		t.Errorf("a draining worker got %v", l)
	}
	if l := b.acquire(5 * time.Second); l == nil {
		t.Error("the other worker got nothing")
	}
	if r := a.beat(); !r.Drain {
		t.Error("the worker is not told to drain")
	}
	list, err := c.Workers.ListWorkers(background(t), connect.NewRequest(&atelierv1.ListWorkersRequest{}))
	if err != nil || len(list.Msg.Workers) != 2 || list.Msg.Workers[0].State != "draining" || list.Msg.Workers[1].State != "ready" {
		t.Errorf("workers %v, %v", list, err)
	}
	got := make(chan *atelierv1.Lease, 1)
	req := a.request("cpu0", 10*time.Second)
	go func() { got <- a.send(req) }()
	time.Sleep(100 * time.Millisecond)
	drain(true)
	if <-got == nil {
		t.Error("nothing after the drain was undone")
	}
}

// Only a worker that offers the trainer gets a trial; verdicts reach the worker.
func TestTrainersAndVerdicts(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	sw := create(t, c, spec(3, 1))
	a := newAgent(t, c, "w1")
	req := a.request("cpu0", 200*time.Millisecond)
	req.Trainers = []string{"torch"}
	if l := a.send(req); l != nil {
		t.Errorf("a worker without the trainer got %v", l)
	}
	l := a.acquire(5 * time.Second)
	if _, err := c.Trials.StopTrial(background(t), connect.NewRequest(&atelierv1.StopTrialRequest{RequestId: "s", SweepId: sw.Id, Trial: l.Trial})); err != nil {
		t.Fatal(err)
	}
	if r := a.beat(l); len(r.Verdicts) != 1 || wire.Verdict(r.Verdicts[0].Verdict) != trial.VerdictStop || r.Verdicts[0].Reason == "" {
		t.Errorf("heartbeat says %v", r)
	}
	if r := a.relay(report(l, 1, 0.5)); wire.Verdict(r[0].Verdict) != trial.VerdictStop {
		t.Errorf("relay says %v", r)
	}
	a.relay(ended(l, trial.ExitStopped))
	if tr := getTrial(t, c, sw.Id, l.Trial); wire.Status(tr.Status) != trial.Stopped {
		t.Errorf("trial %v", tr)
	}
}
