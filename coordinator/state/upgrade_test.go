package state_test

import (
	"fmt"
	"testing"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

func sweepOfOne() *logv1.Command {
	return &logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-1", BudgetTrials: 1, Parallelism: 1,
		Objective: wire.ToObjective(trial.Objective{Metric: "loss"})}}}
}

// A state that earlier versions filled with as many requests as they remember is
// taken up, remembers those of today on top, and can be saved and restored; each
// of them is known afterwards.
func TestRequestsOfBeforeAndOfToday(t *testing.T) {
	m := state.New()
	apply(m, sweepOfOne())
	prioritize := func(i int) *logv1.Command {
		return &logv1.Command{RequestId: fmt.Sprintf("q-%d", i), Op: &logv1.Command_PrioritizeSweep{PrioritizeSweep: &logv1.PrioritizeSweep{Id: "s-1", Priority: int32(i % 5)}}}
	}
	drain := func(i int) *logv1.Command {
		return &logv1.Command{RequestId: fmt.Sprintf("q-%d", i), Rules: state.Rules, Op: &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: "w", Drain: i%2 == 0}}}
	}
	for at := 0; at < 5000; at += 1000 {
		e := &logv1.Entry{}
		for i := range 1000 {
			e.Commands = append(e.Commands, prioritize(at+i))
		}
		m.Apply(m.View().Index()+1, e)
	}
	m = again(t, m)
	for i := range 300 {
		if r := apply(m, drain(i)); r.Err != nil || r.Outcome == trial.OutcomeAlready {
			t.Fatalf("drain %d: %v, %v", i, r.Outcome, r.Err)
		}
	}
	m = again(t, m)
	for name, c := range map[string]*logv1.Command{"the last of before": prioritize(4999), "the last of today": drain(299)} {
		if r := apply(m, c); r.Outcome != trial.OutcomeAlready {
			t.Errorf("%s: %v, %v", name, r.Outcome, r.Err)
		}
	}
}

// What the lost majority granted behind the last entry that is left counts for
// nothing after a recovery, although its indexes are given out again.
func TestRecoverFencesWhatIsLost(t *testing.T) {
	grant := func(worker string) *logv1.Command {
		return &logv1.Command{TimeMs: 1, Rules: state.Rules, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s-1", Trial: 1, Worker: worker, Incarnation: "i", Slot: "cpu0", Request: "r"}}}
	}
	report := func(token uint64) *logv1.Command {
		return &logv1.Command{TimeMs: 2, Rules: state.Rules, Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{{SweepId: "s-1", Trial: 1, Token: token,
			Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: 1, Metrics: []*atelierv1.Metric{{Name: "loss", Value: 1}}}}}}}}}
	}
	left := state.New()
	apply(left, setMember("n1", "c-1", "f-1"))
	apply(left, sweepOfOne())
	apply(left, &logv1.Command{TimeMs: 1, Rules: state.Rules, Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s-1", First: 1, ParamsJson: []string{"{}"}}}})
	lost := again(t, left) // the majority, which went on
	old := apply(lost, grant("w-old"))

	only, _ := left.View().Member("n1")
	if err := left.Recover("c-2", only); err != nil {
		t.Fatal(err)
	}
	left = again(t, left)
	now := apply(left, grant("w-new"))
	if old.Err != nil || now.Err != nil || now.Token <= old.Token {
		t.Fatalf("tokens %d then %d: %v, %v", old.Token, now.Token, old.Err, now.Err)
	}
	if r := apply(left, report(old.Token)); r.Events[0].Outcome != trial.OutcomeFenced {
		t.Errorf("a report of the lost grant: %v", r.Events[0])
	}
	if r := apply(left, report(now.Token)); r.Events[0].Outcome != trial.OutcomeRecorded {
		t.Errorf("a report of today's grant: %v", r.Events[0])
	}
}
