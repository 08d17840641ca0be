package judge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/judge"
	"atelier/coordinator/state"
)

// memory applies commands to a machine as the log would, without raft.
type memory struct {
	mu     sync.Mutex
	m      *state.Machine
	index  uint64
	tell   func([]state.Change)
	fails  int      // so many proposals more are not taken
	orders []string // verdicts and resumptions that changed something
}

func (l *memory) Propose(ctx context.Context, c *logv1.Command) (state.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return state.Result{}, ctx.Err()
	}
	_, verdict := c.Op.(*logv1.Command_SetVerdict)
	_, resume := c.Op.(*logv1.Command_ResumeTrial)
	if (verdict || resume) && l.fails > 0 {
		l.fails--
		return state.Result{}, errors.New("no leader")
	}
	l.index++
	r := l.m.Apply(l.index, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
	r.Index = l.index
	if r.Err == nil && r.Outcome != trial.OutcomeAlready {
		switch {
		case verdict:
			l.orders = append(l.orders, fmt.Sprintf("%v %d", c.GetSetVerdict().Verdict, r.Trial))
		case resume:
			l.orders = append(l.orders, fmt.Sprintf("resume %d", r.Trial))
		}
	}
	if l.tell != nil {
		l.tell(r.Changes)
	}
	return r, nil
}

func (l *memory) apply(t *testing.T, c *logv1.Command) state.Result {
	t.Helper()
	r, err := l.Propose(t.Context(), c)
	if err != nil || r.Err != nil {
		t.Fatalf("%v: %v %v", c, err, r.Err)
	}
	return r
}

// world is a sweep on workers that do at once what they are told.
type world struct {
	log    *memory
	judge  *judge.Judge
	rng    *rand.Rand
	budget int64
	epochs int32
	value  func(trial int64, epoch int32) float64
	after  func() // after each report that was judged
}

func newWorld(rule string, budget int64, epochs int32, seed uint64) *world {
	w := &world{log: &memory{m: state.New()}, rng: rand.New(rand.NewPCG(seed, 3)), budget: budget, epochs: epochs}
	w.value = func(n int64, e int32) float64 {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		floor, rate := r.Float64(), 0.05+r.Float64()
		return floor + 2*math.Exp(-rate*float64(e))
	}
	w.log.Propose(context.Background(), &logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{
		Id: "s", Name: "s", SpecYaml: "s", Objective: wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: "random", Trainer: "sim", BudgetTrials: budget, Parallelism: 1000, StoppingJson: rule}}})
	return w
}

// lead makes a new leader's judge; the old one is gone without a word.
func (w *world) lead() {
	if w.judge != nil {
		w.judge.Stop()
	}
	j := judge.New(judge.Config{Log: w.log, View: w.log.m.View, NowMS: func() int64 { return 1 }, Logger: slog.New(slog.DiscardHandler)})
	w.log.mu.Lock()
	w.log.tell = j.Changed
	w.log.mu.Unlock()
	w.judge = j
	j.Start()
}

func (w *world) sweep() *state.Sweep {
	s, _ := w.log.m.View().Sweep("s")
	return s
}

// settle waits until all that is to be decided now has been.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for {
		before := w.log.m.View().Index()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		w.judge.Await(ctx, "s", before)
		if ctx.Err() != nil {
			t.Fatal("the judge does not answer")
		}
		cancel()
		if w.log.m.View().Index() == before {
			return
		}
	}
}

func (w *world) events(t *testing.T, e *v1.RunEvent) {
	t.Helper()
	w.log.apply(t, &logv1.Command{TimeMs: 1, Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*v1.RunEvent{e}}}})
}

