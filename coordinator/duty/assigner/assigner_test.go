package assigner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/state"
)

// log is a state machine behind a log of one node, whose answers can be held back.
type log struct {
	duty *assigner.Duty
	m    *state.Machine

	mu    sync.Mutex
	index uint64
	gate  chan struct{}       // not nil: a command waits until it is closed
	came  chan *logv1.Command // what waits
}

func (l *log) apply(c *logv1.Command) state.Result {
	l.mu.Lock()
	l.index++
	c.TimeMs, c.Rules = max(c.TimeMs, 1), state.Rules
	res := l.m.Apply(l.index, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
	l.mu.Unlock()
	l.duty.Changed(res.Changes)
	return res
}

func (l *log) Propose(ctx context.Context, c *logv1.Command) (state.Result, error) {
	if l.gate != nil {
		l.came <- c
		select {
		case <-l.gate:
		case <-ctx.Done():
			return state.Result{}, ctx.Err()
		}
	}
	return l.apply(c), nil
}

func (l *log) create(t *testing.T, id, trainer string) {
	t.Helper()
	for _, c := range []*logv1.Command{
		{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: id, Name: id, Trainer: trainer, BudgetTrials: 1, Parallelism: 1,
			Objective: wire.ToObjective(trial.Objective{Metric: "loss"})}}},
		{Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: id, First: 1, ParamsJson: []string{`{"x":1}`}}}},
	} {
		if res := l.apply(c); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
}

func start(t *testing.T, ttl time.Duration, gate chan struct{}) (*assigner.Duty, *log) {
	t.Helper()
	l := &log{m: state.New(), gate: gate, came: make(chan *logv1.Command, 10)}
	l.duty = assigner.New(assigner.Config{Log: l, View: l.m.View, TTL: ttl, Logger: slog.New(slog.DiscardHandler)})
	l.duty.Start()
	t.Cleanup(l.duty.Stop)
	return l.duty, l
}

func slot(request string) assign.Slot {
	return assign.Slot{Request: request, Worker: "w1", Incarnation: "i1", Name: "cpu0", Trainers: []string{"sim"}}
}

type answer struct {
	lease *trial.Lease
	err   error
}

func acquire(ctx context.Context, d *assigner.Duty, id string, wait time.Duration) chan answer {
	got := make(chan answer, 1)
	go func() {
		lease, err := d.Acquire(ctx, slot(id), wait)
		got <- answer{lease, err}
	}()
	return got
}

// A poll whose time is over while its grant is on its way gets the lease; one whose
// caller is gone does not wait for it, and its repeat gets it.
func TestPollsWaitForTheLog(t *testing.T) {
	gate := make(chan struct{})
	d, l := start(t, time.Minute, gate)
	l.create(t, "s1", "sim")
	l.create(t, "s2", "sim")
	ctx, gone := context.WithCancel(t.Context())
	short, left := acquire(t.Context(), d, "short", 0), acquire(ctx, d, "left", time.Minute)
	<-l.came
	<-l.came
	gone()
	if a := <-left; !errors.Is(a.err, context.Canceled) {
		t.Errorf("the caller that is gone: %v", a)
	}
	select {
	case a := <-short:
		t.Errorf("an answer before the grant is durable: %v", a)
	default:
	}
	close(gate)
	if a := <-short; a.err != nil || a.lease == nil {
		t.Errorf("the poll whose time is over: %v", a)
	}
	again, err := d.Acquire(t.Context(), slot("left"), time.Minute)
	if err != nil || again == nil {
		t.Errorf("the repeat: %v, %v", again, err)
	}
	if none, err := d.Acquire(t.Context(), slot("none"), 0); err != nil || none != nil {
		t.Errorf("nothing to do: %v, %v", none, err)
	}
}

