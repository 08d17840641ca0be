package state_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"testing"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"google.golang.org/protobuf/proto"
)

// chaos makes commands at random, mostly sensible ones, and remembers what the
// machine acknowledged.
type chaos struct {
	rng    *rand.Rand
	tokens []grant
	top    uint64 // greatest token so far
	acked  map[reportKey]float64
	ended  map[trialKey]atelierv1.TrialStatus
	grants int
}

type grant struct {
	sweep string
	trial int64
	token uint64
}
type trialKey struct {
	sweep string
	trial int64
}
type reportKey struct {
	trialKey
	epoch int32
}

func newChaos(seed uint64) *chaos {
	return &chaos{rng: rand.New(rand.NewPCG(seed, 7)), acked: map[reportKey]float64{}, ended: map[trialKey]atelierv1.TrialStatus{}}
}

func (c *chaos) sweep() string { return fmt.Sprintf("s-%d", c.rng.IntN(8)) }

func (c *chaos) someGrant() grant {
	if len(c.tokens) == 0 || c.rng.IntN(20) == 0 {
		return grant{c.sweep(), int64(c.rng.IntN(12)), uint64(c.rng.IntN(1 << 20))}
	}
	// Recent ones more often.
	back := min(c.rng.IntN(6)*c.rng.IntN(3), len(c.tokens)-1)
	return c.tokens[len(c.tokens)-1-back]
}

func (c *chaos) command(v *state.View) *logv1.Command {
	id := c.sweep()
	cmd := &logv1.Command{TimeMs: int64(c.rng.IntN(1 << 30))}
	if c.rng.IntN(3) == 0 {
		cmd.RequestId = fmt.Sprintf("q%d", c.rng.IntN(3000))
	}
	known := int64(1)
	if s, ok := v.Sweep(id); ok {
		known = s.Len()
	}
	n := c.rng.Int64N(known+2) + c.rng.Int64N(2)
	switch p := c.rng.IntN(100); {
	case p < 3:
		cmd.Op = &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: id, Objective: &atelierv1.Objective{Metric: "loss", Direction: atelierv1.Direction(1 + id[2]%2)},
			BudgetTrials: int64(id[2]-'0')*60 + 60, Parallelism: int64(id[2]-'0') + 3, MaxRetries: 2}}
	case p < 13:
		op := &logv1.ProposeTrials{Id: id, First: known + 1 - c.rng.Int64N(8)/7}
		for i := range c.rng.IntN(5) {
			op.ParamsJson = append(op.ParamsJson, fmt.Sprintf(`{"x":%d}`, i))
		}
		op.Exhausted = c.rng.IntN(200) == 0
		cmd.Op = &logv1.Command_ProposeTrials{ProposeTrials: op}
	case p < 40:
		if s, ok := v.Sweep(id); ok && c.rng.IntN(8) > 0 {
			if w := s.Waiting(); len(w) > 0 {
				n = w[0]
			}
		}
		cmd.Op = &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: id, Trial: n, Worker: fmt.Sprintf("w%d", c.rng.IntN(3)), Incarnation: "i", Slot: "cpu0", Request: fmt.Sprintf("r%d", c.rng.IntN(40))}}
	case p < 85:
		cmd.Op = &logv1.Command_RecordEvents{RecordEvents: c.events()}
	case p < 90:
		g := c.someGrant()
		cmd.Op = &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{Id: g.sweep, Trial: g.trial, Token: g.token, Cause: "late"}}
	case p < 93:
		cmd.Op = &logv1.Command_SetVerdict{SetVerdict: &logv1.SetVerdict{Id: id, Trial: n, Verdict: atelierv1.Verdict(c.rng.IntN(4))}}
	case p < 95:
		actions := []atelierv1.SweepAction{1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3}
		if c.rng.IntN(60) == 0 {
			actions = []atelierv1.SweepAction{4}
		}
		cmd.Op = &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: actions[c.rng.IntN(len(actions))]}}
	case p < 96:
		cmd.Op = &logv1.Command_ExtendSweep{ExtendSweep: &logv1.ExtendSweep{Id: id, AddTrials: c.rng.Int64N(9)}}
	case p < 98:
		cmd.Op = &logv1.Command_RetryTrial{RetryTrial: &logv1.RetryTrial{Id: id, Trial: n}}
	case p < 99:
		cmd.Op = &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: fmt.Sprintf("w%d", c.rng.IntN(3)), Drain: c.rng.IntN(4) == 0}}
	default:
		cmd.Op = &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: fmt.Sprintf("n%d", c.rng.IntN(5)), RaftAddress: fmt.Sprint(c.rng.IntN(9)), ClusterId: "c"}}
	}
	return cmd
}

