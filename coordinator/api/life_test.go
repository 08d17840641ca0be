package api_test

import (
	"fmt"
	"slices"
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

func TestLifeOfASweep(t *testing.T) {
	c := node.Start(t, node.Options{})
	ctx := coordinatortest.Context(t)
	first := c.Create(t, coordinatortest.ExternalSpec("bayesian", "{trials: 4}", 2)+`enqueue: [{x: 0.25, y: -0.25, k: b}]
priority: 3
`)
	if first.Algorithm == "auto" || first.Enqueued != 1 || first.Priority != 3 {
		t.Errorf("made %v", first)
	}
	given := &atelierv1.EnqueueTrialsRequest{RequestId: "a wish of somebody", Id: first.Id, ParamsJson: []string{`{"y":0,"x":0,"k":"c"}`}}
	for range 2 {
		if _, err := c.Sweeps.EnqueueTrials(ctx, connect.NewRequest(given)); err != nil {
			t.Fatal(err)
		}
	}
	for what, params := range map[string]string{"outside": `{"x":7,"y":0,"k":"c"}`, "no value": `{"x":0}`, "unknown": `{"x":0,"y":0,"k":"c","z":1}`} {
		_, err := c.Sweeps.EnqueueTrials(ctx, connect.NewRequest(&atelierv1.EnqueueTrialsRequest{Id: first.Id, ParamsJson: []string{params}}))
		coordinatortest.WantCode(t, what, err, connect.CodeInvalidArgument, "point 1 for sweep "+first.Id)
	}
	c.Play(t, first.Id, 2, 4, func(int64) {})
	coordinatortest.Until(t, "the end", func() bool { return c.Sweep(t, first.Id).EndedMs != 0 })
	if s := c.Sweep(t, first.Id); s.Ending != "its budget of 4 trials is used" || s.Findings != 4 || s.Epochs != 4 {
		t.Errorf("ended %v", s)
	}
	list := c.TrialsOf(t, first.Id)
	if list[0].ParamsJson != `{"x":0.25,"y":-0.25,"k":"b"}` || wire.Source(list[0].Source) != trial.SourceEnqueued {
		t.Errorf("first trial %v", list[0])
	}
	at := slices.IndexFunc(list, func(tr *atelierv1.Trial) bool { return tr.ParamsJson == `{"x":0,"y":0,"k":"c"}` })
	if at < 1 || wire.Source(list[at].Source) != trial.SourceEnqueued {
		t.Errorf("the point given later is trial %d of %v", at+1, list)
	}
	if v := c.Verify(t, first.Id); v.Checked != 4 || len(v.Differences) != 0 {
		t.Errorf("verify %v", v)
	}
	p, err := c.Sweeps.GetProgress(ctx, connect.NewRequest(&atelierv1.GetProgressRequest{Id: first.Id}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Msg.Points); n != 4 || p.Msg.Points[3].Ended != 4 || p.Msg.Points[3].Epochs != 4 || p.Msg.Points[3].Best != c.Sweep(t, first.Id).Best.Value {
		t.Errorf("progress %v", p.Msg.Points)
	}

	// The next one begins with what this one found out, in a narrower space.
	second := strings.Replace(coordinatortest.ExternalSpec("bayesian", "{trials: 3}", 1), "x: {type: float, low: -1", "x: {type: float, low: 0", 1)
	r, err := c.Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "second", SpecYaml: second + "warm_start: " + first.Id + "\n"}))
	if err != nil {
		t.Fatal(err)
	}
	inside := int64(0)
	for _, tr := range list {
		if !strings.Contains(tr.ParamsJson, `"x":-`) {
			inside++
		}
	}
	if got := r.Msg.Sweep.WarmTrials; got != inside || inside == 4 && len(r.Msg.Warnings) != 0 || inside < 4 && len(r.Msg.Warnings) != 1 {
		t.Errorf("%d warm trials, %d lie inside; warnings %v", got, inside, r.Msg.Warnings)
	}
	c.Play(t, r.Msg.Sweep.Id, 1, 3, func(int64) {})
	if v := c.Verify(t, r.Msg.Sweep.Id); v.Checked != 3 || len(v.Differences) != 0 {
		t.Errorf("verify %v", v)
	}
	for what, x := range map[string]struct {
		spec string
		code connect.Code
		text string
	}{
		"unknown sweep": {second + "warm_start: s-nosuch\n", connect.CodeNotFound, "warm_start"},
		"new parameter": {strings.Replace(second, "  k:", "  z: {type: int, low: 1, high: 3}\n  k:", 1) + "warm_start: " + first.Id + "\n", connect.CodeInvalidArgument, `has no parameter "z"`},
		"other metric":  {strings.Replace(second, "metric: loss", "metric: accuracy", 1) + "warm_start: " + first.Id + "\n", connect.CodeInvalidArgument, "metrics it reported: loss"},
		"elsewhere":     {strings.Replace(second, "low: 0, high: 1", "low: 5, high: 6", 1) + "warm_start: " + first.Id + "\n", connect.CodeInvalidArgument, "lies in this spec's space"},
	} {
		_, err := c.Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{SpecYaml: x.spec}))
		coordinatortest.WantCode(t, what, err, x.code, x.text)
	}
}

