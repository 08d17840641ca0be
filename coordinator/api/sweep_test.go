package api_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

func TestSweepOnOneNode(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(20, 4))
	if sw.Id == "" || sw.BudgetTrials != 20 || sw.Seed != 7 || sw.DefaultDir != "/data" || wire.SweepStatus(sw.Status) != trial.SweepRunning {
		t.Errorf("created %v", sw)
	}
	waited := make(chan *atelierv1.WaitSweepResponse, 1)
	go func() {
		var index uint64
		for {
			resp, err := c.Sweeps.WaitSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, AfterIndex: index, WaitMs: 20_000}))
			if err != nil {
				t.Error(err)
				waited <- nil
				return
			}
			index = resp.Msg.Index
			if resp.Msg.Sweep.EndedMs != 0 {
				waited <- resp.Msg
				return
			}
		}
	}()
	var wg sync.WaitGroup
	for _, name := range []string{"w1", "w2"} {
		wg.Add(1)
		a := coordinatortest.NewAgent(t, c.API, name)
		go func() { defer wg.Done(); a.Work(sw.Id) }()
	}
	wg.Wait()
	if resp := <-waited; resp == nil || resp.Sweep.Counts.Finished != 20 || resp.Sweep.Counts.Proposed != 20 || resp.Sweep.Counts.Runs != 20 {
		t.Errorf("waited for %v", resp)
	}

	board, err := c.Sweeps.GetLeaderboard(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Top: 3}))
	if err != nil {
		t.Fatal(err)
	}
	if r := board.Msg.Rows; len(r) != 3 || r[0].Trial != 20 || r[0].Rank != 1 || r[2].Trial != 18 || r[0].Value != 1.0/20 || !strings.HasPrefix(r[0].Checkpoint, "shared:"+sw.Id) {
		t.Errorf("leaderboard %v", r)
	}
	if board.Msg.Source != "state" || board.Msg.Objective.Metric != "loss" {
		t.Errorf("leaderboard from %s by %v", board.Msg.Source, board.Msg.Objective)
	}
	list, err := c.Sweeps.ListCheckpoints(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: sw.Id}))
	if err != nil || len(list.Msg.Checkpoints) != 20 || list.Msg.Checkpoints[4].Trial != 5 {
		t.Errorf("checkpoints %v, %v", list, err)
	}

	var seen []int64
	for after := int64(0); ; {
		page, err := c.Trials.ListTrials(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: sw.Id, After: after, Limit: 7,
			Status: []atelierv1.TrialStatus{wire.ToStatus(trial.Finished)}}))
		if err != nil {
			t.Fatal(err)
		}
		if page.Msg.Total != 20 {
			t.Errorf("total %d", page.Msg.Total)
		}
		if len(page.Msg.Trials) == 0 {
			break
		}
		for _, tr := range page.Msg.Trials {
			seen = append(seen, tr.Number)
			after = tr.Number
		}
	}
	if len(seen) != 20 || seen[0] != 1 || seen[19] != 20 {
		t.Errorf("pages gave %v", seen)
	}
	curve, err := c.Trials.GetCurve(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetCurveRequest{SweepId: sw.Id, Trial: 4}))
	if err != nil || len(curve.Msg.Reports) != 1 || curve.Msg.Reports[0].Metrics[0].Value != 0.25 {
		t.Errorf("curve %v, %v", curve, err)
	}
	status, err := c.Cluster.GetStatus(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
	if err != nil || status.Msg.Sweeps != 1 || status.Msg.Trials != 20 || status.Msg.Workers != 2 || status.Msg.Slots != 2 || status.Msg.Redis != "off" ||
		!strings.HasPrefix(status.Msg.ClusterId, "c-") || len(status.Msg.Members) != 1 || !status.Msg.Members[0].Alive {
		t.Errorf("status %v, %v", status, err)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	c := node.Start(t, node.Options{})
	ctx := coordinatortest.Context(t)
	_, err := c.Sweeps.GetSweep(ctx, connect.NewRequest(&atelierv1.GetSweepRequest{Id: "s-none"}))
	coordinatortest.WantCode(t, "unknown sweep", err, connect.CodeNotFound, `no sweep "s-none"`)
	_, err = c.Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{SpecName: "bad.yaml", SpecYaml: strings.Replace(coordinatortest.Spec(5, 2), "low: 1.0e-4", "low: -1", 1)}))
	coordinatortest.WantCode(t, "bad spec", err, connect.CodeInvalidArgument, "bad.yaml:10: space.lr.low")
	_, err = c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "22222222222222222222", SpecName: "torch.yaml",
		SpecYaml: "search_method: random\nobjective: {metric: val_lss, direction: minimize}\nbudget: {trials: 3}\nspace: {learning_rate: {type: float, low: 0.001, high: 0.1}}\n"}))
	coordinatortest.WantCode(t, "a spec that no trial can run", err, connect.CodeInvalidArgument, "torch.yaml:4: space.learning_rate: the trainer has no such setting; did you mean \"lr\"?")
	_, err = c.Sweeps.ControlSweep(ctx, connect.NewRequest(&atelierv1.ControlSweepRequest{Id: "s-none", Action: wire.ToAction(trial.ActionStop)}))
	coordinatortest.WantCode(t, "control of no sweep", err, connect.CodeNotFound, "s-none")

	sw := c.Create(t, coordinatortest.Spec(5, 2))
	_, err = c.Trials.GetTrial(ctx, connect.NewRequest(&atelierv1.GetTrialRequest{SweepId: sw.Id, Trial: 99}))
	coordinatortest.WantCode(t, "unknown trial", err, connect.CodeNotFound, "no trial 99")
	_, err = c.Sweeps.GetLeaderboard(ctx, connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "oracle"}))
	coordinatortest.WantCode(t, "unknown source", err, connect.CodeInvalidArgument, "oracle")
	_, err = c.Sweeps.GetLeaderboard(ctx, connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"}))
	coordinatortest.WantCode(t, "no redis", err, connect.CodeFailedPrecondition, "without redis")
	_, err = c.Workers.Acquire(ctx, connect.NewRequest(&atelierv1.AcquireRequest{Worker: "w"}))
	coordinatortest.WantCode(t, "acquire without ids", err, connect.CodeInvalidArgument, "incarnation")

	if _, err := c.Sweeps.ControlSweep(ctx, connect.NewRequest(&atelierv1.ControlSweepRequest{RequestId: "x", Id: sw.Id, Action: wire.ToAction(trial.ActionCancel)})); err != nil {
		t.Fatal(err)
	}
	_, err = c.Sweeps.ControlSweep(ctx, connect.NewRequest(&atelierv1.ControlSweepRequest{RequestId: "y", Id: sw.Id, Action: wire.ToAction(trial.ActionPause)}))
	coordinatortest.WantCode(t, "pause of a cancelled sweep", err, connect.CodeFailedPrecondition, sw.Id)
	_, err = c.Cluster.RemoveMember(ctx, connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: node.ID}))
	coordinatortest.WantCode(t, "removing the last member", err, connect.CodeFailedPrecondition, "last voting member")
	_, err = c.Cluster.RemoveMember(ctx, connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: "c9"}))
	coordinatortest.WantCode(t, "removing a stranger", err, connect.CodeNotFound, "c9")
}

