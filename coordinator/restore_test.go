package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/state"
)

// drive carries leases out as a worker does, epoch by epoch, obeying verdicts,
// until enough says so.
func drive(a *coordinatortest.Agent, epochs int32, enough func() bool) {
	a.T.Helper()
	for deadline := time.Now().Add(time.Minute); !enough(); {
		if time.Now().After(deadline) {
			a.T.Fatal("a minute of work, and it is not enough")
		}
		l := a.Acquire(100 * time.Millisecond)
		if l == nil {
			continue
		}
		exit := trial.ExitFinished
		for e := l.LastEpoch + 1; e <= epochs; e++ {
			r := a.Relay(report(l, e, float64((l.Trial*7)%13)+1/float64(e)))[0]
			if wire.Verdict(r.Verdict) == trial.VerdictPause {
				exit = trial.ExitPaused
			}
			if wire.Verdict(r.Verdict) == trial.VerdictStop {
				exit = trial.ExitStopped
			}
			if exit != trial.ExitFinished {
				break
			}
		}
		a.Relay(ended(l, exit))
	}
}

// TestRestoreUnderAStoppingRule restores a state in which a sweep with a rule had
// fewer trials than by then: the leader lives on, and judge and search go on from
// what was restored, to the sweep's end.
func TestRestoreUnderAStoppingRule(t *testing.T) {
	for _, method := range []string{"random", "bayesian"} {
		t.Run(method, func(t *testing.T) {
			x := startProcesses(t, 1)
			text := strings.Replace(spec(60, 3), "epochs: 2", "epochs: 9", 1) + "stopping: {rule: asha, min_epochs: 1, reduction: 3}\n"
			sw := raw(x.c).Create(t, strings.Replace(text, "search_method: random", "search_method: "+method, 1))
			a := coordinatortest.NewAgent(t, raw(x.c), "w1")
			proposed := func(n int64) func() bool {
				return func() bool { return raw(x.c).Sweep(t, sw.Id).Counts.Proposed >= n }
			}
			drive(a, 9, proposed(8))
			file := raw(x.c).SaveState(t)
			then := raw(x.c).Sweep(t, sw.Id).Counts.Proposed
			drive(a, 9, proposed(25))
			if _, err := raw(x.c).RestoreState(t, file); err != nil {
				t.Fatalf("%v\n%s", err, x.ps["p1"].log)
			}
			if now := raw(x.c).Sweep(t, sw.Id).Counts.Proposed; now > then+3 {
				t.Errorf("%d trials are proposed, at the snapshot there were %d", now, then)
			}
			drive(a, 9, func() bool { return raw(x.c).Sweep(t, sw.Id).EndedMs != 0 })
			s := raw(x.c).Sweep(t, sw.Id)
			if wire.SweepStatus(s.Status) != trial.SweepFinished || s.Counts.Proposed != 60 || s.Counts.Stopped == 0 || s.Counts.Failed != 0 {
				t.Errorf("the sweep is %v: %s, %v", s.Status, s.Failure, s.Counts)
			}
			if strings.Contains(x.ps["p1"].log.String(), "panic") {
				t.Errorf("%s", x.ps["p1"].log)
			}
			if v := raw(x.c).Verify(t, sw.Id); v.Checked == 0 || len(v.Differences) != 0 {
				t.Errorf("proposals after the restore are not those of the restored history: %v", v)
			}
		})
	}
}