func TestAskAndTell(t *testing.T) {
	c := node.Start(t, node.Options{})
	ctx := coordinatortest.Context(t)
	sw := c.Create(t, coordinatortest.ExternalSpec("random", "{trials: 2}", 2))
	a, _ := c.Ask(t, sw.Id, "one", 10*time.Second)
	again, _ := c.Ask(t, sw.Id, "one", 10*time.Second)
	if a == nil || again == nil || again.Token != a.Token || a.TtlMs != 60_000 {
		t.Fatalf("the same wish got %v and %v", a, again)
	}
	if l := coordinatortest.NewAgent(t, c.API, "w1").Acquire(0); l != nil {
		t.Errorf("a worker got %v", l)
	}
	if r := c.Tell(t, a, 1, 0.5, 0); wire.Outcome(r.Outcome) != trial.OutcomeRecorded || wire.Verdict(r.Verdict) != trial.VerdictContinue || r.Trial.Epoch != 1 {
		t.Errorf("told %v", r)
	}
	if r := c.Tell(t, a, 1, 0.5, 0); wire.Outcome(r.Outcome) != trial.OutcomeAlready {
		t.Errorf("told twice %v", r)
	}
	if _, err := c.Trials.StopTrial(ctx, connect.NewRequest(&atelierv1.StopTrialRequest{SweepId: sw.Id, Trial: a.Trial})); err != nil {
		t.Fatal(err)
	}
	if r := c.Tell(t, a, 0, 0, 0); wire.Verdict(r.Verdict) != trial.VerdictStop || r.Reason != "stopped by hand" {
		t.Errorf("after the stop %v", r)
	}
	if r := c.Tell(t, a, 0, 0, trial.ExitStopped); wire.Status(r.Trial.Status) != trial.Stopped {
		t.Errorf("ended %v", r)
	}

	// A program that says nothing for its term loses the trial.
	r, err := c.Trials.AskTrial(ctx, connect.NewRequest(&atelierv1.AskTrialRequest{RequestId: "two", SweepId: sw.Id, TermMs: 1000, WaitMs: 10_000}))
	if err != nil || r.Msg.Lease == nil {
		t.Fatal(r, err)
	}
	b := r.Msg.Lease
	coordinatortest.Until(t, "the lease ran out", func() bool {
		return wire.Status(c.Trial(t, sw.Id, b.Trial).Status) == trial.Waiting
	})
	_, err = c.Trials.TellTrial(ctx, connect.NewRequest(&atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: b.Trial, Token: b.Token, Report: &atelierv1.Report{Epoch: 1}}))
	coordinatortest.WantCode(t, "a tell that comes late", err, connect.CodeFailedPrecondition, "the lease is over")
	_, err = c.Trials.TellTrial(ctx, connect.NewRequest(&atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: b.Trial}))
	coordinatortest.WantCode(t, "a tell of nobody", err, connect.CodeFailedPrecondition, "ask for a trial first")
	d, _ := c.Ask(t, sw.Id, "three", 10*time.Second)
	if d == nil || d.Trial != b.Trial || d.Run != 2 {
		t.Fatalf("given again %v", d)
	}
	_, err = c.Trials.TellTrial(ctx, connect.NewRequest(&atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: d.Trial, Token: d.Token, Report: &atelierv1.Report{}}))
	coordinatortest.WantCode(t, "epoch 0", err, connect.CodeInvalidArgument, "epochs count from 1")
	// Who waits while the sweep ends is told so.
	waiting := make(chan atelierv1.SweepStatus, 1)
	go func() {
		r, err := c.Trials.AskTrial(ctx, connect.NewRequest(&atelierv1.AskTrialRequest{RequestId: "four", SweepId: sw.Id, WaitMs: 50_000}))
		if err != nil || r.Msg.Lease != nil {
			waiting <- 0
			return
		}
		waiting <- r.Msg.Status
	}()
	c.Tell(t, d, 1, 0.25, trial.ExitFinished)
	if s := <-waiting; wire.SweepStatus(s) != trial.SweepFinished {
		t.Errorf("who waited for a trial was told %v", s)
	}
	if l, s := c.Ask(t, sw.Id, "five", 0); l != nil || s != trial.SweepFinished {
		t.Errorf("after the end %v, %v", l, s)
	}
	other := c.Create(t, coordinatortest.Spec(1, 1))
	_, err = c.Trials.AskTrial(ctx, connect.NewRequest(&atelierv1.AskTrialRequest{RequestId: "six", SweepId: other.Id}))
	coordinatortest.WantCode(t, "a sweep for workers", err, connect.CodeFailedPrecondition, "its trainer is sim")
}

