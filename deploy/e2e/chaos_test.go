package e2e_test

import (
	"bytes"
	"context"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"

	"connectrpc.com/connect"
)

const chaosEpochs = 12

const chaosSpec = `
name: chaos
search_method: random
seed: 7
objective: {metric: val_loss, direction: minimize}
budget: {trials: 40}
parallelism: 6
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
  depth: {type: int, low: 1, high: 9}
training: {epochs: 12, epoch_seconds: 0.25}
`

// A sweep of 40 trials on 3 coordinators, 4 workers and Redis, through the loss
// of the leader three times, of a worker twice, a worker frozen beyond its
// lease, a wiped Redis and an absent one. Every trial ends once with its whole
// curve, nothing stale gets in, Redis equals state, and the replicas agree.
func TestSweepSurvivesFaults(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 4, Redis: true, Shared: true, LeaseTTL: 3 * time.Second})
	c := cluster.Client()
	id := submit(t, ctx, c, chaosSpec)
	redis := cluster.Redis[0]

	done := func(n int64) func(*trial.Sweep) bool {
		return func(s *trial.Sweep) bool { return s.Counts.Finished >= n || ended(s) }
	}
	killLeader := func() {
		leader, err := cluster.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("kill leader", leader.Name)
		must(t, leader.Kill())
		await(t, ctx, c, id, "a leader after the kill", func(*trial.Sweep) bool { return true })
		must(t, leader.Start(ctx))
		must(t, cluster.AwaitVoters(ctx, 3))
	}
	killWorker := func(w *local.Process) {
		awaitBusy(t, ctx, c, id, w.Name)
		t.Log("kill worker", w.Name)
		must(t, w.Kill())
		must(t, w.Start(ctx))
	}

	await(t, ctx, c, id, "4 trials", done(4))
	killLeader()
	killWorker(cluster.Workers[0])
	await(t, ctx, c, id, "10 trials", done(10))
	must(t, redis.Flush(ctx))
	frozen := cluster.Workers[1]
	awaitBusy(t, ctx, c, id, frozen.Name)
	t.Log("freeze", frozen.Name)
	must(t, frozen.Pause())
	killLeader()
	await(t, ctx, c, id, "the frozen worker's lease lost", func(*trial.Sweep) bool { return lostBy(t, ctx, c, id, frozen.Name) })
	must(t, frozen.Continue())
	await(t, ctx, c, id, "18 trials", done(18))
	t.Log("stop Redis")
	must(t, redis.Stop(5*time.Second))
	killWorker(cluster.Workers[2])
	await(t, ctx, c, id, "24 trials", done(24))
	must(t, redis.Start(ctx))
	killLeader()
	s := await(t, ctx, c, id, "the end", ended)

	if s.Status != trial.SweepFinished || s.Counts.Finished != 40 || s.Counts.Proposed != 40 {
		t.Errorf("sweep ended as %v (%s) with %v; want 40 trials proposed and finished", s.Status, s.Failure, s.Counts)
	}
	all := trials(t, ctx, c, id)
	checkTrials(t, ctx, c, id, all)
	checkFenced(t, ctx, c, all)
	checkRedisEqualsState(t, ctx, c, id)
	checkReplicasAgree(t, ctx, cluster)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// awaitBusy returns when a run of the sweep is in progress on the worker.
func awaitBusy(t *testing.T, ctx context.Context, c *client.Client, id, worker string) {
	t.Helper()
	await(t, ctx, c, id, worker+" busy", func(s *trial.Sweep) bool {
		for _, tr := range trials(t, ctx, c, id) {
			if n := len(tr.Runs); n > 0 && tr.Runs[n-1].Worker == worker && tr.Runs[n-1].Exit == 0 && tr.Epoch > 0 {
				return true
			}
		}
		return ended(s)
	})
}

func lostBy(t *testing.T, ctx context.Context, c *client.Client, id, worker string) bool {
	for _, tr := range trials(t, ctx, c, id) {
		for _, r := range tr.Runs {
			if r.Worker == worker && r.Exit == trial.ExitLost {
				return true
			}
		}
	}
	return false
}

