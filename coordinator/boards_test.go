package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
)

// What no leader has to be asked for is answered by Redis on any node; these tests
// stop Redis's writer, or take leader and quorum away.

// only speaks to one process, as a command does.
func only(p *process) *client.Client {
	return client.New([]string{p.at.API}, client.WithoutFollowing(), client.WithRetryFor(5*time.Second))
}

func boardOf(t *testing.T, c *client.Client, req *atelierv1.GetLeaderboardRequest) (*atelierv1.GetLeaderboardResponse, error) {
	t.Helper()
	resp, err := c.Raw().Sweeps.GetLeaderboard(background(t), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func checkpointsOf(t *testing.T, c *client.Client, req *atelierv1.ListCheckpointsRequest) (*atelierv1.ListCheckpointsResponse, error) {
	t.Helper()
	resp, err := c.Raw().Sweeps.ListCheckpoints(background(t), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// split tells leader and followers apart.
func split(t *testing.T, ps []*process) (leader *process, followers []*process) {
	t.Helper()
	until(t, "all follow one leader", func() bool {
		ids := map[string]bool{}
		for _, p := range ps {
			ids[leads(t, p.at.API)] = true
		}
		return len(ids) == 1 && !ids[""]
	})
	id := leads(t, ps[0].at.API)
	for _, p := range ps {
		if p.at.ID == id {
			leader = p
		} else {
			followers = append(followers, p)
		}
	}
	return leader, followers
}

// readOnly lets Redis answer and take no writes, or take them again.
func readOnly(r *coordinatortest.Redis, on bool) {
	r.Do("CONFIG", "SET", "min-replicas-to-write", map[bool]string{true: "1", false: "0"}[on])
}

const severalSpec = `
name: several
search_method: random
seed: 5
objectives: [{metric: loss, direction: minimize}, {metric: ms, direction: minimize}]
budget: {trials: 4}
parallelism: 1
trainer: external
space: {x: {type: float, low: -1, high: 1}}
`

const inferenceSpec = `
name: inference
search_method: grid_search
seed: 5
objective: {metric: images_done, direction: maximize}
budget: {trials: 1}
parallelism: 1
trainer: sim
space: {mode: {type: categorical, choices: [production]}}
training: {epochs: 100}
`

// equal compares rows and what belongs to them, not where they came from.
func equal(t *testing.T, what string, got, want *atelierv1.GetLeaderboardResponse) {
	t.Helper()
	got, want = proto.CloneOf(got), proto.CloneOf(want)
	for _, r := range []*atelierv1.GetLeaderboardResponse{got, want} {
		r.Index, r.Source, r.AgeMs, r.NoLeader = 0, "", 0, ""
	}
	if !proto.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// Two of three coordinators are gone: the third answers from Redis within a
// second what there was, says so, and says for what else a leader is missing.
func TestBoardsWithoutAQuorum(t *testing.T) {
	r := coordinatortest.StartRedis(t)
	ps, addrs := threeProcesses(t, "--redis", r.Addr)
	c := client.New(addrs)
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	sw := raw(c).Create(t, spec(6, 3))
	a.Work(sw.Id)
	inference := raw(c).Create(t, inferenceSpec)
	l := a.Acquire(5 * time.Second)
	done := report(l, 100, 17)
	done.GetReport().Metrics[0].Name = "images_done"
	results := checkpointed(l, 100, 17)
	a.Relay(done, results, ended(l, trial.ExitFinished))
	several := raw(c).Create(t, severalSpec)
	for n, values := range [][2]float64{{0.5, 10}, {0.4, 12}, {0.6, 11}, {0.7, 9}} {
		l, _ := raw(c).Ask(t, several.Id, fmt.Sprint("several-", n), 5*time.Second)
		req := &atelierv1.TellTrialRequest{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)},
			Report: &atelierv1.Report{Epoch: 1, Metrics: []*atelierv1.Metric{{Name: "loss", Value: values[0]}, {Name: "ms", Value: values[1]}}}}
		if _, err := c.Raw().Trials.TellTrial(background(t), connect.NewRequest(req)); err != nil {
			t.Fatal(err)
		}
	}
	ids := []string{sw.Id, inference.Id, several.Id}
	boards, lists := map[string]*atelierv1.GetLeaderboardResponse{}, map[string]*atelierv1.ListCheckpointsResponse{}
	var index uint64
	for i, id := range ids {
		agree(t, c, id, []int{6, 1, 4}[i])
		boards[id] = leaderboard(t, c, id, "state")
		index = boards[id].Index
		lists[id], _ = checkpointsOf(t, c, &atelierv1.ListCheckpointsRequest{Id: id, Source: "state"})
	}
	if f := boards[several.Id]; len(f.Rows) != 4 || len(f.Objectives) != 2 || fmt.Sprint(f.Rows[0].Values, f.Rows[0].Front, f.Rows[1].Front, f.Rows[2].Front, f.Rows[3].Front) != "[0.4 12] true true false true" {
		t.Fatalf("several objectives: %v", f.Rows)
	}
	until(t, "redis has all of it", func() bool {
		b, err := boardOf(t, c, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"})
		return err == nil && b.Index >= index
	})
	leader, followers := split(t, ps)
	survivor := followers[0]
	leader.kill()
	followers[1].kill()
	until(t, "the survivor knows of no leader", func() bool { return leads(t, survivor.at.API) == "" })

	fastest := time.Hour
	for range 3 {
		began := time.Now()
		c := client.New([]string{leader.at.API, followers[1].at.API, survivor.at.API}) // as a command that begins
		b, err := boardOf(t, c, &atelierv1.GetLeaderboardRequest{Id: sw.Id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checkpointsOf(t, c, &atelierv1.ListCheckpointsRequest{Id: sw.Id}); err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(began))
		equal(t, "the leaderboard without a leader", b, boards[sw.Id])
		if b.Source != "redis" || b.Index < index || !strings.Contains(b.NoLeader, "no leader: coordinator "+survivor.at.ID+" answers and cannot reach") {
			t.Errorf("from %s at %d: %q", b.Source, b.Index, b.NoLeader)
		}
	}
	t.Logf("leaderboard and checkpoints answered after %v", fastest)
	if fastest > time.Second {
		t.Errorf("the fastest of three took %v", fastest)
	}
	lone := only(survivor)
	for _, id := range ids {
		b, err := boardOf(t, lone, &atelierv1.GetLeaderboardRequest{Id: id, Top: 2})
		if err != nil {
			t.Fatal(err)
		}
		want := proto.CloneOf(boards[id])
		want.Rows = want.Rows[:min(2, len(want.Rows))]
		equal(t, "the first two", b, want)
		k, err := checkpointsOf(t, lone, &atelierv1.ListCheckpointsRequest{Id: id})
		if err != nil || k.NoLeader == "" || len(k.Checkpoints) != len(lists[id].Checkpoints) {
			t.Fatalf("%d checkpoints of %d, %v", len(k.GetCheckpoints()), len(lists[id].Checkpoints), err)
		}
		for i := range k.Checkpoints {
			if !proto.Equal(k.Checkpoints[i], lists[id].Checkpoints[i]) {
				t.Errorf("checkpoint %v, was %v", k.Checkpoints[i], lists[id].Checkpoints[i])
			}
		}
	}
	front, err := boardOf(t, lone, &atelierv1.GetLeaderboardRequest{Id: several.Id, Pareto: true})
	if err != nil || len(front.Rows) != 3 || front.Rows[2].Trial != 4 {
		t.Errorf("front %v, %v", front.GetRows(), err)
	}
	if k, err := checkpointsOf(t, lone, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Trial: 2}); err != nil || len(k.Checkpoints) != 1 || k.Checkpoints[0].Trial != 2 {
		t.Errorf("of trial 2: %v, %v", k, err)
	}

	// What cannot be had without a leader says what is missing.
	fails := func(what string, req *atelierv1.GetLeaderboardRequest, words ...string) {
		t.Helper()
		_, err := boardOf(t, lone, req)
		for _, text := range append(words, "no leader") {
			if connect.CodeOf(err) != connect.CodeUnavailable || client.ExitCode(err) != client.ExitNoLeader || !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v, want %q", what, err, text)
			}
		}
	}
	fails("an index that was never reached", &atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: index + 100_000}, "redis reflects index", fmt.Sprintf("at least %d was asked for", index+100_000))
	fails("the state", &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "state"}, "cannot reach")
	fails("a sweep that is not there", &atelierv1.GetLeaderboardRequest{Id: "s-nobody"}, "this coordinator knows no sweep s-nobody")
	old, err := boardOf(t, lone, &atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: index})
	if err != nil || old.AgeMs < 3000 || old.Index < index {
		t.Errorf("after all that: %d ms old at %d, %v", old.GetAgeMs(), old.GetIndex(), err)
	}
	r.Do("FLUSHALL")
	fails("redis was emptied", &atelierv1.GetLeaderboardRequest{Id: sw.Id}, "redis has no board of this cluster")
}