// Two polls get their parts in one lease, and a third joins them.
func TestGang(t *testing.T) {
	d, l := start(t, time.Minute, nil)
	sp := &spec.Spec{Name: "s1", Trainer: "sim", Parallelism: 1, Budget: spec.Budget{Trials: 1}, Objectives: []trial.Objective{{Metric: "loss"}}, Members: spec.Members{Min: 2, Max: 3}, Shards: 4}
	for _, c := range []*logv1.Command{
		{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s1", Name: "s1", SpecJson: spec.Encode(sp)}}},
		{Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s1", First: 1, ParamsJson: []string{`{"x":1}`}}}},
	} {
		if res := l.apply(c); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	worker := trial.Worker{Name: "w1", Incarnation: "i1", Address: "w1:1", Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}, Slots: []trial.Slot{{Name: "cpu0"}, {Name: "cpu1"}, {Name: "cpu2"}}}
	if _, err := d.Heartbeat(trial.Heartbeat{Worker: worker}); err != nil {
		t.Fatal(err)
	}
	poll := func(name string) chan answer {
		got := make(chan answer, 1)
		go func() {
			lease, err := d.Acquire(t.Context(), assign.Slot{Request: name, Worker: "w1", Incarnation: "i1", Name: name, Trainers: worker.Trainers, GroupTrainers: worker.GroupTrainers}, time.Minute)
			got <- answer{lease, err}
		}()
		return got
	}
	a, b := poll("cpu0"), poll("cpu1")
	first, second := <-a, <-b
	if first.err != nil || second.err != nil || first.lease.Token != second.lease.Token || first.lease.Member+second.lease.Member != 3 || first.lease.Group.Join || len(second.lease.Group.Members) != 2 {
		t.Fatalf("%+v, %+v", first, second)
	}
	if third := <-poll("cpu2"); third.err != nil || third.lease.Token != first.lease.Token || third.lease.Member != 3 || !third.lease.Group.Join || len(third.lease.Group.Members) != 3 {
		t.Fatalf("%+v", third)
	}
}

// Whoever waits is told when the leadership ends, also for a grant.
func TestStopAnswersAll(t *testing.T) {
	d, l := start(t, time.Minute, make(chan struct{}))
	l.create(t, "s1", "sim")
	granted, waits := acquire(t.Context(), d, "a", time.Minute), acquire(t.Context(), d, "b", time.Minute)
	<-l.came
	d.Stop()
	for _, got := range []chan answer{granted, waits} {
		if a := <-got; !errors.Is(a.err, assigner.ErrNotLeading) {
			t.Errorf("%v", a)
		}
	}
	if _, err := d.Heartbeat(trial.Heartbeat{Worker: trial.Worker{Name: "w1", Incarnation: "i1"}}); !errors.Is(err, assigner.ErrNotLeading) {
		t.Errorf("heartbeat: %v", err)
	}
	if _, err := d.Workers(); !errors.Is(err, assigner.ErrNotLeading) {
		t.Errorf("workers: %v", err)
	}
}

// The clock ends a lease that nobody renews, and the one who waits gets the trial.
func TestClockEndsLeases(t *testing.T) {
	d, l := start(t, 200*time.Millisecond, nil)
	l.create(t, "s1", "sim")
	first, err := d.Acquire(t.Context(), slot("a"), time.Minute)
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	second, err := d.Acquire(t.Context(), slot("b"), time.Minute)
	if err != nil || second == nil || second.Trial != first.Trial || second.Run != 2 {
		t.Errorf("%v, %v", second, err)
	}
}

// A program's poll ends with its sweep.
func TestAskEndsWithItsSweep(t *testing.T) {
	d, _ := start(t, time.Minute, nil)
	over, changed := make(chan struct{}), make(chan struct{})
	asked := make(chan answer, 1)
	go func() {
		lease, err := d.Ask(t.Context(), assigner.Asking{Sweep: "s1", Request: "r", Wait: time.Minute, Over: func() (bool, <-chan struct{}, func()) {
			select {
			case <-over:
				return true, nil, func() {}
			default:
				return false, changed, func() {}
			}
		}})
		asked <- answer{lease, err}
	}()
	close(over)
	close(changed)
	if a := <-asked; a.lease != nil || a.err != nil {
		t.Errorf("%v", a)
	}
}

// A panic while a change is told of goes on to who told it, and is logged; the duty
// lives on.
func TestPanicIsPassedOn(t *testing.T) {
	broken := false
	said := &bytes.Buffer{}
	m := state.New()
	d := assigner.New(assigner.Config{TTL: time.Minute, Logger: slog.New(slog.NewTextHandler(said, nil)), View: func() *state.View {
		if broken {
			return nil
		}
		return m.View()
	}})
	d.Start()
	defer d.Stop()
	broken = true
	func() {
		defer func() {
			if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "nil pointer") {
				t.Errorf("panic %v", p)
			}
		}()
		d.Changed([]state.Change{{Kind: state.LeaseGranted, Sweep: "s1", Trial: 1, Token: 1}})
	}()
	if _, err := d.Heartbeat(trial.Heartbeat{Worker: trial.Worker{Name: "w1", Incarnation: "i1"}}); err == nil || !strings.Contains(err.Error(), "please report it") {
		t.Errorf("heartbeat: %v", err)
	}
	broken = false
	if _, err := d.Heartbeat(trial.Heartbeat{Worker: trial.Worker{Name: "w1", Incarnation: "i1"}}); err != nil {
		t.Errorf("heartbeat after it: %v", err)
	}
	if !strings.Contains(said.String(), "panic in the assignment of trials") {
		t.Errorf("the log says %s", said)
	}
}
