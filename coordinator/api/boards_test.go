package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/coordinator/board"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// Leaderboards and lists of checkpoints from the state alone.
func TestBoardsFromTheState(t *testing.T) {
	t.Parallel()
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(3, 1))
	coordinatortest.NewAgent(t, c.API, "w1").Work(sw.Id)
	b := coordinatortest.Call(t, c.Sweeps.GetLeaderboard, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Top: 2, AtLeast: c.Machine.View().Index()})
	if len(b.Rows) != 2 || b.Source != "state" || b.Index == 0 || b.Rows[0].Trial != 3 {
		t.Errorf("leaderboard %v", b)
	}
	k := coordinatortest.Call(t, c.Sweeps.ListCheckpoints, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Trial: 2, Source: "state"})
	if len(k.Checkpoints) != 1 || k.Checkpoints[0].Trial != 2 {
		t.Errorf("checkpoints %v", k)
	}
	board, checkpoints := c.Sweeps.GetLeaderboard, c.Sweeps.ListCheckpoints
	coordinatortest.Refused(t, "rows below none", board, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Top: -1}, connect.CodeInvalidArgument, "top -1")
	coordinatortest.Refused(t, "a front of one objective", board, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Pareto: true}, connect.CodeFailedPrecondition, "has one objective")
	coordinatortest.Refused(t, "an index to come", board, &atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: 1 << 40}, connect.CodeFailedPrecondition, fmt.Sprintf("at least %d was asked for", int64(1)<<40))
	coordinatortest.Refused(t, "no sweep named", board, &atelierv1.GetLeaderboardRequest{}, connect.CodeInvalidArgument, "no sweep id given")
	coordinatortest.Refused(t, "a source that there is not", checkpoints, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Source: "tape"}, connect.CodeInvalidArgument, `not "tape"`)
	coordinatortest.Refused(t, "redis", checkpoints, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Source: "redis"}, connect.CodeFailedPrecondition, "without redis")
	coordinatortest.Refused(t, "no such trial", checkpoints, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Trial: 9}, connect.CodeNotFound, "no trial 9")
}

