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

// What a sweep's runs are is settled when it is made; its leases say so. A run of
// inference ranks nothing: it has no leaderboard, wherever that is asked for.
func TestKindOfASweep(t *testing.T) {
	c := node.Start(t, node.Options{})
	for training, want := range map[string]trial.Kind{
		"training: {epochs: 2}":                               trial.Training,
		"training: {task: infer, settings: {mode: evaluate}}": trial.Inference,
	} {
		sw := c.Create(t, strings.Replace(coordinatortest.Spec(1, 1), "training: {epochs: 2}", training, 1))
		if got := wire.Kind(sw.Kind); got != want {
			t.Errorf("%q makes a sweep of %s", training, got)
		}
		a := coordinatortest.NewAgent(t, c.API, "w-"+want.String())
		if l := a.Acquire(10 * time.Second); l == nil || l.SweepId != sw.Id || wire.Kind(l.Kind) != want {
			t.Errorf("%q: lease %v", training, l)
		}
		for _, source := range []string{"", "state"} {
			_, err := c.Sweeps.GetLeaderboard(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: source}))
			if inference := want == trial.Inference; inference != (err != nil) || inference && !strings.Contains(err.Error(), "is an inference, not a tuning: it has no leaderboard") {
				t.Errorf("%s: leaderboard from %q: %v", want, source, err)
			}
		}
		ctx := coordinatortest.Context(t)
		_, progress := c.Sweeps.GetProgress(ctx, connect.NewRequest(&atelierv1.GetProgressRequest{Id: sw.Id}))
		_, importance := c.Sweeps.GetImportance(ctx, connect.NewRequest(&atelierv1.GetImportanceRequest{Id: sw.Id}))
		_, extended := c.Sweeps.ExtendSweep(ctx, connect.NewRequest(&atelierv1.ExtendSweepRequest{Id: sw.Id, RequestId: "more-" + sw.Id, AddTrials: 1}))
		for what, err := range map[string]error{"progress": progress, "importance": importance, "extend": extended} {
			if says := err != nil && strings.Contains(err.Error(), "is an inference, not a tuning"); says != (want == trial.Inference) {
				t.Errorf("%s of a sweep of %s: %v", what, want, err)
			}
		}
	}
}

// Who follows a sweep is told of its changes together, and of its end at once.
func TestWaitingRests(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(5, 1))
	first, err := c.Sweeps.WaitSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, RestMs: 20_000}))
	if err != nil {
		t.Fatal(err)
	}
	control := func(a atelierv1.SweepAction) {
		if _, err := c.Sweeps.ControlSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ControlSweepRequest{RequestId: a.String(), Id: sw.Id, Action: a})); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	control(wire.ToAction(trial.ActionPause))
	paused, err := c.Sweeps.WaitSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, AfterIndex: first.Msg.Index, RestMs: 700, WaitMs: 20_000}))
	if err != nil || wire.SweepStatus(paused.Msg.Sweep.Status) != trial.SweepPaused || time.Since(began) < 700*time.Millisecond {
		t.Errorf("after %v: %v %v", time.Since(began), paused, err)
	}
	began = time.Now()
	cancelled := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() { defer close(cancelled); control(wire.ToAction(trial.ActionCancel)) })
	over, err := c.Sweeps.WaitSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, AfterIndex: paused.Msg.Index, RestMs: 20_000, WaitMs: 20_000}))
	if err != nil || !wire.SweepStatus(over.Msg.Sweep.Status).Over() || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v %v", time.Since(began), over, err)
	}
	<-cancelled
}
