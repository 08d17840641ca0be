package propose_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/propose"
	"atelier/coordinator/state"
)

// memory applies commands to a machine as the log would, without raft.
type memory struct {
	mu    sync.Mutex
	m     *state.Machine
	index uint64
	tell  func([]state.Change)
}

func (l *memory) Propose(_ context.Context, c *logv1.Command) (state.Result, error) {
	l.mu.Lock()
	l.index++
	r := l.m.Apply(l.index, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
	l.mu.Unlock()
	if l.tell != nil {
		l.tell(r.Changes)
	}
	return r, nil
}

const spec = `
name: s
search_method: random
seed: 1
objective: {metric: loss, direction: minimize}
budget: {trials: 3}
parallelism: 3
trainer: sim
space: {lr: {type: float, low: 0, high: 1}}
`

// A searcher whose sweep is over must come to rest, also when it is woken
// again and again while it retires.
func TestEndedSweepCostsNothing(t *testing.T) {
	log := &memory{m: state.New()}
	var looks atomic.Int64
	p := propose.New(propose.Config{Log: log, NowMS: func() int64 { return 1 }, Logger: slog.New(slog.DiscardHandler),
		View: func() *state.View { looks.Add(1); return log.m.View() }})
	log.tell = p.Changed
	p.Start()
	defer p.Stop()
	create := &logv1.CreateSweep{Id: "s-a", Name: "s", SpecYaml: spec, Objective: wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: "random", Trainer: "sim", BudgetTrials: 3, Parallelism: 3, Seed: 1}
	if r, _ := log.Propose(t.Context(), &logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: create}}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(time.Millisecond) {
		if s, ok := log.m.View().Sweep("s-a"); ok && s.Len() == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no trials were proposed")
		}
	}
	cancel := &logv1.ControlSweep{Id: "s-a", Action: wire.ToAction(trial.ActionCancel)}
	if r, _ := log.Propose(t.Context(), &logv1.Command{TimeMs: 1, RequestId: "r", Op: &logv1.Command_ControlSweep{ControlSweep: cancel}}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for range 1000 {
		p.Changed([]state.Change{{Kind: state.SweepChanged, Sweep: "s-a"}, {Kind: state.SweepChanged, Sweep: "s-a"}})
	}
	// At rest when two counts a while apart are equal.
	var before int64
	for deadline := time.Now().Add(60 * time.Second); ; {
		before = looks.Load()
		time.Sleep(20 * time.Millisecond)
		if looks.Load() == before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still looking after 5 s, %d looks", looks.Load())
		}
	}
}

// A proposal that the log refuses for ever fails its sweep: each further try would be an entry of the log. New specs
// with such points are refused where they are written; this one is as earlier builds took it.
func TestProposalThatCannotBeRecorded(t *testing.T) {
	log := &memory{m: state.New()}
	p := propose.New(propose.Config{Log: log, NowMS: func() int64 { return 1 }, Logger: slog.New(slog.DiscardHandler), View: log.m.View})
	log.tell = p.Changed
	p.Start()
	defer p.Stop()
	large := strings.Replace(spec, "{lr: {type: float, low: 0, high: 1}}", "{blob: {type: categorical, choices: ["+strings.Repeat("x", 70_000)+"]}}", 1)
	create := &logv1.CreateSweep{Id: "s-a", Name: "s", SpecYaml: large, Objective: wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: "random", Trainer: "sim", BudgetTrials: 3, Parallelism: 3, Seed: 1}
	if r, _ := log.Propose(t.Context(), &logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: create}}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(time.Millisecond) {
		s, _ := log.m.View().Sweep("s-a")
		if s.Status == trial.SweepFailed {
			if !strings.Contains(s.Failure, "at most 65536 bytes") {
				t.Errorf("it failed for %q", s.Failure)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is %s after 60 s", s.Status)
		}
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if log.index > 10 {
		t.Errorf("%d entries of the log", log.index)
	}
}