// With Redis the same is answered from there as long as it is up to date; a client
// never sees less than it has seen, and who asks for Redis alone is told what it lacks.
func TestBoardsFromRedis(t *testing.T) {
	t.Parallel()
	r := coordinatortest.StartRedis(t)
	c := node.Start(t, node.Options{Redis: r.Addr})
	sw := c.Create(t, strings.Replace(coordinatortest.Spec(6, 1), "objective: {metric: loss, direction: minimize}",
		"objectives: [{metric: loss, direction: minimize}, {metric: ms, direction: minimize}]", 1))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	work := func(loss, ms float64) {
		t.Helper()
		l := a.Acquire(10 * time.Second)
		report := coordinatortest.Report(l, 1, loss)
		report.GetReport().Metrics = append(report.GetReport().Metrics, &atelierv1.Metric{Name: "ms", Value: ms})
		a.Relay(report, coordinatortest.Checkpointed(l, 1, loss), coordinatortest.Ended(l, trial.ExitFinished))
	}
	work(0.5, 10)
	work(0.4, 12)
	work(0.6, 11)
	boardOf, checkpointsOf := c.Sweeps.GetLeaderboard, c.Sweeps.ListCheckpoints
	state := coordinatortest.Call(t, boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "state"})
	var redis *connect.Response[atelierv1.GetLeaderboardResponse]
	coordinatortest.Until(t, "redis has caught up", func() (ok bool) {
		var err error
		redis, err = boardOf(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"}))
		return err == nil && redis.Msg.Index >= state.Index
	})
	if len(redis.Msg.Rows) != 3 || len(state.Rows) != 3 || redis.Msg.Source != "redis" {
		t.Fatalf("redis has %v, the state %v", redis.Msg, state)
	}
	for i := range state.Rows {
		if !proto.Equal(state.Rows[i], redis.Msg.Rows[i]) {
			t.Errorf("row %d: redis %v, state %v", i, redis.Msg.Rows[i], state.Rows[i])
		}
	}
	if b := coordinatortest.Call(t, boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis", Pareto: true, Top: 1}); len(b.Rows) != 1 || !b.Rows[0].Front {
		t.Errorf("the front is %v", b)
	}
	if k := coordinatortest.Call(t, checkpointsOf, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Source: "redis", Trial: 2}); len(k.Checkpoints) != 1 || k.Source != "redis" || k.Index < state.Index {
		t.Errorf("checkpoints %v", k)
	}
	status := func() string {
		return coordinatortest.Call(t, c.Cluster.GetStatus, &atelierv1.GetStatusRequest{}).Redis
	}
	coordinatortest.Until(t, "the status says that redis is there", func() bool { return status() == "ok" })
	coordinatortest.Refused(t, "no such sweep", boardOf, &atelierv1.GetLeaderboardRequest{Id: "s-none"}, connect.CodeNotFound, "s-none")
	coordinatortest.Refused(t, "no such trial", checkpointsOf, &atelierv1.ListCheckpointsRequest{Id: sw.Id, Trial: 99}, connect.CodeNotFound, "no trial 99")
	coordinatortest.Refused(t, "no sweep named", boardOf, &atelierv1.GetLeaderboardRequest{}, connect.CodeInvalidArgument, "no sweep id given")
	coordinatortest.Refused(t, "a source that there is not", boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "tape"}, connect.CodeInvalidArgument, `not "tape"`)
	coordinatortest.Refused(t, "rows below none", boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Top: -1, Source: "redis"}, connect.CodeInvalidArgument, "top -1")

	// It takes no writes any more: the state answers who must see the new trial.
	r.Do("CONFIG", "SET", "min-replicas-to-write", "1")
	work(0.3, 13)
	newest := c.Machine.View().Index()
	if b := coordinatortest.Call(t, boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: newest}); b.Source != "state" || len(b.Rows) != 4 || b.Index < newest {
		t.Errorf("at least %d: %v", newest, b)
	}
	seen := connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: sw.Id})
	seen.Header().Set(atelierv1.SeenHeader, fmt.Sprint(newest))
	if k, err := checkpointsOf(coordinatortest.Context(t), seen); err != nil || k.Msg.Source != "state" || len(k.Msg.Checkpoints) != 4 {
		t.Errorf("who has seen index %d gets %v, %v", newest, k, err)
	}
	coordinatortest.Refused(t, "what redis lacks", boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis", AtLeast: newest}, connect.CodeFailedPrecondition, "redis reflects index")

	// Gone altogether.
	r.Stop()
	coordinatortest.Refused(t, "redis alone, which is gone", boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"}, connect.CodeUnavailable, "redis")
	if b := coordinatortest.Call(t, boardOf, &atelierv1.GetLeaderboardRequest{Id: sw.Id}); b.Source != "state" || len(b.Rows) != 4 {
		t.Errorf("without redis: %v", b)
	}
	coordinatortest.Until(t, "the status says that redis is down", func() bool { return strings.HasPrefix(status(), "down: ") })
}

// A follower answers from Redis without the leader, also while there is none, and says
// so; what Redis cannot answer it asks the leader.
func TestBoardsOfAFollower(t *testing.T) {
	t.Parallel()
	r := coordinatortest.StartRedis(t)
	c := node.Start(t, node.Options{Redis: r.Addr})
	sw := c.Create(t, coordinatortest.Spec(2, 1))
	coordinatortest.NewAgent(t, c.API, "w1").Work(sw.Id)
	redis, err := board.Open(board.Options{Addr: r.Addr, Prefix: "atelier"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { redis.Close() })
	f := newFollower(t, "n2", c.Machine.View, redis)
	f.follow(node.ID, c.Addr)
	coordinatortest.Until(t, "redis has both trials", func() bool {
		b, err := f.calls.Sweeps.GetLeaderboard(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"}))
		return err == nil && len(b.Msg.Rows) == 2
	})
	if b := coordinatortest.Call(t, f.calls.Sweeps.GetLeaderboard, &atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "state"}); b.Source != "state" || len(b.Rows) != 2 {
		t.Errorf("the leader's state: %v", b)
	}
	// A sweep that redis does not know is asked of the leader, whose error comes back.
	coordinatortest.Refused(t, "no such sweep", f.calls.Sweeps.GetLeaderboard, &atelierv1.GetLeaderboardRequest{Id: "s-none"}, connect.CodeNotFound, "s-none")
	coordinatortest.Refused(t, "no such sweep", f.calls.Sweeps.ListCheckpoints, &atelierv1.ListCheckpointsRequest{Id: "s-none"}, connect.CodeNotFound, "s-none")

	f.follow("", "")
	b := coordinatortest.Call(t, f.calls.Sweeps.GetLeaderboard, &atelierv1.GetLeaderboardRequest{Id: sw.Id})
	if b.Source != "redis" || len(b.Rows) != 2 || !strings.Contains(b.NoLeader, "no leader: ") {
		t.Errorf("without a leader: %v", b)
	}
	k := coordinatortest.Call(t, f.calls.Sweeps.ListCheckpoints, &atelierv1.ListCheckpointsRequest{Id: sw.Id})
	if k.Source != "redis" || len(k.Checkpoints) != 2 || k.NoLeader == "" {
		t.Errorf("without a leader: %v", k)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = f.calls.Sweeps.GetLeaderboard(short, connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, AtLeast: 1 << 40}))
	if err == nil {
		t.Error("an index that was never reached was answered")
	}
	_, err = f.calls.Sweeps.GetLeaderboard(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: "s-none"}))
	noLeaderHere(t, "a sweep that is not there", err, true, "this coordinator knows no sweep s-none")
}
