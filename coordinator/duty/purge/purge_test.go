package purge_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/duty/purge"
	"atelier/coordinator/state"
)

// log applies what is proposed, after it has failed once.
type log struct {
	mu     sync.Mutex
	m      *state.Machine
	failed bool
}

func (l *log) Propose(_ context.Context, c *logv1.Command) (state.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.GetPurgeSweep() != nil && !l.failed {
		l.failed = true
		return state.Result{}, errors.New("no majority")
	}
	c.Rules = state.Rules
	return l.m.Apply(l.m.View().Index()+1, &logv1.Entry{Commands: []*logv1.Command{c}})[0], nil
}

// TestOnlyWhatIsDueIsPurged: a day after its deletion, and not what was taken back.
func TestOnlyWhatIsDueIsPurged(t *testing.T) {
	m := state.New()
	l := &log{m: m}
	do := func(ms int64, c *logv1.Command) {
		t.Helper()
		c.TimeMs = ms
		if r, err := l.Propose(t.Context(), c); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	control := func(ms int64, id string, a trial.Action) {
		t.Helper()
		do(ms, &logv1.Command{Op: &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: wire.ToAction(a)}}})
	}
	for _, id := range []string{"s-due", "s-late", "s-back", "s-live"} {
		do(1, &logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: id, BudgetTrials: 1, Parallelism: 1,
			Objective: wire.ToObjective(trial.Objective{Metric: "loss"})}}})
		if id != "s-live" {
			control(2, id, trial.ActionCancel)
			control(1000, id, trial.ActionDelete)
		}
	}
	control(2000, "s-late", trial.ActionUndelete)
	control(2000, "s-late", trial.ActionDelete)
	control(2000, "s-back", trial.ActionUndelete)
	var now atomic.Int64
	now.Store(1000 + state.GraceMS - 1)
	p := purge.New(purge.Config{Log: l, View: m.View, NowMS: now.Load, Every: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	p.Start()
	defer p.Stop()
	time.Sleep(20 * time.Millisecond)
	if n := len(m.View().Sweeps()); n != 4 {
		t.Fatalf("%d sweeps are left a moment before the time", n)
	}
	now.Add(1)
	coordinatortest.Until(t, "the first goes", func() bool { _, gone := m.View().Purged("s-due"); return gone })
	time.Sleep(20 * time.Millisecond)
	for _, id := range []string{"s-late", "s-back", "s-live"} {
		if _, here := m.View().Sweep(id); !here {
			t.Errorf("%s is gone", id)
		}
	}
	now.Add(1000)
	coordinatortest.Until(t, "the second goes", func() bool { _, gone := m.View().Purged("s-late"); return gone })
}