func checkTrials(t *testing.T, ctx context.Context, c *client.Client, id string, all []*trial.Trial) {
	t.Helper()
	params := map[string]int64{}
	var lost, resumed int
	for i, tr := range all {
		if tr.Number != int64(i+1) {
			t.Errorf("trial %d stands at place %d", tr.Number, i+1)
		}
		if other, ok := params[string(tr.Params)]; ok {
			t.Errorf("trials %d and %d have the same point %s", other, tr.Number, tr.Params)
		}
		params[string(tr.Params)] = tr.Number
		var finished int
		var token uint64
		for j, r := range tr.Runs {
			if r.Exit == trial.ExitFinished {
				finished++
			}
			if r.Exit == trial.ExitLost {
				lost++
			}
			if r.ResumedEpoch > 0 {
				resumed++
			}
			if r.Token <= token {
				t.Errorf("trial %d run %d: token %d does not grow past %d", tr.Number, r.Number, r.Token, token)
			}
			if j > 0 && tr.Runs[j-1].EndedMS == 0 {
				t.Errorf("trial %d: run %d began while run %d had not ended", tr.Number, r.Number, tr.Runs[j-1].Number)
			}
			token = r.Token
		}
		if finished != 1 {
			t.Errorf("trial %d was finished by %d runs: %v", tr.Number, finished, tr.Runs)
		}
		curve, err := c.Curve(ctx, id, tr.Number)
		must(t, err)
		best := math.Inf(1)
		for k, r := range curve {
			if r.Epoch != int32(k+1) {
				t.Errorf("trial %d: report %d is of epoch %d", tr.Number, k+1, r.Epoch)
			}
			for _, m := range r.Metrics {
				if m.Name == "val_loss" {
					best = min(best, m.Value)
				}
			}
		}
		if len(curve) != chaosEpochs || tr.Value == nil {
			t.Errorf("trial %d: %d reports, value %v; want %d reports", tr.Number, len(curve), tr.Value, chaosEpochs)
		} else if float64(*tr.Value) != best {
			t.Errorf("trial %d: value %g, best of its curve %g", tr.Number, *tr.Value, best)
		}
	}
	if lost < 2 {
		t.Errorf("%d runs were lost: the faults did not reach the workers", lost)
	}
	if resumed == 0 {
		t.Error("no run went on from a checkpoint")
	}
}

// checkFenced sends reports under every token of the past: none may enter.
func checkFenced(t *testing.T, ctx context.Context, c *client.Client, all []*trial.Trial) {
	t.Helper()
	var events []trial.Event
	for _, tr := range all {
		for _, r := range tr.Runs {
			events = append(events, trial.Event{LeaseRef: trial.LeaseRef{Sweep: tr.Sweep, Trial: tr.Number, Token: r.Token},
				Report: &trial.Report{Epoch: chaosEpochs + 1, Metrics: trial.Metrics{{Name: "val_loss", Value: -1}}}})
		}
	}
	results, err := c.Relay(ctx, "w1", "long gone", events)
	must(t, err)
	for i, x := range results {
		if x.Outcome != trial.OutcomeFenced {
			t.Errorf("a report under the old token %d of trial %d: %v, want fenced", events[i].Token, events[i].Trial, x.Outcome)
		}
	}
}

func checkRedisEqualsState(t *testing.T, ctx context.Context, c *client.Client, id string) {
	t.Helper()
	checkRedisEqualsStateRows(t, ctx, c, id, 40)
	redis, from, err := c.Checkpoints(ctx, id, 0, client.From{Source: "redis"})
	must(t, err)
	state, err := c.IndexedCheckpoints(ctx, id, 0)
	must(t, err)
	if from.Source != "redis" || len(redis) != len(state) || len(state) == 0 {
		t.Fatalf("%d checkpoints in %s, %d in state", len(redis), from.Source, len(state))
	}
	for i := range redis {
		if !reflect.DeepEqual(redis[i], state[i]) {
			t.Errorf("checkpoint %d differs.\nredis: %v\nstate: %v", i, redis[i], state[i])
		}
	}
}

