package track_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/mlflow"
	"atelier/common/mlflow/mlflowtest"
	"atelier/common/trial"
	"atelier/tuner/track"
)

// cluster is a sweep that the test moves along.
type cluster struct {
	sweep  *trial.Sweep
	trials []*trial.Trial
	curves map[int64][]trial.Report
	fail   func() error
	curve  int // calls of GetCurve
}

const t0 = 1_700_000_000_000

func newCluster() *cluster {
	return &cluster{fail: func() error { return nil }, curves: map[int64][]trial.Report{}, sweep: &trial.Sweep{ID: "s-1", Name: "facades", Status: trial.SweepRunning, SpecYAML: "name: facades\n",
		Seed: 7, Objective: trial.Objective{Metric: "val_loss"}, SearchMethod: "bayesian", Algorithm: "gp", Trainer: "sim", BudgetTrials: 12, Parallelism: 2,
		CreatedMS: t0, Counts: trial.Counts{}}}
}

func (c *cluster) start(n int64) {
	c.trials = append(c.trials, &trial.Trial{Sweep: "s-1", Number: n, Status: trial.Running, Params: fmt.Appendf(nil, `{"lr":0.00%d,"optimizer":"sgd","deep":true}`, n),
		CreatedMS: t0 + n*1000, StartedMS: t0 + n*1000 + 1, Runs: []trial.Run{{Number: 1, Worker: "w1", Slot: "cpu0"}}})
	c.sweep.Counts.Proposed, c.sweep.Counts.Runs = n, n
}

func (c *cluster) report(n int64, v float64) {
	t := c.trials[n-1]
	t.Epoch++
	c.curves[n] = append(c.curves[n], trial.Report{Epoch: t.Epoch, TimeMS: t0 + n*1000 + int64(t.Epoch)*10, Metrics: trial.Metrics{{Name: "val_loss", Value: v}, {Name: "acc:top1", Value: 1 - v}}})
	if !math.IsNaN(v) && (t.Value == nil || v < float64(*t.Value)) {
		t.Value, t.ValueEpoch = new(trial.Number(v)), t.Epoch
	}
	c.sweep.Counts.Reports++
}

func (c *cluster) end(n int64, s trial.Status) {
	t := c.trials[n-1]
	t.Status, t.EndedMS = s, t0+100_000+n
	if t.Value != nil && (c.sweep.Best == nil || *t.Value < c.sweep.Best.Value) {
		c.sweep.Best = &trial.BestTrial{Trial: n, Value: *t.Value, Epoch: t.ValueEpoch, Params: t.Params}
	}
}

func (c *cluster) over(s trial.SweepStatus) { c.sweep.Status, c.sweep.EndedMS = s, t0+500_000 }

func (c *cluster) Sweep(context.Context, string) (*trial.Sweep, error) {
	return new(*c.sweep), c.fail()
}

func (c *cluster) Trials(context.Context, string, client.Which) iter.Seq2[*trial.Trial, error] {
	return func(yield func(*trial.Trial, error) bool) {
		for _, t := range c.trials {
			if !yield(new(*t), c.fail()) {
				return
			}
		}
	}
}

func (c *cluster) Curve(_ context.Context, _ string, number int64) ([]trial.Report, error) {
	c.curve++
	return c.curves[number], c.fail()
}

// story moves the cluster along; between its scenes pass is called.
func story(c *cluster, pass func()) {
	c.start(1)
	c.start(2)
	pass()
	for e := range 5 {
		c.report(1, 1/float64(e+1))
		c.report(2, 2/float64(e+1))
		pass()
	}
	c.end(1, trial.Finished)
	c.end(2, trial.Stopped)
	c.trials[1].StopReason = "asha: rung 1"
	c.start(3)
	c.report(3, math.NaN())
	c.end(3, trial.Diverged)
	pass()
	c.start(4)
	c.end(4, trial.Failed)
	c.trials[3].Failure = "out of memory"
	pass()
	// A person tries it again: it goes on.
	c.trials[3].Status, c.trials[3].EndedMS, c.trials[3].Failure = trial.Running, 0, ""
	c.trials[3].Runs = append(c.trials[3].Runs, trial.Run{Number: 2, Worker: "w2"})
	pass()
	c.report(4, 0.1)
	c.end(4, trial.Finished)
	c.trials[3].Runs[1].Group = &trial.RunGroup{Views: []trial.View{{Number: 1, Members: []int32{1, 2}, Reason: "start"}, {Number: 3, Members: []int32{2, 3, 4}, Reason: "w1/cpu0 was lost"}}}
	c.trials[3].Checkpoints = []trial.Checkpoint{{Epoch: 1, Location: "shared:s-1/4/x.pth"}}
	c.trials = append(c.trials, &trial.Trial{Sweep: "s-1", Number: 5, Status: trial.Cancelled, Params: []byte("{}")}) // never ran
	c.sweep.Counts.Proposed = 5
	c.over(trial.SweepFinished)
	pass()
}

