package api_test

import (
	"fmt"
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

// Each call about a sweep or a trial that is not there says so.
func TestWhatIsNotThere(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(2, 1))
	for _, x := range []struct{ id, text string }{{"s-none", "s-none"}, {"", "sweep"}} {
		code := connect.CodeNotFound
		if x.id == "" {
			code = connect.CodeInvalidArgument
		}
		coordinatortest.Refused(t, "get", c.Sweeps.GetSweep, &atelierv1.GetSweepRequest{Id: x.id}, code, x.text)
		coordinatortest.Refused(t, "wait", c.Sweeps.WaitSweep, &atelierv1.WaitSweepRequest{Id: x.id, AfterIndex: 1, RestMs: 50}, code, x.text)
		coordinatortest.Refused(t, "enqueue", c.Sweeps.EnqueueTrials, &atelierv1.EnqueueTrialsRequest{Id: x.id}, code, x.text)
		coordinatortest.Refused(t, "verify", c.Sweeps.VerifySweep, &atelierv1.VerifySweepRequest{Id: x.id}, code, x.text)
		coordinatortest.Refused(t, "progress", c.Sweeps.GetProgress, &atelierv1.GetProgressRequest{Id: x.id}, code, x.text)
		coordinatortest.Refused(t, "importance", c.Sweeps.GetImportance, &atelierv1.GetImportanceRequest{Id: x.id}, code, x.text)
		coordinatortest.Refused(t, "trials", c.Trials.ListTrials, &atelierv1.ListTrialsRequest{SweepId: x.id}, code, x.text)
		coordinatortest.Refused(t, "trial", c.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: x.id, Trial: 1}, code, x.text)
		coordinatortest.Refused(t, "curve", c.Trials.GetCurve, &atelierv1.GetCurveRequest{SweepId: x.id, Trial: 1}, code, x.text)
		coordinatortest.Refused(t, "ask", c.Trials.AskTrial, &atelierv1.AskTrialRequest{SweepId: x.id, RequestId: "r"}, code, x.text)
		coordinatortest.Refused(t, "tell", c.Trials.TellTrial, &atelierv1.TellTrialRequest{SweepId: x.id, Trial: 1}, code, x.text)
	}
	coordinatortest.Refused(t, "extend", c.Sweeps.ExtendSweep, &atelierv1.ExtendSweepRequest{Id: "s-none", AddTrials: 1}, connect.CodeNotFound, "s-none")
	coordinatortest.Refused(t, "prioritize", c.Sweeps.PrioritizeSweep, &atelierv1.PrioritizeSweepRequest{Id: "s-none"}, connect.CodeNotFound, "s-none")
	coordinatortest.Refused(t, "stop", c.Trials.StopTrial, &atelierv1.StopTrialRequest{SweepId: "s-none", Trial: 1}, connect.CodeNotFound, "s-none")
	coordinatortest.Refused(t, "curve", c.Trials.GetCurve, &atelierv1.GetCurveRequest{SweepId: sw.Id, Trial: 9}, connect.CodeNotFound, "no trial 9")
	coordinatortest.Refused(t, "retry", c.Trials.RetryTrial, &atelierv1.RetryTrialRequest{SweepId: sw.Id, Trial: 9}, connect.CodeNotFound, "9")
	coordinatortest.Refused(t, "tell", c.Trials.TellTrial, &atelierv1.TellTrialRequest{SweepId: sw.Id, Trial: 1}, connect.CodeFailedPrecondition, "workers report")
	coordinatortest.Refused(t, "extend by nothing", c.Sweeps.ExtendSweep, &atelierv1.ExtendSweepRequest{Id: sw.Id}, connect.CodeInvalidArgument, sw.Id)
	coordinatortest.Refused(t, "priority", c.Sweeps.PrioritizeSweep, &atelierv1.PrioritizeSweepRequest{Id: sw.Id, Priority: 5000}, connect.CodeInvalidArgument, "5000")
	coordinatortest.Refused(t, "no action", c.Sweeps.ControlSweep, &atelierv1.ControlSweepRequest{Id: sw.Id}, connect.CodeInvalidArgument, "")
	if list := coordinatortest.Call(t, c.Sweeps.ListSweeps, &atelierv1.ListSweepsRequest{Limit: 1}).Sweeps; len(list) != 1 || list[0].Id != sw.Id || list[0].SpecYaml != "" {
		t.Errorf("the list of sweeps is %v", list)
	}
}

