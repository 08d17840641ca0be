package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/propose"
	"atelier/coordinator/history"
	"atelier/coordinator/state"
	"atelier/tuner/search"
)

// log applies commands to a machine as raft would, and keeps them.
type log struct {
	mu      sync.Mutex
	m       *state.Machine
	entries []*logv1.Entry
	tell    func([]state.Change)
}

func (l *log) Propose(_ context.Context, c *logv1.Command) (state.Result, error) {
	l.mu.Lock()
	e := &logv1.Entry{Commands: []*logv1.Command{c}}
	l.entries = append(l.entries, proto.CloneOf(e))
	r := l.m.Apply(uint64(len(l.entries)), e)[0]
	l.mu.Unlock()
	if l.tell != nil {
		l.tell(r.Changes)
	}
	return r, nil
}

func (l *log) do(t *testing.T, c *logv1.Command) state.Result {
	t.Helper()
	c.TimeMs = 1
	r, err := l.Propose(t.Context(), c)
	if err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	return r
}

const spec = `
search_method: %s
seed: 3
objective: {metric: loss, direction: minimize}
budget: {trials: %d}
parallelism: 3
trainer: sim
space:
  x: {type: float, low: 0, high: 1}
  y: {type: int, low: 1, high: 9}
`

// run plays a whole sweep: real proposals, trials given and ended in an order of
// their own, with pauses, a retry, an extension and given points on the way.
func run(t *testing.T, method string) *log {
	t.Helper()
	l := &log{m: state.New()}
	p := propose.New(propose.Config{Log: l, View: l.m.View, NowMS: func() int64 { return 1 }, Logger: slog.New(slog.DiscardHandler)})
	l.tell = p.Changed
	p.Start()
	defer p.Stop()
	l.do(t, &logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-a", SpecYaml: fmt.Sprintf(spec, method, 12), Seed: 3,
		Objective:    wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: method, Algorithm: "tpe", Trainer: "sim", BudgetTrials: 12, Parallelism: 3, EnqueuedJson: []string{`{"x":0.5,"y":5}`},
		WarmStart: "s-old", WarmTrials: []*logv1.WarmTrial{{Trial: 1, ParamsJson: `{"x":0.25,"y":2}`, Status: wire.ToStatus(trial.Finished), HasValue: true, Value: 0.4, Epoch: 2}}}}})
	sweep := func() *state.Sweep { s, _ := l.m.View().Sweep("s-a"); return s }
	event := func(n int64, token uint64, e *v1.RunEvent) {
		e.SweepId, e.Trial, e.Token = "s-a", n, token
		l.do(t, &logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*v1.RunEvent{e}}}})
	}
	extended := false
	for step := 0; ; step++ {
		deadline := time.Now().Add(30 * time.Second)
		for s := sweep(); !s.Ended() && s.Wanted() > 0; s = sweep() {
			if time.Now().After(deadline) {
				t.Fatalf("no proposal: %+v", s.Counts)
			}
			time.Sleep(time.Millisecond)
		}
		s := sweep()
		if s.Ended() {
			if extended {
				return l
			}
			extended = true
			l.do(t, &logv1.Command{Op: &logv1.Command_ExtendSweep{ExtendSweep: &logv1.ExtendSweep{Id: "s-a", AddTrials: 8}}})
			l.do(t, &logv1.Command{Op: &logv1.Command_EnqueueTrials{EnqueueTrials: &logv1.EnqueueTrials{Id: "s-a", ParamsJson: []string{`{"x":0.125,"y":7}`}}}})
			continue
		}
		waiting := s.Waiting()
		if len(waiting) == 0 {
			open := s.Open()
			l.do(t, &logv1.Command{Op: &logv1.Command_ResumeTrial{ResumeTrial: &logv1.ResumeTrial{Id: "s-a", Trial: open[0]}}})
			continue
		}
		n := waiting[step%len(waiting)]
		token := l.do(t, &logv1.Command{Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s-a", Trial: n, Worker: "w", Incarnation: "i", Slot: "c", Request: fmt.Sprint(step)}}}).Token
		tr := s.Trial(n)
		epoch := tr.Epoch() + 1
		value := math.Mod(float64(n)*0.37, 1) / float64(epoch)
		exit := wire.ToExit(trial.ExitFinished)
		switch {
		case n%5 == 2 && epoch == 1:
			exit = wire.ToExit(trial.ExitPaused)
		case n%7 == 3:
			exit = wire.ToExit(trial.ExitDiverged)
		case n == 8 && len(tr.Runs) == 0:
			exit = wire.ToExit(trial.ExitBadSpec)
		}
		event(n, token, &v1.RunEvent{Event: &v1.RunEvent_Report{Report: &v1.Report{Epoch: epoch, Metrics: []*v1.Metric{{Name: "loss", Value: value}}}}})
		event(n, token, &v1.RunEvent{Event: &v1.RunEvent_Ended{Ended: &v1.RunEnded{Exit: exit}}})
		if wire.Exit(exit) == trial.ExitBadSpec {
			l.do(t, &logv1.Command{Op: &logv1.Command_RetryTrial{RetryTrial: &logv1.RetryTrial{Id: "s-a", Trial: n}}})
		}
	}
}

func verify(t *testing.T, m *state.Machine) history.Verification {
	t.Helper()
	s, ok := m.View().Sweep("s-a")
	if !ok {
		t.Fatal("no sweep")
	}
	v, err := history.Verify(t.Context(), s, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every proposal comes out again, and one that was altered in the log is found,
// from whichever source it came.
func TestPlantedProposalIsFound(t *testing.T) {
	for _, method := range []string{"random", "bayesian", "genetic", "sobol"} {
		t.Run(method, func(t *testing.T) {
			l := run(t, method)
			if v := verify(t, l.m); len(v.Differences) != 0 || v.Checked != 20 || v.Unchecked != 0 {
				t.Fatalf("%+v", v)
			}
			plantings := 0
			for _, planted := range []int64{1, 6, 13, 20} {
				again := state.New()
				found := false
				for i, e := range l.entries {
					e = proto.CloneOf(e)
					p := e.Commands[0].GetProposeTrials()
					altered := p != nil && !found && p.First <= planted && planted < p.First+int64(len(p.ParamsJson))
					if altered {
						p.ParamsJson[planted-p.First] = `{"x":0.0625,"y":3}`
					}
					r := again.Apply(uint64(i)+1, e)[0]
					if altered && wire.Source(p.Source) == trial.SourceEnqueued {
						if r.Err == nil { // it is taken from the queue: the state itself refuses another point
							t.Fatalf("a given point that nobody gave: %+v", r)
						}
						break
					}
					// One that came too late for its place changed nothing.
					found = found || altered && r.Outcome == trial.OutcomeRecorded
				}
				if !found {
					continue
				}
				plantings++
				v := verify(t, again)
				if len(v.Differences) == 0 || v.Differences[0].Trial != planted || v.Differences[0].Recorded.Params != `{"x":0.0625,"y":3}` || v.Differences[0].Computed.Params == "" {
					t.Errorf("trial %d was altered: %+v", planted, v.Differences)
				}
			}
			if plantings < 2 {
				t.Errorf("%d of search's proposals were altered", plantings)
			}
		})
	}
}

const population = `
search_method: pbt
seed: 3
objective: {metric: loss, direction: minimize}
parallelism: 3
trainer: sim
space: {x: {type: float, low: 0, high: 1}}
population: {interval: 2}
training: {epochs: 6}
`

// segments is what the parser made of population as its stopping rule.
const segments = `{"rule":"segment","max_epochs":6,"interval":2}`

// A segment that went on from another checkpoint than search said is found, be
// it another trial's or that of another epoch, though its settings are right.
func TestPlantedOriginIsFound(t *testing.T) {
	l := &log{m: state.New()}
	p := propose.New(propose.Config{Log: l, View: l.m.View, NowMS: func() int64 { return 1 }, Logger: slog.New(slog.DiscardHandler)})
	l.tell = p.Changed
	p.Start()
	defer p.Stop()
	l.do(t, &logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-a", SpecYaml: population, Seed: 3,
		Objective:    wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: "pbt", Trainer: "sim", BudgetTrials: 9, Parallelism: 3, StoppingJson: segments}}})
	for n := int64(1); n <= 9; n++ {
		var tr *state.Trial
		for deadline := time.Now().Add(time.Minute); tr == nil; time.Sleep(time.Millisecond) {
			s, _ := l.m.View().Sweep("s-a")
			if tr = s.Trial(n); tr == nil && time.Now().After(deadline) {
				t.Fatalf("no trial %d: %+v", n, s.Counts)
			}
		}
		token := l.do(t, &logv1.Command{Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s-a", Trial: n, Worker: "w", Incarnation: "i", Slot: "c", Request: fmt.Sprint(n)}}}).Token
		for _, e := range []*v1.RunEvent{
			{Event: &v1.RunEvent_Report{Report: &v1.Report{Epoch: tr.Origin.Epoch + 2, Metrics: []*v1.Metric{{Name: "loss", Value: 1 / float64(n%3+1)}}}}},
			{Event: &v1.RunEvent_Ended{Ended: &v1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)}}},
		} {
			e.SweepId, e.Trial, e.Token = "s-a", n, token
			l.do(t, &logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*v1.RunEvent{e}}}})
		}
	}
	if v := verify(t, l.m); len(v.Differences) != 0 || v.Checked != 9 {
		t.Fatalf("%+v", v)
	}
	for planted, origin := range map[int64]*v1.Origin{5: {Trial: 2, Epoch: 1}, 8: {Trial: 4, Epoch: 4}, 6: {}} {
		again := state.New()
		for i, e := range l.entries {
			e = proto.CloneOf(e)
			if p := e.Commands[0].GetProposeTrials(); p != nil && p.First <= planted && planted < p.First+int64(len(p.ParamsJson)) {
				p.Origins[planted-p.First] = origin
			}
			again.Apply(uint64(i)+1, e)
		}
		v := verify(t, again)
		want := wire.Origin(origin)
		if len(v.Differences) != 1 || v.Differences[0].Trial != planted || v.Differences[0].Recorded.Origin != want || v.Differences[0].Computed.Origin.Trial == 0 ||
			v.Differences[0].Computed.Params != v.Differences[0].Recorded.Params {
			t.Errorf("the origin of trial %d was altered: %+v", planted, v.Differences)
		}
	}
}

