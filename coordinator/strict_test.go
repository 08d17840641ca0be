package main

import (
	"strings"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	checkedspec "atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/tuner/sweep"
)

// A sweep that runs outlives a parser that has become stricter: its text is one
// that would be refused today, as by a rule that came after it was taken. It goes
// on after a change of leaders, to its end, whether the log has its document or,
// as before there were documents, the fields and the text alone.
func TestRunningSweepOutlivesAStricterParser(t *testing.T) {
	good := spec(9, 2)
	checked, err := sweep.Parse("spec.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	// Three rules that refuse it: a key that is gone, a number that begins with a
	// zero, a budget that is none any more.
	text := strings.Replace(strings.Replace(good, "low: 1, high: 5", "low: 01, high: 5", 1), "trials: 9", "trials: none", 1) + "gone: true\n"
	if _, err := sweep.Parse("spec.yaml", []byte(text)); err == nil || len(err.(sweep.Errors)) < 3 {
		t.Fatalf("the parser takes it: %v", err)
	}
	document := &logv1.CreateSweep{Id: "s-document", SpecYaml: text, SpecJson: checkedspec.Encode(checked), BaseDir: "/data"}
	fields := &logv1.CreateSweep{Id: "s-fields", SpecYaml: text, BaseDir: "/data", Name: checked.Name, TrainingJson: checked.TrainingJSON, Seed: checked.Seed,
		Objective:    wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: checked.SearchMethod, Trainer: checked.Trainer, BudgetTrials: 9, Parallelism: checked.Parallelism, MaxRetries: checked.MaxRetries}
	cl := startCluster(t, 3)
	c := cl.client()
	for _, x := range []*logv1.CreateSweep{document, fields} {
		if r, err := cl.leader().node.Propose(background(t), &logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: x}}); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	drive(a, 2, func() bool {
		return raw(c).Sweep(t, "s-document").Counts.Finished >= 2 && raw(c).Sweep(t, "s-fields").Counts.Finished >= 2
	})
	cl.leader().crash(t)
	until(t, "another leads", func() bool { return cl.leader() != nil })
	drive(a, 2, func() bool {
		return raw(c).Sweep(t, "s-document").EndedMs != 0 && raw(c).Sweep(t, "s-fields").EndedMs != 0
	})
	var params [2][]string
	for i, id := range []string{"s-document", "s-fields"} {
		s := raw(c).Sweep(t, id)
		if wire.SweepStatus(s.Status) != trial.SweepFinished || s.Counts.Finished != 9 {
			t.Errorf("%s is %v: %s, %v", id, s.Status, s.Failure, s.Counts)
		}
		if v := raw(c).Verify(t, id); v.Checked != 9 || len(v.Differences) > 0 {
			t.Errorf("%s: %v", id, v)
		}
		if s.SpecYaml != text || s.SpecJson == "" {
			t.Errorf("%s is shown with the text %q and the document %q", id, s.SpecYaml, s.SpecJson)
		}
		for _, tr := range raw(c).TrialsOf(t, id) {
			params[i] = append(params[i], tr.ParamsJson)
		}
	}
	if strings.Join(params[0], " ") != strings.Join(params[1], " ") {
		t.Errorf("one spec, two searches:\n%v\n%v", params[0], params[1])
	}
}