// A failed trial is tried again by hand, with all its retries, and its sweep runs again.
func TestRetryByHand(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(2, 1)+"max_retries: 0\n")
	a := coordinatortest.NewAgent(t, c.API, "w1")
	l := a.Acquire(10 * time.Second)
	coordinatortest.Refused(t, "one that runs", c.Trials.RetryTrial, &atelierv1.RetryTrialRequest{SweepId: sw.Id, Trial: l.Trial}, connect.CodeFailedPrecondition, "running")
	a.Relay(coordinatortest.Report(l, 1, 0.5), coordinatortest.Ended(l, trial.ExitOutOfMemory))
	if tr := c.Trial(t, sw.Id, l.Trial); wire.Status(tr.Status) != trial.Failed || tr.Failure == "" {
		t.Fatalf("trial %v", tr)
	}
	for range 2 {
		tr := coordinatortest.Call(t, c.Trials.RetryTrial, &atelierv1.RetryTrialRequest{RequestId: "again", SweepId: sw.Id, Trial: l.Trial}).Trial
		if wire.Status(tr.Status) != trial.Waiting {
			t.Errorf("tried again it is %v", tr)
		}
	}
	a.Work(sw.Id)
	if s := c.Sweep(t, sw.Id); s.Counts.Finished != 2 || s.Counts.Runs != 3 {
		t.Errorf("the sweep is %v", s)
	}
}

// Which parameter mattered is told once enough trials have a value.
func TestImportance(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.ExternalSpec("random", "{trials: 30}", 4))
	coordinatortest.Refused(t, "too early", c.Sweeps.GetImportance, &atelierv1.GetImportanceRequest{Id: sw.Id}, connect.CodeFailedPrecondition, "importance of sweep "+sw.Id)
	c.Play(t, sw.Id, 4, 30, func(int64) {})
	r := coordinatortest.Call(t, c.Sweeps.GetImportance, &atelierv1.GetImportanceRequest{Id: sw.Id})
	sum := 0.0
	for _, p := range r.Parameters {
		sum += p.Importance
	}
	if len(r.Parameters) != 3 || r.Trials != 30 || r.Method != "PED-ANOVA" || sum < 0.99 || sum > 1.01 {
		t.Errorf("importance %v", r)
	}
}

// A warm start takes numbers over from an axis of another kind where they fit, and of
// very many trials the best and some others.
func TestWarmStartOfManyTrials(t *testing.T) {
	c := node.Start(t, node.Options{})
	from := c.Create(t, `
name: many
search_method: random
seed: 3
objective: {metric: loss, direction: minimize}
budget: {trials: 1100}
parallelism: 1100
trainer: sim
space: {n: {type: float, low: 1, high: 2000, step: 0.5}, m: {type: int, low: 1, high: 2000}}
`)
	a := coordinatortest.NewAgent(t, c.API, "w1")
	for {
		l := a.Acquire(200 * time.Millisecond)
		if l == nil {
			if c.Sweep(t, from.Id).EndedMs != 0 {
				break
			}
			continue
		}
		a.Relay(coordinatortest.Report(l, 1, float64(l.Trial)), coordinatortest.Ended(l, trial.ExitFinished))
	}
	spec := func(space string) string {
		return fmt.Sprintf("search_method: random\nseed: 4\nobjective: {metric: loss, direction: minimize}\nbudget: {trials: 2}\ntrainer: external\nspace: {%s}\nwarm_start: %s\n", space, from.Id)
	}
	all := coordinatortest.Call(t, c.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{SpecYaml: spec("n: {type: float, low: 1, high: 2000, step: 0.5}, m: {type: float, low: 1, high: 2000}")})
	if all.Sweep.WarmTrials != 1000 || len(all.Warnings) != 0 {
		t.Errorf("%d trials were taken over: %v", all.Sweep.WarmTrials, all.Warnings)
	}
	// Halves are no ints: those trials are passed over.
	some := coordinatortest.Call(t, c.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{SpecYaml: spec("n: {type: int, low: 1, high: 2000}")})
	if n := some.Sweep.WarmTrials; n < 300 || n > 800 || len(some.Warnings) != 1 || !strings.Contains(some.Warnings[0], "of 1100 trials of sweep "+from.Id+" lie outside") {
		t.Errorf("%d trials were taken over: %v", n, some.Warnings)
	}
}

// A spec that no worker there can serve is taken, with a warning.
func TestWarnings(t *testing.T) {
	c := node.Start(t, node.Options{})
	warned := func(text string) string {
		t.Helper()
		return strings.Join(coordinatortest.Call(t, c.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{SpecYaml: text}).Warnings, "; ")
	}
	if w := warned(coordinatortest.Spec(1, 1)); w != "" {
		t.Errorf("while no worker is known: %s", w)
	}
	a := &coordinatortest.Agent{T: t, API: c.API, Name: "w1", Incarnation: "1", Labels: map[string]string{"gpu": "a100"}}
	a.Beat()
	for text, want := range map[string]string{
		coordinatortest.Spec(1, 1): "", coordinatortest.Spec(1, 1) + "requires: {gpu: a100}\n": "",
		coordinatortest.Spec(1, 1) + "requires: {gpu: h200}\n":                       "no worker carries the labels that the spec requires now",
		strings.Replace(coordinatortest.Spec(1, 1), "trainer: sim", "trainer: x", 1): `no worker offers the trainer "x" now`,
		coordinatortest.ExternalSpec("random", "{trials: 1}", 1):                     "",
		strings.Replace(coordinatortest.Spec(1, 1), "seed: 7\n", "", 1):              "the spec has no seed",
	} {
		if w := warned(text); want == "" && w != "" || !strings.Contains(w, want) {
			t.Errorf("%s\nwarned %q, want %q", text, w, want)
		}
	}
}