// checkRedisEqualsStateRows compares the leaderboards of both sources, once
// Redis has caught up.
func checkRedisEqualsStateRows(t *testing.T, ctx context.Context, c *client.Client, id string, want int) {
	t.Helper()
	board := func(source string) client.Board {
		b, err := c.Leaderboard(ctx, id, 0, false, client.From{Source: source})
		must(t, err)
		return b
	}
	var redis, state client.Board
	same := func() bool {
		redis, state = board("redis"), board("state")
		return redis.Source == "redis" && reflect.DeepEqual(redis.Rows, state.Rows)
	}
	for deadline := time.Now().Add(60 * time.Second); !same(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("leaderboards differ.\n%s: %v\nstate: %v", redis.Source, redis.Rows, state.Rows)
		}
	}
	if len(state.Rows) != want {
		t.Errorf("leaderboard of %d rows, want %d", len(state.Rows), want)
	}
}

// checkReplicasAgree compares the state of all coordinators at one index.
func checkReplicasAgree(t *testing.T, ctx context.Context, cluster *local.Cluster) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		hashes, index := map[string]bool{}, map[uint64]bool{}
		var lines []string
		for _, p := range cluster.Coordinators {
			r, err := cluster.Client().Raw().Node(p.Addr).GetNode(ctx, connect.NewRequest(&v1.GetNodeRequest{Hash: true}))
			must(t, err)
			hashes[r.Msg.StateHash], index[r.Msg.AppliedIndex] = true, true
			lines = append(lines, p.Name+" "+r.Msg.String())
		}
		if len(index) == 1 {
			if len(hashes) != 1 {
				t.Errorf("replicas differ at the same index:\n%s", strings.Join(lines, "\n"))
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("replicas never came to the same index:\n%s", strings.Join(lines, "\n"))
		}
	}
}

// Two workers without a shared folder: when one goes, its trial goes on from
// the checkpoint that the other fetches over HTTP.
func TestTrialMovesWithItsCheckpoint(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, LeaseTTL: 3 * time.Second})
	c := cluster.Client()
	id := submit(t, ctx, c, `
name: move
search_method: random
seed: 3
objective: {metric: val_loss, direction: minimize}
budget: {trials: 2}
parallelism: 2
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
training: {epochs: 30, epoch_seconds: 0.2, checkpoint_bytes: 100000}
`)
	leaver := cluster.Workers[0]
	awaitBusy(t, ctx, c, id, leaver.Name)
	_, stderr, code := atelier(t, ctx, cluster, "worker", "drain", leaver.Name)
	if code != 0 {
		t.Fatalf("drain: exit %d: %s", code, stderr)
	}
	s := await(t, ctx, c, id, "the end", ended)
	if s.Counts.Finished != 2 {
		t.Fatalf("sweep ended as %v with %v", s.Status, s.Counts)
	}
	var moved bool
	for _, tr := range trials(t, ctx, c, id) {
		for i := 1; i < len(tr.Runs); i++ {
			if tr.Runs[i-1].Worker == leaver.Name && tr.Runs[i].Worker != leaver.Name && tr.Runs[i].ResumedEpoch > 0 {
				moved = true
			}
		}
	}
	if !moved {
		t.Errorf("no trial moved with its checkpoint: %v", trials(t, ctx, c, id))
	}
}

// A worker whose agent dies leaves no trainer behind once it is back.
func TestNoTrainerOutlivesItsAgent(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 2, Shared: true, LeaseTTL: 3 * time.Second})
	c := cluster.Client()
	id := submit(t, ctx, c, strings.Replace(chaosSpec, "epoch_seconds: 0.25", "epoch_seconds: 1", 1))
	w := cluster.Workers[0]
	awaitBusy(t, ctx, c, id, w.Name)
	before := trainersOf(t, w)
	if len(before) == 0 {
		t.Fatal("no trainer process seen: the test looks in the wrong place")
	}
	must(t, w.Kill())
	must(t, w.Start(ctx))
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		alive := 0
		for pid := range before {
			if _, ok := trainersOf(t, w)[pid]; ok {
				alive++
			}
		}
		if alive == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d trainers of the dead agent still run", alive)
		}
	}
}

// trainersOf lists the simulated trainers that run in a worker's folder.
func trainersOf(t *testing.T, w *local.Process) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	procs, err := os.ReadDir("/proc")
	must(t, err)
	for _, p := range procs {
		cmd, err := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		if err != nil || !bytes.Contains(cmd, []byte("simtrainer")) {
			continue
		}
		exe, err := os.Readlink("/proc/" + p.Name() + "/exe")
		if err == nil && strings.HasPrefix(exe, bin) {
			found[p.Name()] = true
		}
	}
	return found
}