func (c *chaos) events() *logv1.RecordEvents {
	e := &logv1.RecordEvents{}
	for range 1 + c.rng.IntN(6) {
		g := c.someGrant()
		event := &atelierv1.RunEvent{SweepId: g.sweep, Trial: g.trial, Token: g.token}
		switch p := c.rng.IntN(100); {
		case p < 75:
			r := &atelierv1.Report{Epoch: int32(c.rng.IntN(10))}
			for _, name := range []string{"loss", "acc", "lr"} {
				if c.rng.IntN(10) == 0 {
					continue
				}
				value := math.Round(c.rng.NormFloat64()*8) / 8
				switch c.rng.IntN(20) {
				case 0:
					value = math.NaN()
				case 1:
					value = math.Inf(1)
				}
				r.Metrics = append(r.Metrics, &atelierv1.Metric{Name: name, Value: value})
			}
			event.Event = &atelierv1.RunEvent_Report{Report: r}
		case p < 93:
			event.Event = &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{Epoch: int32(c.rng.IntN(10)), Location: "shared:x", Sha256: "0"}}
		default:
			event.Event = &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: atelierv1.ExitClass(max(c.rng.IntN(28)-14, c.rng.IntN(2))), Message: "m"}}
		}
		e.Events = append(e.Events, event)
	}
	return e
}

// learn takes in what the machine answered and checks what an answer alone shows.
func (c *chaos) learn(t *testing.T, before *state.View, e *logv1.Entry, results []state.Result) {
	t.Helper()
	for i, r := range results {
		switch op := e.Commands[i].Op.(type) {
		case *logv1.Command_GrantLease:
			if r.Err != nil {
				break
			}
			if r.Outcome == atelierv1.Outcome_OUTCOME_RECORDED {
				if r.Token <= c.top {
					t.Fatalf("token %d after %d", r.Token, c.top)
				}
				c.top = r.Token
				c.grants++
				c.tokens = append(c.tokens, grant{r.Sweep, r.Trial, r.Token})
			} else if !slices.Contains(c.tokens, grant{r.Sweep, r.Trial, r.Token}) {
				t.Fatalf("a repeat of a grant names a lease never given: %+v", r)
			}
		case *logv1.Command_RecordEvents:
			for j, event := range op.RecordEvents.Events {
				if r.Events[j].Outcome != atelierv1.Outcome_OUTCOME_RECORDED {
					continue
				}
				if !slices.Contains(c.tokens, grant{event.SweepId, event.Trial, event.Token}) {
					t.Fatalf("an event under a token never given for its trial was recorded: %v", event)
				}
				for _, later := range c.tokens {
					if later.sweep == event.SweepId && later.trial == event.Trial && later.token > event.Token {
						t.Fatalf("an event under token %d was recorded after token %d: %v", event.Token, later.token, event)
					}
				}
				if report := event.GetReport(); report != nil {
					key := reportKey{trialKey{event.SweepId, event.Trial}, report.Epoch}
					if _, twice := c.acked[key]; twice {
						t.Fatalf("%v recorded twice", key)
					}
					c.acked[key] = math.NaN()
					for _, metric := range report.Metrics {
						if metric.Name == "loss" {
							c.acked[key] = metric.Value
						}
					}
				}
			}
		}
	}
}