// fromState holds an answer to the state. A leader that a busy machine keeps from
// answering is left out, as an answer then says.
func fromState(t *testing.T, what string, c *client.Client, sweep string, rows int) {
	t.Helper()
	until(t, what+": the leader answers", func() bool {
		b := leaderboard(t, c, sweep, "")
		if b.NoLeader == "" && (b.Source != "state" || len(b.Rows) != rows) {
			t.Errorf("%s: %d rows from %s", what, len(b.Rows), b.Source)
		}
		return b.NoLeader == ""
	})
}

// Redis takes no writes and falls behind: a client that wrote sees what it wrote,
// everybody else what is at most two seconds old, until nobody leads.
func TestBoardsOfARedisThatFallsBehind(t *testing.T) {
	r := coordinatortest.StartRedis(t)
	ps, addrs := threeProcesses(t, "--redis", r.Addr)
	c := client.New(addrs)
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	sw := raw(c).Create(t, spec(40, 10))
	work := func(n int) {
		t.Helper()
		for range n {
			l := a.Acquire(5 * time.Second)
			if l == nil {
				t.Fatal("no lease")
			}
			a.Relay(report(l, 1, float64(l.Trial)), checkpointed(l, 1, 1), ended(l, trial.ExitFinished))
		}
	}
	work(3)
	agree(t, c, sw.Id, 3)
	leader, followers := split(t, ps)
	near := only(followers[0])
	if b := leaderboard(t, near, sw.Id, ""); b.Source != "redis" || len(b.Rows) != 3 || b.NoLeader != "" || b.AgeMs > 2000 {
		t.Errorf("from %s: %d rows, %d ms old, %q", b.Source, len(b.Rows), b.AgeMs, b.NoLeader)
	}
	saved := raw(c).SaveState(t)
	r.Do("SAVE")
	dump, err := os.ReadFile(filepath.Join(r.Dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	work(2)
	agree(t, c, sw.Id, 5)

	readOnly(r, true)
	work(3)
	// One client that has seen the new state, by whatever answer.
	raw(near).Sweep(t, sw.Id)
	fromState(t, "after its own write", near, sw.Id, 8)
	newest := leaderboard(t, near, sw.Id, "state").Index
	if b, err := boardOf(t, only(followers[0]), &atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: newest}); err != nil || b.Source != "state" || b.Index < newest {
		t.Errorf("at least %d: %v, %v", newest, b, err)
	}
	_, err = boardOf(t, near, &atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: newest + 100_000})
	wantCode(t, "an index to come", err, connect.CodeFailedPrecondition, fmt.Sprintf("at least %d was asked for", newest+100_000))
	_, err = boardOf(t, near, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis", AtLeast: newest})
	wantCode(t, "an index that redis lacks", err, connect.CodeFailedPrecondition, "redis reflects index")
	if b, err := boardOf(t, near, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"}); err != nil || len(b.Rows) != 5 || b.AgeMs < 2000 {
		t.Errorf("redis alone: %v, %v", b, err)
	}
	for _, p := range ps {
		fromState(t, p.at.ID, only(p), sw.Id, 8)
	}
	_, err = boardOf(t, only(followers[0]), &atelierv1.GetLeaderboardRequest{Id: "s-nobody"})
	wantCode(t, "no such sweep", err, connect.CodeNotFound, "s-nobody")

	// Redis goes back to an older dump, which nobody may put right.
	r.Stop()
	if err := os.WriteFile(filepath.Join(r.Dir, "dump.rdb"), dump, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Args = append(r.Args, "--min-replicas-to-write", "1")
	r.Start()
	time.Sleep(1100 * time.Millisecond) // readers leave a Redis alone that was away
	fromState(t, "redis was set back", only(followers[0]), sw.Id, 8)

	// The cluster's state is replaced by an older one: what Redis has is of
	// another history.
	if _, err := raw(client.New([]string{leader.at.API})).RestoreState(t, saved); err != nil {
		t.Fatal(err)
	}
	until(t, "the follower has the restored state", func() bool {
		_, err := boardOf(t, only(followers[0]), &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"})
		return err != nil && strings.Contains(err.Error(), "a snapshot was restored")
	})
	if b := leaderboard(t, only(followers[0]), sw.Id, ""); b.Source != "state" || len(b.Rows) != 3 {
		t.Errorf("after a restore: %d rows from %s", len(b.Rows), b.Source)
	}
	readOnly(r, false)
	agree(t, c, sw.Id, 3)

	// Without a leader a Redis that is behind answers, and says how old it is.
	readOnly(r, true)
	work(2)
	index := leaderboard(t, near, sw.Id, "redis").Index
	leader, followers = split(t, ps)
	leader.kill()
	followers[1].kill()
	until(t, "no leader", func() bool { return leads(t, followers[0].at.API) == "" })
	b, err := boardOf(t, only(followers[0]), &atelierv1.GetLeaderboardRequest{Id: sw.Id})
	if err != nil || b.Source != "redis" || len(b.Rows) != 3 || b.Index != index || b.NoLeader == "" {
		t.Errorf("behind and without a leader: %v, %v", b, err)
	}
}

// The leader is frozen and nobody has noticed: a follower answers at once.
func TestBoardsBesideAFrozenLeader(t *testing.T) {
	r := coordinatortest.StartRedis(t)
	ps, addrs := threeProcesses(t, "--redis", r.Addr)
	c := client.New(addrs)
	sw := raw(c).Create(t, spec(2, 2))
	coordinatortest.NewAgent(t, raw(c), "w1").Work(sw.Id)
	agree(t, c, sw.Id, 2)
	leader, followers := split(t, ps)
	near := only(followers[0])
	leaderboard(t, near, sw.Id, "")
	freeze(t, leader)
	began := time.Now()
	b := leaderboard(t, near, sw.Id, "")
	took := time.Since(began)
	if b.Source != "redis" || len(b.Rows) != 2 {
		t.Errorf("%d rows from %s", len(b.Rows), b.Source)
	}
	t.Logf("answered after %v", took)
	if took > time.Second {
		t.Errorf("it took %v", took)
	}
}
