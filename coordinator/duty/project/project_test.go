package project_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/board"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/duty/project"
	"atelier/coordinator/state"
)

// scene is a state machine, a real Redis, and projectors that hear of every change.
type scene struct {
	t          *testing.T
	m          *state.Machine
	server     *coordinatortest.Redis
	redis      *board.Redis
	projectors []*project.Projector
	index      uint64
	trials     int64
	built      atomic.Int64
}

func open(t *testing.T) *scene {
	s := &scene{t: t, m: state.New(), server: coordinatortest.StartRedis(t)}
	var err error
	if s.redis, err = board.Open(board.Options{Addr: s.server.Addr, Prefix: "t:"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.redis.Close() })
	s.do(&logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: "c1", RaftAddress: "127.0.0.1:1", ClusterId: "c-one"}}})
	s.do(&logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s1", Name: "s1", BudgetTrials: 1000, Parallelism: 1000,
		Objective: wire.ToObjective(trial.Objective{Metric: "loss"})}}})
	return s
}

func (s *scene) projector() *project.Projector {
	p := project.New(project.Config{Redis: s.redis, View: s.m.View, Logger: slog.New(slog.DiscardHandler), Generation: func() string {
		return fmt.Sprint("g", s.built.Add(1))
	}})
	s.projectors = append(s.projectors, p)
	s.t.Cleanup(p.Stop)
	return p
}

func (s *scene) do(c *logv1.Command) state.Result {
	s.t.Helper()
	s.index++
	c.TimeMs, c.Rules = int64(s.index), state.Rules
	res := s.m.Apply(s.index, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
	if res.Err != nil {
		s.t.Fatal(res.Err)
	}
	for _, p := range s.projectors {
		p.Changed(res.Changes)
	}
	return res
}

// finish trains n more trials.
func (s *scene) finish(n int) {
	s.t.Helper()
	for range n {
		s.trials++
		s.do(&logv1.Command{Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s1", First: s.trials, ParamsJson: []string{fmt.Sprintf(`{"x":%d}`, s.trials)}}}})
		token := s.do(&logv1.Command{Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s1", Trial: s.trials, Worker: "w", Incarnation: "i", Slot: "a", Request: fmt.Sprint(s.trials)}}}).Token
		value := float64(s.trials % 7)
		events := []*atelierv1.RunEvent{
			{Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: 1, Metrics: []*atelierv1.Metric{{Name: "loss", Value: value}}}}},
			{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{Epoch: 1, HasMetric: true, Metric: value, Sha256: "00", Location: "shared:x", Size: 1}}},
			{Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)}}},
		}
		for _, e := range events {
			e.SweepId, e.Trial, e.Token = "s1", s.trials, token
		}
		s.do(&logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: events}}})
	}
}

// agrees waits until Redis is as new as the state, and compares the two.
func (s *scene) agrees(what string) {
	s.t.Helper()
	ctx := context.Background()
	sw, _ := s.m.View().Sweep("s1")
	want, checkpoints := board.LeaderboardOf(sw, 0), board.CheckpointsOf(sw, 0)
	b := board.New(s.redis)
	deadline := time.Now().Add(60 * time.Second)
	for {
		rows, a, err := b.Leaderboard(ctx, s.m.View(), sw, 0)
		list, _, err2 := b.Checkpoints(ctx, s.m.View(), sw, 0)
		if err == nil && err2 == nil && a.Found.Index >= s.index {
			if !reflect.DeepEqual(rows, want) || !reflect.DeepEqual(list, checkpoints) || int64(len(rows)) != s.trials {
				s.t.Fatalf("%s: Redis has %v, the state %v", what, rows, want)
			}
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: Redis is at %d and the state at %d: %v", what, a.Found.Index, s.index, errors.Join(err, err2))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Whatever happens to Redis, it ends up equal to the state, also with a projector
// that has only listened until then.
func TestBoardEqualsTheState(t *testing.T) {
	s := open(t)
	leader, next := s.projector(), s.projector()
	s.finish(5)
	leader.Start()
	s.agrees("the first board")
	s.finish(20)
	s.agrees("further trials")
	if s.built.Load() != 1 {
		t.Errorf("the board was built %d times for changes that were told", s.built.Load())
	}
	s.server.Do("FLUSHALL")
	s.agrees("flushed")
	s.server.Do("SAVE")
	file := filepath.Join(s.server.Dir, "dump.rdb")
	dump, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.finish(10)
	s.agrees("before it is set back")
	s.server.Stop()
	s.finish(3)
	if err := os.WriteFile(file, dump, 0o600); err != nil {
		t.Fatal(err)
	}
	s.server.Start()
	s.agrees("set back, and away meanwhile")

	leader.Stop()
	built := s.built.Load()
	s.finish(4)
	next.Start()
	s.agrees("the next leader")
	if s.built.Load() != built {
		t.Error("the next leader, who had heard of all changes, built the board anew")
	}
	next.Resync()
	s.finish(1)
	s.agrees("changes were missed")
}

// A sweep that was purged leaves nothing in Redis, whoever writes it.
func TestPurgedSweepLeavesNothing(t *testing.T) {
	s := open(t)
	leader, next := s.projector(), s.projector()
	s.finish(3)
	leader.Start()
	s.agrees("before")
	built := s.built.Load()
	purge := func() {
		s.do(&logv1.Command{Op: &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: "s1", Action: wire.ToAction(trial.ActionCancel)}}})
		s.do(&logv1.Command{Op: &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: "s1", Action: wire.ToAction(trial.ActionDelete)}}})
		sw, _ := s.m.View().Sweep("s1")
		s.do(&logv1.Command{Op: &logv1.Command_PurgeSweep{PurgeSweep: &logv1.PurgeSweep{Id: "s1", DeletedMs: sw.DeletedMS}}})
	}
	rows := func() []string { return s.server.Do("KEYS", "t:g:*:sweep:s1:*") }
	if len(rows()) == 0 {
		t.Fatal("no rows of s1 before it is purged")
	}
	leader.Stop()
	purge()
	next.Start()
	coordinatortest.Until(t, "the rows are gone", func() bool { return len(rows()) == 0 })
	if s.built.Load() != built {
		t.Error("the board was built anew for a purge that was told")
	}
}