// check recomputes from the trials all that the machine derives.
func (c *chaos) check(t *testing.T, v *state.View) {
	t.Helper()
	held := map[string]bool{}
	for _, s := range v.Sweeps() {
		var counts state.Counts
		var open, retries, fresh, ranked []int64
		for tr := range s.Trials(1) {
			counts.Proposed++
			if tr.Number != counts.Proposed {
				t.Fatalf("%s: trial %d in place %d", s.ID, tr.Number, counts.Proposed)
			}
			counts.Runs += int64(len(tr.Runs))
			counts.Reports += int64(tr.ReportCount())
			switch tr.Status {
			case atelierv1.TrialStatus_TRIAL_STATUS_WAITING:
				counts.Waiting++
				if len(tr.Runs) > 0 {
					retries = append(retries, tr.Number)
				} else {
					fresh = append(fresh, tr.Number)
				}
			case atelierv1.TrialStatus_TRIAL_STATUS_RUNNING:
				counts.Running++
			case atelierv1.TrialStatus_TRIAL_STATUS_PAUSED:
				counts.Paused++
			case atelierv1.TrialStatus_TRIAL_STATUS_FINISHED:
				counts.Finished++
			case atelierv1.TrialStatus_TRIAL_STATUS_STOPPED:
				counts.Stopped++
			case atelierv1.TrialStatus_TRIAL_STATUS_DIVERGED:
				counts.Diverged++
			case atelierv1.TrialStatus_TRIAL_STATUS_FAILED:
				counts.Failed++
			case atelierv1.TrialStatus_TRIAL_STATUS_CANCELLED:
				counts.Cancelled++
			}
			if !tr.Ended() {
				open = append(open, tr.Number)
			}
			if (tr.Lease != nil) != (tr.Status == atelierv1.TrialStatus_TRIAL_STATUS_RUNNING) {
				t.Fatalf("%s trial %d: %v with lease %v", s.ID, tr.Number, tr.Status, tr.Lease)
			}
			if tr.Lease != nil {
				key := tr.Lease.Worker + tr.Lease.Incarnation + tr.Lease.Request
				if held[key] {
					t.Fatalf("request %s holds two leases", key)
				}
				held[key] = true
			}
			key := trialKey{s.ID, tr.Number}
			if was, ok := c.ended[key]; ok && was != tr.Status && was != atelierv1.TrialStatus_TRIAL_STATUS_FAILED {
				t.Fatalf("%v went from %v to %v", key, was, tr.Status)
			}
			if tr.Ended() {
				c.ended[key] = tr.Status
			}
			best, has := math.Inf(1), false
			tr.Reports(func(r state.Report) bool {
				want, ok := c.acked[reportKey{key, r.Epoch}]
				if !ok {
					t.Fatalf("%v has epoch %d, which was never acknowledged", key, r.Epoch)
				}
				got, _ := tr.MetricAt(r.Epoch, "loss")
				for _, metric := range r.Metrics {
					if metric.Name == "loss" && math.Float64bits(metric.Value) != math.Float64bits(got) {
						t.Fatalf("%v epoch %d: %g and %g", key, r.Epoch, metric.Value, got)
					}
				}
				if !(got == want || math.IsNaN(want)) {
					t.Fatalf("%v epoch %d: %g, acknowledged was %g", key, r.Epoch, got, want)
				}
				if !math.IsNaN(want) && !math.IsInf(want, 0) {
					if s.Objective.Maximize {
						want = -want
					}
					has, best = true, min(best, want)
				}
				return true
			})
			if s.Objective.Maximize {
				best = -best
			}
			if has != tr.HasValue || has && tr.Value != best {
				t.Fatalf("%v: value %v %g, recomputed %v %g", key, tr.HasValue, tr.Value, has, best)
			}
			if has {
				ranked = append(ranked, tr.Number)
			}
			if len(tr.Checkpoints) > 2 {
				t.Fatalf("%v has %d checkpoints", key, len(tr.Checkpoints))
			}
		}
		if counts != s.Counts {
			t.Fatalf("%s: counts %+v, recounted %+v", s.ID, s.Counts, counts)
		}
		if counts.Proposed > s.Budget || counts.Running > s.Parallelism {
			t.Fatalf("%s: %d of %d trials, %d of %d run", s.ID, counts.Proposed, s.Budget, counts.Running, s.Parallelism)
		}
		if !slices.Equal(open, s.Open()) || !slices.Equal(append(retries, fresh...), s.Waiting()) {
			t.Fatalf("%s: open %v waiting %v, recomputed %v %v", s.ID, s.Open(), s.Waiting(), open, append(retries, fresh...))
		}
		if s.Ended() && len(open) > 0 {
			t.Fatalf("%s is %v with %v open", s.ID, s.Status, open)
		}
		sort.SliceStable(ranked, func(i, j int) bool {
			a, b := s.Trial(ranked[i]).Value, s.Trial(ranked[j]).Value
			if s.Objective.Maximize {
				return a > b
			}
			return a < b
		})
		for _, top := range []int{0, 1, 5} {
			want := ranked
			if top > 0 && len(want) > top {
				want = want[:top]
			}
			var got []int64
			for _, tr := range s.Leaderboard(top) {
				got = append(got, tr.Number)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s: leaderboard(%d) %v, want %v", s.ID, top, got, want)
			}
		}
		if b := s.Best(); (b != nil) != (len(ranked) > 0) || b != nil && b.Number != ranked[0] {
			t.Fatalf("%s: best %v of %v", s.ID, b, ranked)
		}
	}
	for key := range c.acked {
		s, ok := v.Sweep(key.sweep)
		if !ok || s.Trial(key.trial) == nil {
			t.Fatalf("acknowledged report %v has no trial", key)
		}
	}
}

