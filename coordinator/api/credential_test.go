package api_test

import (
	"testing"

	"connectrpc.com/connect"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
)

// The credential of a trial reaches that trial, as the run that it was given to, and nothing else;
// of the run's end it can still be sure, of a later run it cannot speak.
func TestCredentialOfATrial(t *testing.T) {
	c := startClosed(t)
	ola := c.calls(c.tokenOf("ola-2", access.Operator, 0).Text())
	sweep := coordinatortest.Call(t, ola.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{RequestId: "q1", SpecYaml: coordinatortest.ExternalSpec("random", "{trials: 3}", 3)}).Sweep
	ask := func(request string) (*atelierv1.Lease, coordinatortest.API) {
		t.Helper()
		secret := access.NewTrialSecret()
		hash := secret.Hash()
		lease := coordinatortest.Call(t, ola.Trials.AskTrial, &atelierv1.AskTrialRequest{RequestId: request, SweepId: sweep.Id, WaitMs: 20_000, CredentialSha256: hash[:]}).Lease
		if lease == nil {
			t.Fatal("no trial")
		}
		return lease, c.calls(secret.ForTrial(sweep.Id, lease.Trial).Text())
	}
	one, mine := ask("a")
	two, _ := ask("b")
	report := func(n int64, epoch int32) *atelierv1.TellTrialRequest {
		return &atelierv1.TellTrialRequest{SweepId: sweep.Id, Trial: n, Report: &atelierv1.Report{Epoch: epoch, Metrics: []*atelierv1.Metric{{Name: "loss", Value: 1}}}}
	}
	coordinatortest.Call(t, mine.Trials.TellTrial, report(one.Trial, 1))
	coordinatortest.Call(t, mine.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: sweep.Id, Trial: one.Trial})
	coordinatortest.Call(t, mine.Sweeps.ListCheckpoints, &atelierv1.ListCheckpointsRequest{Id: sweep.Id, Trial: one.Trial})

	const denied = connect.CodePermissionDenied
	coordinatortest.Refused(t, "another trial", mine.Trials.TellTrial, report(two.Trial, 1), denied, "alone")
	coordinatortest.Refused(t, "another trial's state", mine.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: sweep.Id, Trial: two.Trial}, denied, "alone")
	coordinatortest.Refused(t, "another sweep", mine.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: "s-other", Trial: one.Trial}, denied, "alone")
	coordinatortest.Refused(t, "all checkpoints", mine.Sweeps.ListCheckpoints, &atelierv1.ListCheckpointsRequest{Id: sweep.Id}, denied, "alone")
	coordinatortest.Refused(t, "the next trial", mine.Trials.AskTrial, &atelierv1.AskTrialRequest{RequestId: "c", SweepId: sweep.Id}, denied, "needs operator")
	coordinatortest.Refused(t, "the sweep", mine.Sweeps.GetSweep, &atelierv1.GetSweepRequest{Id: sweep.Id}, denied, "needs viewer")
	foreign := report(one.Trial, 2)
	foreign.Token = two.Token
	coordinatortest.Refused(t, "another run's lease", mine.Trials.TellTrial, foreign, denied, "lease")

	end := &atelierv1.TellTrialRequest{SweepId: sweep.Id, Trial: one.Trial, Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.ExitReleased)}}
	coordinatortest.Call(t, mine.Trials.TellTrial, end)
	again := coordinatortest.Call(t, mine.Trials.TellTrial, end)
	if wire.Outcome(again.Outcome) != trial.OutcomeAlready {
		t.Errorf("the same end again: %v", again.Outcome)
	}
	// The trial is given to another program: the first one's credential is not that one's.
	next, his := ask("d")
	if next.Trial != one.Trial {
		t.Fatalf("trial %d was given, %d waits", next.Trial, one.Trial)
	}
	_, err := mine.Trials.TellTrial(coordinatortest.Context(t), connect.NewRequest(report(one.Trial, 2)))
	coordinatortest.WantCode(t, "an earlier run", err, connect.CodeFailedPrecondition, "the lease is over")
	coordinatortest.Call(t, his.Trials.TellTrial, report(one.Trial, 2))
}