func TestCreateIsRepeatable(t *testing.T) {
	c := node.Start(t, node.Options{})
	req := &atelierv1.CreateSweepRequest{RequestId: "once", SpecYaml: strings.Replace(coordinatortest.Spec(3, 1), "seed: 7\n", "", 1)}
	first, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(req))
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(req))
	if err != nil {
		t.Fatal(err)
	}
	if first.Msg.Sweep.Id != again.Msg.Sweep.Id || first.Msg.Sweep.Seed != again.Msg.Sweep.Seed {
		t.Errorf("one request made %s and %s", first.Msg.Sweep.Id, again.Msg.Sweep.Id)
	}
	if len(first.Msg.Warnings) == 0 || !strings.Contains(first.Msg.Warnings[0], "seed") {
		t.Errorf("no word of the drawn seed: %v", first.Msg.Warnings)
	}
	list, err := c.Sweeps.ListSweeps(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	if err != nil || len(list.Msg.Sweeps) != 1 {
		t.Errorf("sweeps %v, %v", list, err)
	}
}

// A trial that becomes available reaches a waiting worker at once.
func TestWakeUp(t *testing.T) {
	c := node.Start(t, node.Options{})
	a := coordinatortest.NewAgent(t, c.API, "w1")
	got := make(chan time.Time, 1)
	go func() {
		if a.Acquire(20*time.Second) == nil {
			t.Error("no lease")
		}
		got <- time.Now()
	}()
	time.Sleep(200 * time.Millisecond)
	c.Create(t, coordinatortest.Spec(1, 1))
	created := time.Now()
	d := (<-got).Sub(created)
	t.Logf("a lease %v after the sweep was acknowledged", d)
	if d > 5*time.Second {
		t.Errorf("a waiting worker got its lease %v after the sweep was made", d)
	}
}