func restored(t testing.TB, v *state.View) *state.Machine {
	t.Helper()
	var b bytes.Buffer
	n, err := v.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d: %v", n, b.Len(), err)
	}
	m := state.New()
	if err := m.Restore(&b); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestInvariants plays random commands to three machines: one that nobody looks
// at, one that is looked at after every entry, one that is saved and restored
// now and then. All three must agree at every index, and old Views must stay.
func TestInvariants(t *testing.T) {
	entries := 1500
	if testing.Short() {
		entries = 300
	}
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newChaos(seed)
			plain, viewed, moved := state.New(), state.New(), state.New()
			var kept []frozenView
			index := uint64(0)
			for i := range entries {
				index += 1 + c.rng.Uint64N(3)
				before := viewed.View()
				e := &logv1.Entry{}
				for range 1 + c.rng.IntN(4) {
					e.Commands = append(e.Commands, c.command(before))
				}
				results := viewed.Apply(index, e)
				c.learn(t, before, e, results)
				for j, r := range plain.Apply(index, e) {
					if fmt.Sprint(r) != fmt.Sprint(results[j]) {
						t.Fatalf("entry %d command %d: %v and %v", index, j, r, results[j])
					}
				}
				if i%97 == 50 {
					moved = restored(t, moved.View())
				}
				moved.Apply(index, e)
				v := viewed.View()
				if i%50 == 0 {
					c.check(t, v)
					h := v.Hash()
					kept = append(kept, frozenView{v, h})
					if plain.View().Hash() != h || moved.View().Hash() != h {
						t.Fatalf("hashes differ at entry %d", index)
					}
				}
			}
			c.check(t, viewed.View())
			for _, k := range kept {
				if k.view.Hash() != k.hash {
					t.Fatal("a view changed after it was taken")
				}
			}
			if c.grants < entries/20 || len(c.acked) < entries/20 {
				t.Fatalf("the commands did too little to show anything: %d grants, %d reports", c.grants, len(c.acked))
			}
		})
	}
}

// TestRestoreLeavesTheOldStateOnAnError cuts and bends a snapshot.
func TestRestoreLeavesTheOldStateOnAnError(t *testing.T) {
	c := newChaos(3)
	m := state.New()
	for i := range uint64(400) {
		v := m.View()
		e := &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v), c.command(v)}}
		c.learn(t, v, e, m.Apply(i+1, e))
	}
	var good bytes.Buffer
	if _, err := m.View().WriteTo(&good); err != nil {
		t.Fatal(err)
	}
	other := state.New()
	other.Apply(1, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: "kept"}}}}})
	want := other.View().Hash()
	step := max(1, good.Len()/300)
	for cut := 0; cut < good.Len(); cut += step {
		if err := other.Restore(bytes.NewReader(good.Bytes()[:cut])); err == nil {
			t.Fatalf("a snapshot cut at %d of %d was taken", cut, good.Len())
		}
	}
	if err := other.Restore(bytes.NewReader(append(bytes.Clone(good.Bytes()), 0))); err == nil {
		t.Fatal("a snapshot with something behind it was taken")
	}
	if other.View().Hash() != want {
		t.Fatal("a refused snapshot changed the state")
	}
	if err := other.Restore(&good); err != nil {
		t.Fatal(err)
	}
	if other.View().Hash() != m.View().Hash() {
		t.Fatal("the restored state has another hash")
	}
}

func TestEntriesMustAscend(t *testing.T) {
	m := state.New()
	e := &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: "w", Drain: true}}}}}
	m.Apply(5, e)
	h := m.View().Hash()
	for _, index := range []uint64{0, 4, 5} {
		if r := m.Apply(index, e); r[0].Err == nil {
			t.Errorf("entry %d was applied after entry 5", index)
		}
	}
	if m.View().Hash() != h {
		t.Error("a refused entry changed the state")
	}
}