// run plays the sweep to its end on so many slots.
func (w *world) run(t *testing.T, slots int) {
	t.Helper()
	w.lead()
	defer func() { w.judge.Stop() }()
	for step := 0; ; step++ {
		if step > 100_000 {
			t.Fatal("the sweep does not end")
		}
		w.settle(t)
		s := w.sweep()
		if s.Ended() {
			return
		}
		var running []*state.Trial
		for _, n := range s.Open() {
			if tr := s.Trial(n); tr.Lease != nil {
				running = append(running, tr)
			}
		}
		// Whoever was told ends; then slots are filled; then somebody reports.
		told := slices.IndexFunc(running, func(tr *state.Trial) bool { return tr.Verdict > trial.VerdictContinue })
		switch {
		case told >= 0:
			tr := running[told]
			class := wire.ToExit(trial.ExitPaused)
			if tr.Verdict == trial.VerdictStop {
				class = wire.ToExit(trial.ExitStopped)
			}
			w.events(t, w.ended(tr, class))
		case len(running) < slots && len(s.Waiting()) > 0:
			w.log.apply(t, &logv1.Command{TimeMs: 1, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s", Trial: s.Waiting()[0], Worker: "w", Incarnation: "i", Slot: "0", Request: fmt.Sprint("r", step)}}})
		case len(running) < slots && s.Len() < w.budget:
			w.log.apply(t, &logv1.Command{TimeMs: 1, Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s", First: s.Len() + 1, ParamsJson: []string{"{}"}, Budget: w.budget}}})
		case len(running) == 0:
			t.Fatalf("nothing runs and the sweep is %v with %+v", s.Status, s.Counts)
		default:
			tr := running[w.rng.IntN(len(running))]
			e := tr.Epoch() + 1
			w.events(t, &v1.RunEvent{SweepId: "s", Trial: tr.Number, Token: tr.Lease.Token, Event: &v1.RunEvent_Report{Report: &v1.Report{Epoch: e, Metrics: []*v1.Metric{{Name: "loss", Value: w.value(tr.Number, e)}}}}})
			if w.after != nil {
				w.after()
			}
			w.settle(t)
			if now := w.sweep().Trial(tr.Number); e == w.epochs && now.Lease != nil {
				w.events(t, w.ended(now, wire.ToExit(trial.ExitFinished)))
			}
		}
	}
}

func (w *world) ended(tr *state.Trial, class v1.ExitClass) *v1.RunEvent {
	return &v1.RunEvent{SweepId: "s", Trial: tr.Number, Token: tr.Lease.Token, Event: &v1.RunEvent_Ended{Ended: &v1.RunEnded{Exit: class}}}
}

var rules = []string{
	`{"rule":"asha","min_epochs":1,"max_epochs":9,"reduction":3}`,
	`{"rule":"hyperband","min_epochs":1,"max_epochs":9,"reduction":2}`,
	`{"rule":"median","warmup_epochs":1,"warmup_trials":2}`,
	`{"rule":"percentile","percentile":40,"warmup_epochs":1,"warmup_trials":2}`,
	`{"rule":"patience","patience":2,"min_delta":0.05}`,
}

// A sweep ends, no trial is left over, and verdicts were given.
func TestSweepsEnd(t *testing.T) {
	for _, rule := range rules {
		w := newWorld(rule, 20, 9, 1)
		w.run(t, 4)
		s := w.sweep()
		if s.Status != trial.SweepFinished || s.Counts.Finished == 0 || s.Counts.Stopped == 0 || s.Counts.Open() != 0 || s.Len() != 20 {
			t.Errorf("%s: sweep is %v with %+v", rule, s.Status, s.Counts)
		}
		for tr := range s.Trials(1) {
			if tr.Status == trial.Stopped && tr.StopReason == "" {
				t.Errorf("%s: trial %d was stopped without a reason", rule, tr.Number)
			}
		}
	}
}

// A leader that dies after every third report, and before or after any
// decision: the same orders as of one that lives.
func TestNextLeaderDecidesTheSame(t *testing.T) {
	for _, rule := range rules {
		whole := newWorld(rule, 20, 9, 2)
		whole.run(t, 4)
		broken := newWorld(rule, 20, 9, 2)
		reports, leaders := 0, 1
		broken.after = func() {
			if reports++; reports%3 == 0 {
				broken.log.mu.Lock()
				broken.log.fails = reports % 2 // the old one's last decision is lost, or not
				broken.log.mu.Unlock()
				broken.lead()
				leaders++
			}
		}
		broken.run(t, 4)
		// Decisions of one round go side by side: their order is the log's affair.
		want, got := slices.Clone(whole.log.orders), slices.Clone(broken.log.orders)
		slices.Sort(want)
		slices.Sort(got)
		if len(want) == 0 || !slices.Equal(want, got) {
			t.Errorf("%s: %d leaders ordered\n%v, one ordered\n%v", rule, leaders, broken.log.orders, whole.log.orders)
		}
		if a, b := whole.sweep().Counts, broken.sweep().Counts; a != b {
			t.Errorf("%s: counts %+v, with %d leaders %+v", rule, a, leaders, b)
		}
	}
}

// A pause that a run could not obey because it crashed holds all the same.
func TestCrashAtARungIsAPause(t *testing.T) {
	w := newWorld(`{"rule":"asha","min_epochs":1,"max_epochs":9,"reduction":3}`, 10, 9, 3)
	w.lead()
	defer func() { w.judge.Stop() }()
	w.log.apply(t, &logv1.Command{TimeMs: 1, Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s", First: 1, ParamsJson: []string{"{}"}, Budget: 10}}})
	r := w.log.apply(t, &logv1.Command{TimeMs: 1, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s", Trial: 1, Worker: "w", Incarnation: "i", Slot: "0", Request: "r"}}})
	w.events(t, &v1.RunEvent{SweepId: "s", Trial: 1, Token: r.Token, Event: &v1.RunEvent_Report{Report: &v1.Report{Epoch: 1, Metrics: []*v1.Metric{{Name: "loss", Value: 1}}}}})
	w.settle(t)
	if v := w.sweep().Trial(1).Verdict; v != trial.VerdictPause {
		t.Fatalf("verdict %v at the rung", v)
	}
	w.log.apply(t, &logv1.Command{TimeMs: 1, Op: &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{Id: "s", Trial: 1, Token: r.Token, Cause: "its worker died"}}})
	w.settle(t)
	if tr := w.sweep().Trial(1); tr.Status != trial.Paused {
		t.Errorf("trial is %v", tr.Status)
	}
}
