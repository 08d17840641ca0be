package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

const externalSpec = `
name: elsewhere
search_method: %s
seed: 5
objective: {metric: loss, direction: minimize}
budget: %s
parallelism: %d
trainer: external
space:
  x: {type: float, low: -1, high: 1}
  y: {type: float, low: -1, high: 1}
  k: {type: categorical, choices: [a, b, c]}
`

func ask(t *testing.T, c *client.Client, sweep, request string, wait time.Duration) (*atelierv1.Lease, trial.SweepStatus) {
	t.Helper()
	r, err := c.Trials.AskTrial(background(t), connect.NewRequest(&atelierv1.AskTrialRequest{RequestId: request, SweepId: sweep, Name: "ada",
		TermMs: 60_000, WaitMs: wait.Milliseconds()}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg.Lease, wire.SweepStatus(r.Msg.Status)
}

func tell(t *testing.T, c *client.Client, l *atelierv1.Lease, epoch int32, value float64, class trial.Exit) *atelierv1.TellTrialResponse {
	t.Helper()
	req := &atelierv1.TellTrialRequest{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token}
	if epoch > 0 {
		req.Report = report(l, epoch, value).GetReport()
	}
	if class != 0 {
		req.Ended = &atelierv1.RunEnded{Exit: wire.ToExit(class)}
	}
	r, err := c.Trials.TellTrial(background(t), connect.NewRequest(req))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

const finished = trial.ExitFinished

// quality is what the programs of these tests measure: a function of the point.
func quality(t *testing.T, params string) float64 {
	t.Helper()
	var x, y float64
	var k string
	if _, err := fmt.Sscanf(strings.NewReplacer("{", "", "}", "", ",", " ", `"`, "").Replace(params), "x:%g y:%g k:%1s", &x, &y, &k); err != nil {
		t.Fatalf("%s: %v", params, err)
	}
	return (x-0.3)*(x-0.3) + (y+0.2)*(y+0.2) + map[string]float64{"a": 0.3, "b": 0, "c": 0.1}[k]
}

func trialsOf(t *testing.T, c *client.Client, id string) []*atelierv1.Trial {
	t.Helper()
	r, err := c.Trials.ListTrials(background(t), connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: id}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg.Trials
}

func verify(t *testing.T, c *client.Client, id string) *atelierv1.VerifySweepResponse {
	t.Helper()
	r, err := c.Sweeps.VerifySweep(background(t), connect.NewRequest(&atelierv1.VerifySweepRequest{Id: id, WaitMs: 30_000}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

// play trains a sweep with always the same number of trials open, ended in number
// order one by one, the next only when the place has been filled again: so that
// the order of results is the same every time.
func play(t *testing.T, c *client.Client, id string, parallelism, budget int64, before func(done int64)) {
	t.Helper()
	held := map[int64]*atelierv1.Lease{}
	for done := int64(0); done < budget; done++ {
		before(done)
		for n := int64(len(held)); n < min(parallelism, budget-done); n++ {
			request := fmt.Sprintf("%s-%d-%d", id, done, n)
			l, _ := ask(t, c, id, request, 20*time.Second)
			if l == nil {
				t.Fatalf("no trial after %d ended", done)
			}
			held[l.Trial] = l
		}
		l := held[done+1]
		if l == nil {
			t.Fatalf("trial %d was not given; held are %v", done+1, held)
		}
		tell(t, c, l, 1, quality(t, l.ParamsJson), finished)
		delete(held, l.Trial)
	}
}

// The leader dies at every tenth proposal, and the points are the same as without
// any failure.
func TestProposalsAreTheSameAfterFailures(t *testing.T) {
	const budget, parallelism = 40, 4
	points := func(nodes int, kill bool) (list []string) {
		cl := startCluster(t, nodes)
		c := cl.client()
		sw := create(t, c, fmt.Sprintf(externalSpec, "bayesian", "{trials: 40}", parallelism))
		kills := 0
		play(t, c, sw.Id, parallelism, budget, func(done int64) {
			if !kill || done%10 != 5 {
				return
			}
			l := cl.waitLeader()
			id := l.Config.ID
			l.crash(t)
			cl.nodes = slices.DeleteFunc(cl.nodes, func(n *node) bool { return n == l })
			cl.waitLeader()
			cl.start(id)
			kills++
			c = cl.client()
		})
		if kill && kills != 4 {
			t.Fatalf("%d leaders were killed", kills)
		}
		until(t, "the end", func() bool { return get(t, c, sw.Id).EndedMs != 0 })
		for _, tr := range trialsOf(t, c, sw.Id) {
			list = append(list, fmt.Sprintf("%d seen %d %s", tr.Number, tr.ProposedSeen, tr.ParamsJson))
		}
		v := verify(t, c, sw.Id)
		if len(v.Differences) > 0 || v.Checked != budget || v.Unchecked != 0 {
			t.Errorf("verify: %v", v)
		}
		return list
	}
	want, got := points(1, false), points(3, true)
	if len(want) != budget || !slices.Equal(want, got) {
		for i := range want {
			if i >= len(got) || want[i] != got[i] {
				t.Fatalf("without a failure %s\nwith failures %v", want[i], got[min(i, len(got)):])
			}
		}
		t.Fatalf("%d and %d points", len(want), len(got))
	}
}

func TestLifeOfASweep(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	ctx := background(t)
	first := create(t, c, fmt.Sprintf(externalSpec, "bayesian", "{trials: 4}", 2)+`enqueue: [{x: 0.25, y: -0.25, k: b}]
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
		wantCode(t, what, err, connect.CodeInvalidArgument, "point 1 for sweep "+first.Id)
	}
	play(t, c, first.Id, 2, 4, func(int64) {})
	until(t, "the end", func() bool { return get(t, c, first.Id).EndedMs != 0 })
	if s := get(t, c, first.Id); s.Ending != "its budget of 4 trials is used" || s.Findings != 4 || s.Epochs != 4 {
		t.Errorf("ended %v", s)
	}
	list := trialsOf(t, c, first.Id)
	if list[0].ParamsJson != `{"x":0.25,"y":-0.25,"k":"b"}` || wire.Source(list[0].Source) != trial.SourceEnqueued {
		t.Errorf("first trial %v", list[0])
	}
	at := slices.IndexFunc(list, func(tr *atelierv1.Trial) bool { return tr.ParamsJson == `{"x":0,"y":0,"k":"c"}` })
	if at < 1 || wire.Source(list[at].Source) != trial.SourceEnqueued {
		t.Errorf("the point given later is trial %d of %v", at+1, list)
	}
	if v := verify(t, c, first.Id); v.Checked != 4 || len(v.Differences) != 0 {
		t.Errorf("verify %v", v)
	}
	p, err := c.Sweeps.GetProgress(ctx, connect.NewRequest(&atelierv1.GetProgressRequest{Id: first.Id}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Msg.Points); n != 4 || p.Msg.Points[3].Ended != 4 || p.Msg.Points[3].Epochs != 4 || p.Msg.Points[3].Best != get(t, c, first.Id).Best.Value {
		t.Errorf("progress %v", p.Msg.Points)
	}

	// The next one begins with what this one found out, in a narrower space.
	second := strings.Replace(fmt.Sprintf(externalSpec, "bayesian", "{trials: 3}", 1), "x: {type: float, low: -1", "x: {type: float, low: 0", 1)
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
	play(t, c, r.Msg.Sweep.Id, 1, 3, func(int64) {})
	if v := verify(t, c, r.Msg.Sweep.Id); v.Checked != 3 || len(v.Differences) != 0 {
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
		wantCode(t, what, err, x.code, x.text)
	}
}

func TestAskAndTell(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	ctx := background(t)
	sw := create(t, c, fmt.Sprintf(externalSpec, "random", "{trials: 2}", 2))
	a, _ := ask(t, c, sw.Id, "one", 10*time.Second)
	again, _ := ask(t, c, sw.Id, "one", 10*time.Second)
	if a == nil || again == nil || again.Token != a.Token || a.TtlMs != 60_000 {
		t.Fatalf("the same wish got %v and %v", a, again)
	}
	if l := newAgent(t, c, "w1").acquire(0); l != nil {
		t.Errorf("a worker got %v", l)
	}
	if r := tell(t, c, a, 1, 0.5, 0); wire.Outcome(r.Outcome) != trial.OutcomeRecorded || wire.Verdict(r.Verdict) != trial.VerdictContinue || r.Trial.Epoch != 1 {
		t.Errorf("told %v", r)
	}
	if r := tell(t, c, a, 1, 0.5, 0); wire.Outcome(r.Outcome) != trial.OutcomeAlready {
		t.Errorf("told twice %v", r)
	}
	if _, err := c.Trials.StopTrial(ctx, connect.NewRequest(&atelierv1.StopTrialRequest{SweepId: sw.Id, Trial: a.Trial})); err != nil {
		t.Fatal(err)
	}
	if r := tell(t, c, a, 0, 0, 0); wire.Verdict(r.Verdict) != trial.VerdictStop || r.Reason != "stopped by hand" {
		t.Errorf("after the stop %v", r)
	}
	if r := tell(t, c, a, 0, 0, trial.ExitStopped); wire.Status(r.Trial.Status) != trial.Stopped {
		t.Errorf("ended %v", r)
	}

	// A program that says nothing for its term loses the trial.
	r, err := c.Trials.AskTrial(ctx, connect.NewRequest(&atelierv1.AskTrialRequest{RequestId: "two", SweepId: sw.Id, TermMs: 1000, WaitMs: 10_000}))
	if err != nil || r.Msg.Lease == nil {
		t.Fatal(r, err)
	}
	b := r.Msg.Lease
	until(t, "the lease ran out", func() bool {
		return wire.Status(getTrial(t, c, sw.Id, b.Trial).Status) == trial.Waiting
	})
	_, err = c.Trials.TellTrial(ctx, connect.NewRequest(&atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: b.Trial, Token: b.Token, Report: &atelierv1.Report{Epoch: 1}}))
	wantCode(t, "a tell that comes late", err, connect.CodeFailedPrecondition, "the lease is over")
	_, err = c.Trials.TellTrial(ctx, connect.NewRequest(&atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: b.Trial}))
	wantCode(t, "a tell of nobody", err, connect.CodeFailedPrecondition, "ask for a trial first")
	d, _ := ask(t, c, sw.Id, "three", 10*time.Second)
	if d == nil || d.Trial != b.Trial || d.Run != 2 {
		t.Fatalf("given again %v", d)
	}
	_, err = c.Trials.TellTrial(ctx, connect.NewRequest(&atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: d.Trial, Token: d.Token, Report: &atelierv1.Report{}}))
	wantCode(t, "epoch 0", err, connect.CodeInvalidArgument, "epochs count from 1")
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
	tell(t, c, d, 1, 0.25, finished)
	if s := <-waiting; wire.SweepStatus(s) != trial.SweepFinished {
		t.Errorf("who waited for a trial was told %v", s)
	}
	if l, s := ask(t, c, sw.Id, "five", 0); l != nil || s != trial.SweepFinished {
		t.Errorf("after the end %v, %v", l, s)
	}
	other := create(t, c, spec(1, 1))
	_, err = c.Trials.AskTrial(ctx, connect.NewRequest(&atelierv1.AskTrialRequest{RequestId: "six", SweepId: other.Id}))
	wantCode(t, "a sweep for workers", err, connect.CodeFailedPrecondition, "its trainer is sim")
}

// Slots go to the higher priority first, to workers that carry the labels.
func TestPrioritiesAndLabels(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	ctx := background(t)
	low := create(t, c, spec(20, 20))
	high := create(t, c, spec(2, 20)+"priority: 5\n")
	picky := create(t, c, spec(20, 20)+"priority: 9\nrequires: {gpu: a100}\n")
	until(t, "trials", func() bool {
		return get(t, c, low.Id).Counts.Waiting == 20 && get(t, c, high.Id).Counts.Waiting == 2 && get(t, c, picky.Id).Counts.Waiting == 20
	})
	a := newAgent(t, c, "w1")
	var got []string
	for range 3 {
		got = append(got, a.acquire(10*time.Second).SweepId)
	}
	if want := []string{high.Id, high.Id, low.Id}; !slices.Equal(got, want) {
		t.Errorf("a plain worker got %v, want %v", got, want)
	}
	req := a.request("cpu0", 10*time.Second)
	req.Labels = map[string]string{"gpu": "a100", "zone": "b"}
	if l := a.send(req); l == nil || l.SweepId != picky.Id {
		t.Errorf("a worker with the label got %v", l)
	}
	third := create(t, c, spec(20, 20))
	if _, err := c.Sweeps.PrioritizeSweep(ctx, connect.NewRequest(&atelierv1.PrioritizeSweepRequest{Id: third.Id, Priority: 1})); err != nil {
		t.Fatal(err)
	}
	until(t, "trials", func() bool { return get(t, c, third.Id).Counts.Waiting == 20 })
	if l := a.acquire(10 * time.Second); l == nil || l.SweepId != third.Id {
		t.Errorf("after the change of priority %v", l)
	}
}

// A sweep with a budget of time ends by itself, on time.
func TestTimeIsUsed(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	sw := create(t, c, fmt.Sprintf(externalSpec, "random", "{time: 2s}", 2))
	l, _ := ask(t, c, sw.Id, "one", 10*time.Second)
	tell(t, c, l, 1, 0.5, 0)
	until(t, "the end", func() bool { return get(t, c, sw.Id).EndedMs != 0 })
	s := get(t, c, sw.Id)
	if wire.SweepStatus(s.Status) != trial.SweepFinished || s.SpentMs < 2000 || s.Ending != "its time of 2s is used" || s.Best == nil || s.Counts.Stopped != 1 {
		t.Errorf("ended %v", s)
	}
}

// The index keeps within the budget of bytes, and the workers that have the files
// are told to delete them.
func TestCheckpointBudget(t *testing.T) {
	cl := startCluster(t, 1)
	c := cl.client()
	sw := create(t, c, spec(3, 3)+"checkpoints: {budget: 250}\n")
	a := newAgent(t, c, "w1")
	leases := []*atelierv1.Lease{a.acquire(10 * time.Second), a.acquire(10 * time.Second), a.acquire(10 * time.Second)}
	for i, l := range leases {
		e := checkpointed(l, 1, float64(i))
		p := e.GetCheckpoint()
		p.Size, p.Worker, p.Location = 100, "w1", fmt.Sprintf("http://w1/%d", l.Trial)
		a.relay(report(l, 1, float64(i)), e)
	}
	if s := get(t, c, sw.Id); s.StoredBytes != 300 {
		t.Errorf("%d bytes while all can be resumed", s.StoredBytes)
	}
	a.relay(ended(leases[2], finished))
	var dropped []string
	until(t, "the worker is told", func() bool {
		dropped = a.beat(leases[:2]...).Dropped
		return len(dropped) > 0
	})
	if s := get(t, c, sw.Id); s.StoredBytes != 200 || !slices.Equal(dropped, []string{fmt.Sprintf("http://w1/%d", leases[2].Trial)}) {
		t.Errorf("%d bytes, dropped %v", s.StoredBytes, dropped)
	}
	if again := a.beat(leases[:2]...).Dropped; !slices.Equal(again, dropped) {
		t.Errorf("told %v first, then %v", dropped, again)
	}
	if third := a.beat(leases[:2]...).Dropped; len(third) != 0 {
		t.Errorf("told a third time: %v", third)
	}
}