// check looks at what a store holds of the finished story.
func check(t *testing.T, s mlflow.Store) {
	t.Helper()
	ctx := context.Background()
	runs, err := s.FindRuns(ctx, "tuning", map[string]string{track.TagSweep: "s-1"})
	if err != nil || len(runs) != 5 {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	parent := runs[0]
	if parent.Name != "facades" || parent.Status != mlflow.Finished || parent.StartMS != t0 || parent.EndMS != t0+500_000 || parent.Tags["atelier.best_trial"] != "4" || !strings.Contains(parent.Tags[mlflow.TagNote], "name: facades") {
		t.Errorf("%+v", parent)
	}
	if p, err := s.Params(ctx, parent.ID); err != nil || p["search_method"] != "bayesian" || p["direction"] != "minimize" || p["seed"] != "7" || len(p) != 8 {
		t.Errorf("%v, %v", p, err)
	}
	points := func(id, key string) string {
		h, err := s.History(ctx, id, key)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, p := range h {
			out = append(out, fmt.Sprintf("%d:%.3g", p.Step, p.Value))
		}
		return strings.Join(out, " ")
	}
	if got := points(parent.ID, "best_val_loss"); got != "1:0.2 2:0.2 3:0.1" {
		t.Errorf("best values: %s", got)
	}
	want := []struct {
		status       mlflow.Status
		curve, word  string
		tag, value   string
		startedAfter int64
	}{
		{mlflow.Finished, "1:1 2:0.5 3:0.333 4:0.25 5:0.2", "finished", "atelier.worker", "w1", 0},
		{mlflow.Finished, "1:2 2:1 3:0.667 4:0.5 5:0.4", "stopped", "atelier.stop_reason", "asha: rung 1", 0},
		{mlflow.Failed, "1:NaN", "diverged", "atelier.runs", "1", 0},
		{mlflow.Finished, "1:0.1", "finished", "atelier.checkpoint", "shared:s-1/4/x.pth", 0},
	}
	for i, w := range want {
		r := runs[i+1]
		if r.Name != fmt.Sprintf("trial %d", i+1) || r.Status != w.status || r.Tags[track.TagStatus] != w.word || r.Tags[w.tag] != w.value || r.Tags[mlflow.TagParent] != parent.ID {
			t.Errorf("%+v", r)
		}
		if got := points(r.ID, "val_loss"); got != w.curve {
			t.Errorf("trial %d: %s, want %s", i+1, got, w.curve)
		}
		if n := len(strings.Fields(points(r.ID, "acc_top1"))); n != len(strings.Fields(w.curve)) {
			t.Errorf("trial %d: %d accuracies", i+1, n)
		}
		if p, err := s.Params(ctx, r.ID); err != nil || p["lr"] != fmt.Sprintf("0.00%d", i+1) || p["optimizer"] != "sgd" || p["deep"] != "true" {
			t.Errorf("%v, %v", p, err)
		}
	}
	if tags := runs[4].Tags; tags["atelier.members"] != "3" || tags["atelier.views"] != "3" || tags["atelier.view_reason"] != "w1/cpu0 was lost" || runs[3].Tags["atelier.members"] != "" {
		t.Errorf("tags of a group: %v", tags)
	}
	if got := points(runs[4].ID, "best_val_loss"); got != "1:0.1" {
		t.Errorf("best of trial 4: %s", got)
	}
}

type opener func(t *testing.T) mlflow.Store

func stores(t *testing.T) map[string]opener {
	dir := filepath.Join(t.TempDir(), "mlruns")
	server := mlflowtest.New(t)
	buffer := t.TempDir()
	faulty := mlflowtest.New(t)
	random := rand.New(rand.NewPCG(3, 4))
	faulty.Fault(func(call string, n int) mlflowtest.Fault {
		if random.IntN(4) == 0 {
			return []mlflowtest.Fault{mlflowtest.Unavailable, mlflowtest.LoseAnswer, mlflowtest.LoseRequest}[random.IntN(3)]
		}
		return mlflowtest.None
	})
	open := func(uri string) opener {
		return func(t *testing.T) mlflow.Store {
			s, err := mlflow.Open(uri, mlflow.Options{Buffer: buffer, Flush: 2 * time.Millisecond, Settle: 5 * time.Millisecond, Backoff: 2 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	return map[string]opener{"files": open(dir), "server": open(server.URL), "faulty server": open(faulty.URL)}
}

func finish(t *testing.T, m *track.Mirror) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return m.Close(ctx)
}

// A mirror that follows from the start, one that comes at the end, one that is
// started anew for every pass: all leave the same, and doing it again adds
// nothing.
func TestMirror(t *testing.T) {
	for _, how := range []string{"follows", "comes late", "starts anew each time"} {
		for name, open := range stores(t) {
			t.Run(how+"/"+name, func(t *testing.T) {
				ctx := context.Background()
				c := newCluster()
				var m *track.Mirror
				begin := func() { m = track.New(open(t), "tuning", "s-1", c) }
				sync := func() {
					for try := 0; ; try++ { // faults may outlast the patience of one pass
						_, err := m.Sync(ctx)
						if err == nil {
							break
						}
						if try > 50 {
							t.Fatal(err)
						}
					}
				}
				end := func() {
					for try := 0; ; try++ {
						err := finish(t, m)
						if err == nil {
							return
						}
						if try > 50 {
							t.Fatal(err)
						}
						begin()
					}
				}
				switch how {
				case "follows":
					begin()
					story(c, sync)
					end()
				case "comes late":
					story(c, func() {})
					begin()
					sync()
					end()
				default:
					story(c, func() { begin(); sync(); end() })
				}
				s := open(t)
				check(t, s)
				begin()
				calls := c.curve
				sync()
				if c.curve != calls {
					t.Errorf("a complete mirror asked for %d curves", c.curve-calls)
				}
				end()
				check(t, s)
				s.Close(ctx)
			})
		}
	}
}

// Whatever call of the cluster fails, the next pass goes on.
func TestMirrorOfFailingCluster(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for name, open := range stores(t) {
		if name == "faulty server" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			m := track.New(open(t), "tuning", "s-1", c)
			failures := 0
			c.fail = func() error {
				if random.IntN(3) == 0 {
					failures++
					return errors.New("an election is on")
				}
				return nil
			}
			story(c, func() { m.Sync(context.Background()) })
			for {
				if s, err := m.Sync(context.Background()); err == nil && s.Status == trial.SweepFinished {
					break
				}
			}
			if err := finish(t, m); err != nil {
				t.Fatal(err)
			}
			if failures == 0 {
				t.Error("nothing failed")
			}
			s := open(t)
			check(t, s)
			s.Close(context.Background())
		})
	}
}

// Hundreds of trials at once: no more runs are open than allowed, none is lost.
func TestMirrorOfManyTrials(t *testing.T) {
	server := mlflowtest.New(t)
	c := newCluster()
	const n = 700
	for i := int64(1); i <= n; i++ {
		c.start(i)
		c.report(i, 1/float64(i))
		c.end(i, trial.Finished)
	}
	c.over(trial.SweepStopped)
	s, err := mlflow.Open(server.URL, mlflow.Options{Buffer: t.TempDir(), Flush: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	m := track.New(s, "tuning", "s-1", c)
	if _, err := m.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := finish(t, m); err != nil {
		t.Fatal(err)
	}
	runs := server.Runs("tuning")
	if len(runs) != n+1 {
		t.Fatalf("%d runs", len(runs))
	}
	if len(runs[0].Metrics) != n {
		t.Errorf("%d best values", len(runs[0].Metrics))
	}
	var names []string
	for _, r := range runs[1:] {
		names = append(names, r.Name)
		if r.Status != "FINISHED" || len(r.Metrics) != 3 || r.Tags[mlflow.TagParent] != runs[0].ID {
			t.Fatalf("%+v", r)
		}
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != n {
		t.Error("a trial is there twice")
	}
}