// A population of which a segment overshot its end, and whose whole way was taken
// over, as earlier versions did: that is no difference.
func TestOvershotOriginIsNoDifference(t *testing.T) {
	m := state.New()
	index := uint64(0)
	do := func(c *logv1.Command) state.Result {
		t.Helper()
		index++
		r := m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r
	}
	do(&logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-a", SpecYaml: population, Seed: 3,
		Objective:    wire.ToObjective(trial.Objective{Metric: "loss"}),
		SearchMethod: "pbt", Trainer: "sim", BudgetTrials: 9, Parallelism: 3, StoppingJson: segments}}})
	propose := func(first int64, from ...*v1.Origin) {
		t.Helper()
		s, _ := m.View().Sweep("s-a")
		method, err := history.Method(s, s.Budget)
		if err != nil {
			t.Fatal(err)
		}
		_, known, err := history.Now(s)
		if err != nil {
			t.Fatal(err)
		}
		p, err := method.Propose(t.Context(), known, 3)
		if err != nil {
			t.Fatal(err)
		}
		c := &logv1.ProposeTrials{Id: "s-a", First: first, Seen: s.Findings, Budget: s.Budget, Source: wire.ToSource(trial.SourceSearch)}
		for i, pt := range p.Points {
			c.ParamsJson = append(c.ParamsJson, s.Space.Encode(pt))
			if i < len(p.Origins) {
				o := &v1.Origin{Trial: p.Origins[i].Trial, Epoch: int32(p.Origins[i].Epoch)}
				if o.Epoch != 2 {
					t.Errorf("trial %d is to begin at epoch %d of trial %d, a segment of 2 epochs", first+int64(i), o.Epoch, o.Trial)
				}
				for _, f := range from {
					if f.Trial == o.Trial {
						o.Epoch = f.Epoch
					}
				}
				c.Origins = append(c.Origins, o)
			}
		}
		do(&logv1.Command{Op: &logv1.Command_ProposeTrials{ProposeTrials: c}})
	}
	propose(1)
	for n := int64(1); n <= 3; n++ {
		token := do(&logv1.Command{Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s-a", Trial: n, Worker: "w", Incarnation: "i", Slot: "c", Request: fmt.Sprint(n)}}}).Token
		for _, e := range []*v1.RunEvent{
			{Event: &v1.RunEvent_Report{Report: &v1.Report{Epoch: 2, Metrics: []*v1.Metric{{Name: "loss", Value: float64(n)}}}}},
			{Event: &v1.RunEvent_Report{Report: &v1.Report{Epoch: 5, Metrics: []*v1.Metric{{Name: "loss", Value: float64(n) / 2}}}}},
			{Event: &v1.RunEvent_Ended{Ended: &v1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)}}},
		} {
			e.SweepId, e.Trial, e.Token = "s-a", n, token
			do(&logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*v1.RunEvent{e}}}})
		}
	}
	propose(4, &v1.Origin{Trial: 1, Epoch: 5}, &v1.Origin{Trial: 2, Epoch: 5})
	if v := verify(t, m); len(v.Differences) != 0 || v.Checked != 6 {
		t.Errorf("%+v", v)
	}
}