// Slots go to the higher priority first, to workers that carry the labels.
func TestPrioritiesAndLabels(t *testing.T) {
	c := node.Start(t, node.Options{})
	ctx := coordinatortest.Context(t)
	low := c.Create(t, coordinatortest.Spec(20, 20))
	high := c.Create(t, coordinatortest.Spec(2, 20)+"priority: 5\n")
	picky := c.Create(t, coordinatortest.Spec(20, 20)+"priority: 9\nrequires: {gpu: a100}\n")
	coordinatortest.Until(t, "trials", func() bool {
		return c.Sweep(t, low.Id).Counts.Waiting == 20 && c.Sweep(t, high.Id).Counts.Waiting == 2 && c.Sweep(t, picky.Id).Counts.Waiting == 20
	})
	a := coordinatortest.NewAgent(t, c.API, "w1")
	var got []string
	for range 3 {
		got = append(got, a.Acquire(10*time.Second).SweepId)
	}
	if want := []string{high.Id, high.Id, low.Id}; !slices.Equal(got, want) {
		t.Errorf("a plain worker got %v, want %v", got, want)
	}
	req := a.Request("cpu0", 10*time.Second)
	req.Labels = map[string]string{"gpu": "a100", "zone": "b"}
	if l := a.Send(req); l == nil || l.SweepId != picky.Id {
		t.Errorf("a worker with the label got %v", l)
	}
	third := c.Create(t, coordinatortest.Spec(20, 20))
	if _, err := c.Sweeps.PrioritizeSweep(ctx, connect.NewRequest(&atelierv1.PrioritizeSweepRequest{Id: third.Id, Priority: 1})); err != nil {
		t.Fatal(err)
	}
	coordinatortest.Until(t, "trials", func() bool { return c.Sweep(t, third.Id).Counts.Waiting == 20 })
	if l := a.Acquire(10 * time.Second); l == nil || l.SweepId != third.Id {
		t.Errorf("after the change of priority %v", l)
	}
}

// A sweep with a budget of time ends by itself, on time.
func TestTimeIsUsed(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.ExternalSpec("random", "{time: 2s}", 2))
	l, _ := c.Ask(t, sw.Id, "one", 10*time.Second)
	c.Tell(t, l, 1, 0.5, 0)
	coordinatortest.Until(t, "the end", func() bool { return c.Sweep(t, sw.Id).EndedMs != 0 })
	s := c.Sweep(t, sw.Id)
	if wire.SweepStatus(s.Status) != trial.SweepFinished || s.SpentMs < 2000 || s.Ending != "its time of 2s is used" || s.Best == nil || s.Counts.Stopped != 1 {
		t.Errorf("ended %v", s)
	}
}

// The index keeps within the budget of bytes, and the workers that have the files
// are told to delete them.
func TestCheckpointBudget(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(3, 3)+"checkpoints: {budget: 250}\n")
	a := coordinatortest.NewAgent(t, c.API, "w1")
	leases := []*atelierv1.Lease{a.Acquire(10 * time.Second), a.Acquire(10 * time.Second), a.Acquire(10 * time.Second)}
	for i, l := range leases {
		e := coordinatortest.Checkpointed(l, 1, float64(i))
		p := e.GetCheckpoint()
		p.Size, p.Worker, p.Location = 100, "w1", fmt.Sprintf("http://w1/%d", l.Trial)
		a.Relay(coordinatortest.Report(l, 1, float64(i)), e)
	}
	if s := c.Sweep(t, sw.Id); s.StoredBytes != 300 {
		t.Errorf("%d bytes while all can be resumed", s.StoredBytes)
	}
	a.Relay(coordinatortest.Ended(leases[2], trial.ExitFinished))
	var dropped []string
	coordinatortest.Until(t, "the worker is told", func() bool {
		dropped = a.Beat(leases[:2]...).Dropped
		return len(dropped) > 0
	})
	if s := c.Sweep(t, sw.Id); s.StoredBytes != 200 || !slices.Equal(dropped, []string{fmt.Sprintf("http://w1/%d", leases[2].Trial)}) {
		t.Errorf("%d bytes, dropped %v", s.StoredBytes, dropped)
	}
	if again := a.Beat(leases[:2]...).Dropped; !slices.Equal(again, dropped) {
		t.Errorf("told %v first, then %v", dropped, again)
	}
	if third := a.Beat(leases[:2]...).Dropped; len(third) != 0 {
		t.Errorf("told a third time: %v", third)
	}
}