// TestRequestsAreForgottenInOrder fills the memory for request ids.
func TestRequestsAreForgottenInOrder(t *testing.T) {
	m := state.New()
	drain := func(i int) state.Result {
		return m.Apply(m.View().Index()+1, &logv1.Entry{Commands: []*logv1.Command{{RequestId: fmt.Sprint(i), Op: &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: "w", Drain: i%2 == 0}}}}})[0]
	}
	for i := range 4100 {
		drain(i)
	}
	m = restored(t, m.View())
	if r := drain(4); r.Outcome != atelierv1.Outcome_OUTCOME_ALREADY || r.Index != 5 {
		t.Errorf("request 4 is still remembered: %+v", r)
	}
	if r := drain(0); r.Outcome == atelierv1.Outcome_OUTCOME_ALREADY || !m.View().Drained("w") {
		t.Errorf("request 0 is forgotten and counts anew: %+v", r)
	}
}

// TestViewsWhileApplying reads Views from goroutines while entries are applied;
// worth most under -race.
func TestViewsWhileApplying(t *testing.T) {
	m := state.New()
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			last := uint64(0)
			for {
				select {
				case <-done:
					return
				default:
				}
				v := m.View()
				if v.Index() < last {
					t.Errorf("index %d after %d", v.Index(), last)
					return
				}
				last = v.Index()
				h := v.Hash()
				newChaosReader(v)
				if v.Hash() != h {
					t.Error("a view changed under its reader")
					return
				}
			}
		}()
	}
	c := newChaos(11)
	for i := range uint64(400) {
		v := m.View()
		e := &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v), c.command(v), c.command(v)}}
		c.learn(t, v, e, m.Apply(i+1, e))
	}
	close(done)
	readers.Wait()
	c.check(t, m.View())
}

// newChaosReader touches everything a reader of a View may touch.
func newChaosReader(v *state.View) {
	for _, s := range v.Sweeps() {
		s.Proto()
		s.Leaderboard(5)
		s.Waiting()
		for tr := range s.Trials(1) {
			tr.Proto(s.ID)
			tr.Reports(func(r state.Report) bool { r.Proto(); return true })
		}
	}
	v.Members()
}

func FuzzRestore(f *testing.F) {
	c := newChaos(1)
	m := state.New()
	f.Add([]byte{})
	for i := range uint64(60) {
		v := m.View()
		m.Apply(i+1, &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v), c.command(v)}})
		if i%20 == 19 {
			var b bytes.Buffer
			m.View().WriteTo(&b)
			f.Add(b.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := state.New()
		empty := m.View().Hash()
		if err := m.Restore(bytes.NewReader(data)); err != nil {
			if m.View().Hash() != empty {
				t.Fatal("a refused snapshot changed the state")
			}
			return
		}
		v := m.View()
		h := v.Hash()
		if restored(t, v).View().Hash() != h {
			t.Fatal("saved and restored, another hash")
		}
		c := newChaos(uint64(len(data)))
		for i := range uint64(20) {
			m.Apply(v.Index()+i+1, &logv1.Entry{Commands: []*logv1.Command{c.command(m.View()), c.command(m.View())}})
		}
		newChaosReader(m.View())
		if v.Hash() != h {
			t.Fatal("a view changed")
		}
	})
}

func FuzzApply(f *testing.F) {
	c := newChaos(1)
	m := state.New()
	for i := range uint64(40) {
		v := m.View()
		e := &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v)}}
		m.Apply(i+1, e)
		data, _ := proto.Marshal(e)
		f.Add(data)
	}
	var base bytes.Buffer
	m.View().WriteTo(&base)
	f.Fuzz(func(t *testing.T, data []byte) {
		var e logv1.Entry
		if proto.Unmarshal(data, &e) != nil {
			return
		}
		m := state.New()
		if err := m.Restore(bytes.NewReader(base.Bytes())); err != nil {
			t.Fatal(err)
		}
		before := m.View()
		h := before.Hash()
		for i := range uint64(3) {
			if got := m.Apply(before.Index()+i+1, &e); len(got) != len(e.Commands) {
				t.Fatalf("%d results for %d commands", len(got), len(e.Commands))
			}
		}
		v := m.View()
		newChaosReader(v)
		if restored(t, v).View().Hash() != v.Hash() {
			t.Fatal("saved and restored, another hash")
		}
		if before.Hash() != h {
			t.Fatal("a view changed")
		}
	})
}
