package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
)

// testdata/b48f715.tar.gz.gz is the data folder of a coordinator of that commit
// with eight sweeps, most of them under way: of each search method one, with
// constraints, two objectives, a population, a warm start, given points, stopping
// rules and budgets of all kinds. Beside it are the leaderboards of that moment
// and a saved state. One sweep is paused, and a program outside holds a trial of
// another.

// boards are the leaderboards that the earlier build answered.
func boards(t *testing.T, dir string) map[string]*atelierv1.GetLeaderboardResponse {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "leaderboards.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list map[string]json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]*atelierv1.GetLeaderboardResponse{}
	for id, one := range list {
		b := &atelierv1.GetLeaderboardResponse{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(one, b); err != nil {
			t.Fatal(err)
		}
		out[id] = b
	}
	return out
}

// sameBoards compares the leaderboards with those of before. restored: the run of
// the outside program has ended, its trial waits.
func sameBoards(t *testing.T, c *client.Client, want map[string]*atelierv1.GetLeaderboardResponse, restored bool) {
	t.Helper()
	for id, w := range want {
		r, err := c.Raw().Sweeps.GetLeaderboard(background(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: id, Source: "state"}))
		if err != nil {
			t.Errorf("leaderboard of %s: %v", id, err)
			continue
		}
		if len(r.Msg.Rows) != len(w.Rows) || len(w.Rows) == 0 {
			t.Errorf("leaderboard of %s has %d rows, had %d", id, len(r.Msg.Rows), len(w.Rows))
			continue
		}
		for i, was := range w.Rows {
			is := r.Msg.Rows[i]
			if wire.Status(was.Status) == trial.Running && restored {
				was = proto.CloneOf(was)
				was.Status = wire.ToStatus(trial.Waiting)
			}
			if len(was.Metrics) == 0 { // the earlier build's rows had the objective alone
				is = proto.CloneOf(is)
				is.Metrics = nil
			}
			if !proto.Equal(is, was) {
				t.Errorf("leaderboard of %s, row %d:\n got %v\nwant %v", id, i+1, is, was)
			}
		}
	}
}

