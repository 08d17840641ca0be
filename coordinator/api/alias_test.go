package api_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// TestAliases: "the best" is settled when an alias is set, what it names is kept through
// later checkpoints, a repeat moves nothing back, and a sweep of which it names a checkpoint
// is deleted by force alone, with which the alias goes in the end.
func TestAliases(t *testing.T) {
	c := node.Start(t, node.Options{})
	ctx := coordinatortest.Context(t)
	s := c.Create(t, coordinatortest.Spec(1, 1))
	a := coordinatortest.NewAgent(t, c.API, "w")
	a.Beat()
	l := a.Acquire(10 * time.Second)
	epoch := func(n int32, loss float64) {
		t.Helper()
		for _, r := range a.Relay(coordinatortest.Report(l, n, loss), coordinatortest.Checkpointed(l, n, loss)) {
			if wire.Outcome(r.Outcome) != trial.OutcomeRecorded {
				t.Fatalf("epoch %d: %v", n, r)
			}
		}
	}
	set := func(q *atelierv1.SetAliasRequest) (*atelierv1.Alias, error) {
		r, err := c.Sweeps.SetAlias(ctx, connect.NewRequest(q))
		if err != nil {
			return nil, err
		}
		return r.Msg.Alias, nil
	}
	_, err := set(&atelierv1.SetAliasRequest{RequestId: "r0", Name: "production", SweepId: s.Id})
	coordinatortest.WantCode(t, "no value yet", err, connect.CodeNotFound, "no trial with a value")
	epoch(1, 0.5)
	first := &atelierv1.SetAliasRequest{RequestId: "r1", Name: "production", SweepId: s.Id, By: "ada"}
	now, err := set(first)
	if err != nil || len(now.Places) != 1 || now.Places[0].Epoch != 1 || now.Places[0].Trial != 1 || now.Places[0].By != "ada" || now.Places[0].Sha256 == "" || now.Location == "" {
		t.Fatalf("set %v, %v", now, err)
	}
	epoch(2, 0.4)
	epoch(3, 0.3)
	epoch(4, 0.6)
	kept := func() (epochs string) {
		for _, k := range c.Trial(t, s.Id, 1).Checkpoints {
			epochs += string(rune('0' + k.Epoch))
		}
		return epochs
	}
	if got := kept(); got != "431" {
		t.Errorf("kept are the checkpoints of epochs %s, want the newest, the best and the promoted one", got)
	}
	_, err = set(&atelierv1.SetAliasRequest{RequestId: "r2", Name: "production", SweepId: s.Id, Trial: 1, Epoch: 2})
	coordinatortest.WantCode(t, "an epoch that is not kept", err, connect.CodeNotFound, "keeps no checkpoint of epoch 2")
	if now, err = set(&atelierv1.SetAliasRequest{RequestId: "r3", Name: "production", SweepId: s.Id, Trial: 1}); err != nil || len(now.Places) != 2 || now.Places[0].Epoch != 3 {
		t.Fatalf("moved %v, %v", now, err)
	}
	if now, err = set(first); err != nil || now.Places[0].Epoch != 3 {
		t.Errorf("a repeat moved it back: %v, %v", now, err)
	}
	a.Relay(coordinatortest.Ended(l, trial.ExitFinished))
	coordinatortest.Until(t, "the end", func() bool { return c.Sweep(t, s.Id).EndedMs != 0 })
	_, err = control(t, c, s.Id, trial.ActionDelete)
	coordinatortest.WantCode(t, "delete", err, connect.CodeFailedPrecondition, "the alias production names a checkpoint of it")
	force := &atelierv1.ControlSweepRequest{RequestId: client.NewRequestID(), Id: s.Id, Action: wire.ToAction(trial.ActionDelete), Force: true}
	if _, err := c.Sweeps.ControlSweep(ctx, connect.NewRequest(force)); err != nil {
		t.Fatal(err)
	}
	names := func() string {
		r, err := c.Sweeps.ListAliases(ctx, connect.NewRequest(&atelierv1.ListAliasesRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, a := range r.Msg.Aliases {
			all = append(all, a.Name)
		}
		return strings.Join(all, " ")
	}
	if names() != "production" {
		t.Errorf("before the purge the aliases are %q", names())
	}
	if _, err := c.Sweeps.PurgeSweep(ctx, connect.NewRequest(&atelierv1.PurgeSweepRequest{Id: s.Id})); err != nil {
		t.Fatal(err)
	}
	if names() != "" {
		t.Errorf("after the purge the aliases are %q", names())
	}
	// The worker is told of every file, the one kept for the alias too.
	dropped := map[string]bool{}
	coordinatortest.Until(t, "the worker is told of all files", func() bool {
		for _, at := range a.Beat().Dropped {
			dropped[at] = true
		}
		return len(dropped) == 3
	})
}