// In parts it comes to the same as at once.
func TestVerifyInParts(t *testing.T) {
	l := run(t, "genetic")
	s, _ := l.m.View().Sweep("s-a")
	var sum history.Verification
	for parts := 0; sum.Through < s.Len(); parts++ {
		once := false
		v, err := history.Verify(t.Context(), s, sum.Through, func() bool { defer func() { once = true }(); return once })
		if err != nil || v.Through <= sum.Through || len(v.Differences) > 0 {
			t.Fatalf("part %d: %+v, %v", parts, v, err)
		}
		sum.Checked += v.Checked
		sum.Through = v.Through
	}
	if sum.Checked != 20 {
		t.Errorf("%+v", sum)
	}
}

// What was not recorded cannot be checked, and is counted as such.
func TestOldProposalsAreNotChecked(t *testing.T) {
	l := run(t, "random")
	again := state.New()
	for i, e := range l.entries {
		e = proto.CloneOf(e)
		if p := e.Commands[0].GetProposeTrials(); p != nil && p.First < 8 && wire.Source(p.Source) == trial.SourceSearch {
			p.Source, p.Seen, p.Budget = 0, 0, 0
		}
		again.Apply(uint64(i)+1, e)
	}
	v := verify(t, again)
	if len(v.Differences) != 0 || v.Unchecked == 0 || v.Checked+v.Unchecked != 20 {
		t.Errorf("%+v", v)
	}
}