// ofName returns the sweep of a name.
func ofName(t *testing.T, c *client.Client, name string) *atelierv1.Sweep {
	t.Helper()
	r, err := c.Raw().Sweeps.ListSweeps(background(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Msg.Sweeps {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no sweep %q", name)
	return nil
}

// train carries leases out, all their epochs, until enough says so. What it
// reports is a function of the trial and the epoch.
func train(a *coordinatortest.Agent, enough func() bool) {
	a.T.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !enough(); {
		if time.Now().After(deadline) {
			a.T.Fatal("two minutes of work, and it is not enough")
		}
		l := a.Acquire(100 * time.Millisecond)
		if l == nil {
			continue
		}
		var set struct{ Epochs int32 }
		for _, text := range []string{l.TrainingJson, l.ParamsJson} {
			if err := json.Unmarshal([]byte(text), &set); err != nil {
				a.T.Fatalf("trial %d of %s: %v", l.Trial, l.SweepId, err)
			}
		}
		if set.Epochs == 0 {
			a.T.Fatalf("trial %d of %s: no epochs in %s", l.Trial, l.SweepId, l.TrainingJson)
		}
		exit := trial.ExitFinished
		if l.EndEpoch > 0 && l.EndEpoch < set.Epochs {
			set.Epochs, exit = l.EndEpoch, exitOf(l.EndVerdict)
		}
		for e := l.LastEpoch + 1; e <= set.Epochs; e++ {
			loss := 0.3 + float64((l.Trial*7)%13)/20 + 1/float64(e)
			r := a.Relay(&atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Report{
				Report: &atelierv1.Report{Epoch: e, TimeMs: 1000 + int64(e), Metrics: []*atelierv1.Metric{
					{Name: "val_loss", Value: loss}, {Name: "val_acc", Value: math.Exp(-loss / 2)}, {Name: "train_loss", Value: loss * 0.8}}}}},
				checkpointed(l, e, loss))[0]
			if end := exitOf(r.Verdict); end != exit && end != trial.ExitFinished {
				exit = end
				break
			}
		}
		a.Relay(ended(l, exit))
	}
}

func exitOf(v atelierv1.Verdict) trial.Exit {
	switch wire.Verdict(v) {
	case trial.VerdictPause:
		return trial.ExitPaused
	case trial.VerdictStop:
		return trial.ExitStopped
	}
	return trial.ExitFinished
}

// goOn works on all sweeps for so many findings more; 0 = to their end.
func goOn(t *testing.T, c *client.Client, more int64) {
	t.Helper()
	found := func() (n, open int64) {
		r, err := c.Raw().Sweeps.ListSweeps(background(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Msg.Sweeps {
			n += s.Findings
			if s.EndedMs == 0 && s.Trainer != "external" {
				open++
			}
		}
		return n, open
	}
	a := &coordinatortest.Agent{T: t, API: raw(c), Name: "w2", Incarnation: "w2-" + time.Now().String(), Labels: map[string]string{"site": "north", "gpu": "none"}}
	a.Beat()
	before, _ := found()
	train(a, func() bool {
		n, open := found()
		return open == 0 || more > 0 && n >= before+more
	})
}

// theirEnd checks how the sweeps ended, and that every proposal, those of the
// earlier build too, comes out again.
func theirEnd(t *testing.T, c *client.Client, ids map[string]*atelierv1.GetLeaderboardResponse) {
	t.Helper()
	for id := range ids {
		s := raw(c).Sweep(t, id)
		if wire.SweepStatus(s.Status) != trial.SweepFinished || s.Best == nil {
			t.Errorf("%s (%s) is %v: %s", id, s.Name, s.Status, s.Failure)
		}
		if s.BudgetTrials > 0 && s.Counts.Proposed != s.BudgetTrials {
			t.Errorf("%s (%s) has %d of %d trials", id, s.Name, s.Counts.Proposed, s.BudgetTrials)
		}
		if v := raw(c).Verify(t, id); v.Checked != s.Counts.Proposed || len(v.Differences) > 0 {
			t.Errorf("%s (%s): %d of %d proposals checked, %d come out otherwise: %v", id, s.Name, v.Checked, s.Counts.Proposed, len(v.Differences), v.Differences)
		}
	}
}

func resume(t *testing.T, c *client.Client, id string) {
	t.Helper()
	if _, err := c.Raw().Sweeps.ControlSweep(background(t), connect.NewRequest(&atelierv1.ControlSweepRequest{RequestId: "resume-" + t.Name(), Id: id,
		Action: wire.ToAction(trial.ActionResume)})); err != nil {
		t.Fatal(err)
	}
}

// finishExternal takes the trials of the outside program to their end; held is
// the one it has.
func finishExternal(t *testing.T, c *client.Client, id string, held *atelierv1.Lease) {
	t.Helper()
	for held == nil || raw(c).Tell(t, held, held.LastEpoch+1, 0.25, trial.ExitFinished) != nil {
		l, status := raw(c).Ask(t, id, time.Now().String(), 200*time.Millisecond)
		if status == trial.SweepFinished {
			return
		}
		held = l
	}
}

// The folder of the earlier build opens, its leaderboards are the same, and its
// sweeps go on over two restarts, a snapshot and a restore to their ends.
func TestSweepsOfAnEarlierBuildGoOn(t *testing.T) {
	cl := &testCluster{t: t, dir: t.TempDir()}
	coordinatortest.Unpack(t, "testdata/b48f715.tar.gz.gz", cl.dir)
	before := boards(t, cl.dir)
	if len(before) != 8 {
		t.Fatalf("%d leaderboards", len(before))
	}
	restart := func() *client.Client {
		t.Helper()
		for _, n := range cl.nodes {
			n.end(t)
		}
		cl.nodes = nil
		cl.start("n1")
		cl.waitLeader()
		return cl.client()
	}
	c := restart()
	sameBoards(t, c, before, false)
	c = restart() // of what the new build wrote
	sameBoards(t, c, before, false)

	goOn(t, c, 12)
	outside := ofName(t, c, "elsewhere")
	runs := raw(c).Trial(t, outside.Id, 1).Runs
	held := &atelierv1.Lease{SweepId: outside.Id, Trial: 1, Token: runs[len(runs)-1].Token, LastEpoch: 1}
	if r := raw(c).Tell(t, held, 2, 0.3, 0); wire.Outcome(r.Outcome) != trial.OutcomeRecorded {
		t.Errorf("the outside program's trial is not its own any more: %v", r)
	}
	held.LastEpoch = 2
	c = restart()
	goOn(t, c, 12)
	file := raw(c).SaveState(t)
	then := map[string]*atelierv1.GetLeaderboardResponse{}
	for id := range before {
		r, err := c.Raw().Sweeps.GetLeaderboard(background(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: id, Source: "state"}))
		if err != nil {
			t.Fatal(err)
		}
		then[id] = r.Msg
	}
	goOn(t, c, 6)
	if _, err := raw(c).RestoreState(t, file); err != nil {
		t.Fatal(err)
	}
	sameBoards(t, c, then, true)
	resume(t, c, ofName(t, c, "cmaes").Id)
	goOn(t, c, 0)
	finishExternal(t, c, outside.Id, nil)
	theirEnd(t, c, before)
}

// A state that the earlier build saved is restored into a new cluster, and its
// sweeps go on there.
func TestSavedStateOfAnEarlierBuildGoesOn(t *testing.T) {
	dir := t.TempDir()
	coordinatortest.Unpack(t, "testdata/b48f715.tar.gz.gz", dir)
	before := boards(t, dir)
	file, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	cl := startCluster(t, 1)
	c := cl.client()
	if r, err := raw(c).RestoreState(t, file); err != nil || r.Sweeps != 8 {
		t.Fatal(r, err)
	}
	sameBoards(t, c, before, true)
	resume(t, c, ofName(t, c, "cmaes").Id)
	goOn(t, c, 0)
	finishExternal(t, c, ofName(t, c, "elsewhere").Id, nil)
	theirEnd(t, c, before)
}
