package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// The schema promises that the same request id never creates a second sweep:
// however much was asked for since, and after a restart from the state's snapshot.
func TestARepeatedSubmitIsKnownForGood(t *testing.T) {
	c := node.Start(t, node.Options{})
	submit := func() string {
		t.Helper()
		resp, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "mine", SpecYaml: coordinatortest.Spec(3, 3), SpecName: "test.yaml"}))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg.Sweep.Id
	}
	extend := func(id string) int64 {
		t.Helper()
		resp, err := c.Sweeps.ExtendSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ExtendSweepRequest{RequestId: "more", Id: id, AddTrials: 5}))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg.Sweep.BudgetTrials
	}
	first := submit()
	budget := extend(first)
	other := c.Create(t, coordinatortest.Spec(3, 3)).Id
	var callers sync.WaitGroup
	for caller := range 32 {
		callers.Go(func() {
			for i := range 135 {
				// Both sweeps: what changes nothing any more pushes nothing out either.
				id := []string{first, other}[i%2]
				action := []atelierv1.SweepAction{wire.ToAction(trial.ActionPause), wire.ToAction(trial.ActionResume)}[caller%2]
				_, err := c.Sweeps.ControlSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ControlSweepRequest{RequestId: fmt.Sprint(caller, "-", i), Id: id, Action: action}))
				if err != nil && !strings.Contains(err.Error(), "sweep") {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	if again := submit(); again != first {
		t.Errorf("the same request made sweep %s and, after 4,320 others, %s", first, again)
	}
	if again := extend(first); again != budget {
		t.Errorf("the same extension counts twice: a budget of %d, now %d", budget, again)
	}
}