// The reader that follows and the one that looks back tell the same.
func TestPrefixesAreWhatWasRead(t *testing.T) {
	l := run(t, "random")
	m := state.New()
	type look struct {
		trials, seen int64
		history      string
	}
	var looks []look
	show := func(known []search.Trial) string {
		var b strings.Builder
		for _, h := range known {
			fmt.Fprintf(&b, "%d %v %v %g %d\n", h.Number, h.Status, h.HasValue, h.Value, h.Epoch)
		}
		return b.String()
	}
	var reader *history.Reader
	for i, e := range l.entries {
		r := m.Apply(uint64(i)+1, e)[0]
		s, ok := m.View().Sweep("s-a")
		if !ok {
			t.Fatal("no sweep")
		}
		if reader == nil {
			reader = history.NewReader(&s.Space)
		}
		var stale []int64
		for _, c := range r.Changes {
			switch c.Kind {
			case state.TrialEnded, state.TrialPaused, state.TrialReopened:
				stale = append(stale, c.Trial)
			}
		}
		followed, err := reader.Read(s, stale)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := history.NewReader(&s.Space).Read(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if show(followed) != show(fresh) {
			t.Fatalf("after entry %d\nfollowed\n%sread at once\n%s", i+1, show(followed), show(fresh))
		}
		looks = append(looks, look{s.Len(), s.Findings, show(fresh)})
	}
	end, _ := m.View().Sweep("s-a")
	for _, x := range slices.Backward(looks) {
		back, err := history.NewReader(&end.Space).As(end, x.trials, x.seen, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(back); got != x.history {
			t.Fatalf("%d trials after %d findings\nlooking back\n%sthen\n%s", x.trials, x.seen, got, x.history)
		}
	}
}