// A sweep that cannot have an answer ends in a state that says why: its metric
// is always NaN, its objective or one of several is never reported, nothing
// meets its constraints.
func TestSweepsWithoutAnAnswer(t *testing.T) {
	c := node.Start(t, node.Options{})
	a := coordinatortest.NewAgent(t, c.API, "w1")
	const one = "objective: {metric: loss, direction: minimize}"
	for name, x := range map[string]struct {
		keys    string // in place of the objective
		metrics map[string]float64
		trials  int64 // that are spent on it
		says    []string
	}{
		"NaN":                  {one, map[string]float64{"loss": math.NaN()}, 5, []string{"none of 5 trials has a value of loss", "NaN"}},
		"NaN under a rule":     {one + "\nstopping: {rule: patience, patience: 1}", map[string]float64{"loss": math.NaN()}, 5, []string{"none of 5 trials has a value of loss"}},
		"missing":              {one, map[string]float64{"val_loss": 0.5}, 3, []string{"the first 3 trials never reported the objective", "objective loss", "metrics seen: val_loss"}},
		"constraints":          {one + "\nconstraints: [{metric: ms, max: 5}]", map[string]float64{"loss": 0.5, "ms": 6}, 5, []string{"none of 5 trials met the constraints ms <= 5", "nearest ms was 6"}},
		"missing constraint":   {one + "\nconstraints: [{metric: ms, max: 5}]", map[string]float64{"loss": 0.5}, 5, []string{"ms was never reported"}},
		"one objective of two": {"objectives: [{metric: loss, direction: minimize}, {metric: ms, direction: minimize}]", map[string]float64{"loss": 0.5}, 5, []string{"no trial reported a finite ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			a.T = t
			sw := c.Create(t, strings.Replace(coordinatortest.Spec(5, 1), one, x.keys, 1))
			for s := c.Sweep(t, sw.Id); s.EndedMs == 0; s = c.Sweep(t, sw.Id) {
				l := a.Acquire(200 * time.Millisecond)
				if l == nil {
					continue
				}
				r := &atelierv1.Report{Epoch: 1}
				for _, n := range slices.Sorted(maps.Keys(x.metrics)) {
					r.Metrics = append(r.Metrics, &atelierv1.Metric{Name: n, Value: x.metrics[n]})
				}
				class := trial.ExitFinished
				if wire.Verdict(a.Relay(&atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Report{Report: r}})[0].Verdict) == trial.VerdictStop {
					class = trial.ExitStopped
				}
				a.Relay(coordinatortest.Ended(l, class))
			}
			s := c.Sweep(t, sw.Id)
			if wire.SweepStatus(s.Status) != trial.SweepFailed || s.Counts.Runs != x.trials {
				t.Errorf("%v with %v", s.Status, s.Counts)
			}
			for _, says := range x.says {
				if !strings.Contains(s.Failure, says) {
					t.Errorf("failure %q lacks %q", s.Failure, says)
				}
			}
		})
	}
	_, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "zero", SpecYaml: coordinatortest.Spec(0, 1), SpecName: "zero.yaml"}))
	coordinatortest.WantCode(t, "a budget of no trials", err, connect.CodeInvalidArgument, "zero.yaml:6: budget.trials")
}