// TestRestoreFences: a run that was granted before the snapshot and reported
// after it loses its lease at the restore. Its trial waits again at once, in the
// place that its parallelism has, goes on from the restored checkpoint, and its
// curve has no hole.
func TestRestoreFences(t *testing.T) {
	x := startProcesses(t, 1)
	text := strings.Replace(spec(2, 1), "epochs: 2", "epochs: 8", 1)
	sw := raw(x.c).Create(t, text)
	a := coordinatortest.NewAgent(t, raw(x.c), "w1")
	old := a.Acquire(30 * time.Second)
	if old == nil {
		t.Fatal("no lease")
	}
	a.Relay(report(old, 1, 5), checkpointed(old, 1, 5))
	file := raw(x.c).SaveState(t)
	for e := int32(2); e <= 5; e++ {
		a.Relay(report(old, e, 5), checkpointed(old, e, 5))
	}
	later := raw(x.c).Create(t, text)
	woken := make(chan error, 1)
	seen := raw(x.c).Sweep(t, sw.Id)
	resp, err := x.c.Raw().Sweeps.GetSweep(background(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: sw.Id}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := x.c.Raw().Sweeps.WaitSweep(background(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, AfterIndex: resp.Msg.Index, WaitMs: 50_000}))
		woken <- err
	}()
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	done, err := raw(x.c).RestoreState(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if done.LeasesEnded != 1 || done.NoChecksum || done.TakenMs == 0 || done.Sweeps != 1 {
		t.Errorf("the answer is %v", done)
	}
	select {
	case err := <-woken:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("who waited for the sweep was not told of the restore")
	}
	// A grant comes at once: nothing waits for the old lease's term.
	l := a.Acquire(5 * time.Second)
	if l == nil {
		t.Fatalf("no lease %v after the restore: the old one's place is taken", time.Since(began))
	}
	if l.Trial != old.Trial || l.Token <= old.Token || l.LastEpoch != 1 || len(l.Checkpoints) != 1 || l.Checkpoints[0].Epoch != 1 {
		t.Errorf("the lease is %v, want trial %d from epoch 1 under a later token", l, old.Trial)
	}
	if lost := a.Beat(old, l).Lost; len(lost) != 1 || lost[0].Token != old.Token {
		t.Errorf("lost is %v, want the old lease", lost)
	}
	for _, e := range []*atelierv1.RunEvent{report(old, 1, 5), report(old, 6, 5), checkpointed(old, 6, 5), ended(old, trial.ExitFinished)} {
		if r := a.Relay(e)[0]; wire.Outcome(r.Outcome) != trial.OutcomeFenced || wire.Verdict(r.Verdict) != trial.VerdictStop {
			t.Errorf("an event under the old lease: %v", r)
		}
	}
	gone := &atelierv1.Lease{SweepId: later.Id, Trial: 1, Token: old.Token}
	if r := a.Relay(report(gone, 1, 5))[0]; wire.Verdict(r.Verdict) != trial.VerdictStop {
		t.Errorf("a report to a sweep that is gone is answered %v: its run must end", r)
	}
	tr := raw(x.c).Trial(t, sw.Id, old.Trial)
	if len(tr.Runs) != 2 || wire.Exit(tr.Runs[0].Exit) != trial.ExitRestored || !strings.Contains(tr.Runs[0].Message, "restored") || tr.Runs[1].ResumedEpoch != 1 {
		t.Errorf("runs %v", tr.Runs)
	}
	// The file that the restored index names is gone: who is told so gives it up.
	lost := l.Checkpoints[0]
	if r := a.Relay(&atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: lost.Token, Event: &atelierv1.RunEvent_CheckpointLost{
		CheckpointLost: &atelierv1.CheckpointLost{Epoch: lost.Epoch, Location: lost.Location, Worker: "w1"}}})[0]; wire.Outcome(r.Outcome) != trial.OutcomeRecorded {
		t.Errorf("a lost checkpoint: %v", r)
	}
	if tr := raw(x.c).Trial(t, sw.Id, old.Trial); len(tr.Checkpoints) != 0 {
		t.Errorf("checkpoints %v", tr.Checkpoints)
	}
	for e := int32(1); e <= 8; e++ {
		a.Relay(report(l, e, 5))
	}
	a.Relay(ended(l, trial.ExitFinished))
	curve, err := x.c.Raw().Trials.GetCurve(background(t), connect.NewRequest(&atelierv1.GetCurveRequest{SweepId: sw.Id, Trial: old.Trial}))
	if err != nil {
		t.Fatal(err)
	}
	var epochs []int32
	for _, r := range curve.Msg.Reports {
		epochs = append(epochs, r.Epoch)
	}
	if !slices.Equal(epochs, []int32{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("the curve has epochs %v", epochs)
	}
	drive(a, 8, func() bool { return raw(x.c).Sweep(t, sw.Id).EndedMs != 0 })
	if s := raw(x.c).Sweep(t, sw.Id); s.Counts.Finished != 2 || seen.Counts.Running != 1 {
		t.Errorf("%v", s.Counts)
	}
}

// What a leader that died had staged is given up by the next one: it would stay
// in every coordinator's memory.
func TestNextLeaderGivesUpWhatIsStaged(t *testing.T) {
	cl := startCluster(t, 1)
	n := cl.leader()
	if r, err := n.node.Propose(background(t), &logv1.Command{Op: &logv1.Command_BeginRestore{BeginRestore: &logv1.BeginRestore{
		Id: "r-left", Bytes: 100, Sha256: make([]byte, 32), Format: state.StreamFormat}}}); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	if got := n.machine.View().Staging(); got != "r-left" {
		t.Fatalf("staged is %q", got)
	}
	n.crash(t)
	cl.nodes = nil
	again := cl.start("c1")
	until(t, "it leads", func() bool { return again.lead.Ready() })
	if got := again.machine.View().Staging(); got != "" {
		t.Errorf("%s stays staged", got)
	}
}
