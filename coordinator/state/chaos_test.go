package state_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// chaos makes commands at random, mostly sensible ones, and remembers what the
// machine acknowledged.
type chaos struct {
	rng    *rand.Rand
	tokens []grant
	top    uint64 // greatest token so far
	acked  map[reportKey]float64
	ended  map[trialKey]trial.Status
	grants int
	kinds  map[state.ChangeKind]int // changes seen
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
	return &chaos{rng: rand.New(rand.NewPCG(seed, 7)), acked: map[reportKey]float64{}, ended: map[trialKey]trial.Status{}, kinds: map[state.ChangeKind]int{}}
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
	if c.rng.IntN(8) > 0 {
		cmd.Rules = state.Rules
	}
	known := int64(1)
	if s, ok := v.Sweep(id); ok {
		known = s.Len()
	}
	n := c.rng.Int64N(known+2) + c.rng.Int64N(2)
	switch p := c.rng.IntN(100); {
	case p < 3:
		create := &logv1.CreateSweep{Id: id, Objective: &atelierv1.Objective{Metric: "loss", Direction: wire.ToObjective(trial.Objective{Maximize: id[2]%2 == 1}).Direction},
			BudgetTrials: int64(id[2]-'0')*60 + 60, Parallelism: int64(id[2]-'0') + 3, MaxRetries: 2}
		switch id[2] {
		case '2':
			create.BudgetEpochs, create.CheckpointBytes = 25, 60
		case '4':
			create.StoppingJson, create.CheckpointBytes = "{}", 30
		case '5':
			create.BudgetMs = 1 << 29
		case '6':
			create.EnqueuedJson = []string{`{"x":-1}`, `{"x":-2}`}
			create.Constraints = []*atelierv1.Constraint{{Metric: "acc", HasMin: true, Min: -2}}
		}
		if grouped(id) {
			create.SpecJson = spec.Encode(&spec.Spec{Objectives: []trial.Objective{wire.Objective(create.Objective)}, Budget: spec.Budget{Trials: create.BudgetTrials},
				Parallelism: create.Parallelism, MaxRetries: 2, Members: spec.Members{Min: 1 + int32(id[2]-'0')/4, Max: 4}, Shards: 8})
		}
		cmd.Op = &logv1.Command_CreateSweep{CreateSweep: create}
	case p < 13:
		op := &logv1.ProposeTrials{Id: id, First: known + 1 - c.rng.Int64N(8)/7}
		for i := range c.rng.IntN(5) {
			op.ParamsJson = append(op.ParamsJson, fmt.Sprintf(`{"x":%d}`, i))
		}
		op.Exhausted = c.rng.IntN(200) == 0
		if s, ok := v.Sweep(id); ok {
			op.Seen, op.Source, op.Budget = c.rng.Int64N(s.Findings+2), wire.ToSource(trial.SourceSearch), s.Budget
			if q := s.Queue(); len(q) > 0 && c.rng.IntN(3) > 0 {
				op.ParamsJson, op.Source = q[:1+c.rng.IntN(len(q))], wire.ToSource(trial.SourceEnqueued)
			} else if c.rng.IntN(5) == 0 {
				for range op.ParamsJson {
					op.Origins = append(op.Origins, &atelierv1.Origin{Trial: c.rng.Int64N(known + 1), Epoch: int32(c.rng.IntN(4))})
				}
			}
		}
		cmd.Op = &logv1.Command_ProposeTrials{ProposeTrials: op}
	case p < 40:
		if s, ok := v.Sweep(id); ok && c.rng.IntN(8) > 0 {
			if w := s.Waiting(); len(w) > 0 {
				n = w[0]
			}
		}
		cmd.Op = &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: id, Trial: n, Worker: fmt.Sprintf("w%d", c.rng.IntN(3)), Incarnation: "i", Slot: "cpu0", Request: fmt.Sprintf("r%d", c.rng.IntN(40)), Final: n%2 == 0}}
		if end := c.rng.IntN(12); end > 0 && end < 8 {
			cmd.GetGrantLease().End = &logv1.LeaseEnd{Epoch: int32(end), Verdict: wire.ToVerdict(trial.Verdict(2 + end%2)), Reason: "end"}
		}
		if grouped(id) {
			g := cmd.GetGrantLease()
			for i := range 1 + c.rng.IntN(4) {
				g.Members = append(g.Members, c.member(int32(i+1)))
			}
			first := g.Members[0]
			g.Worker, g.Incarnation, g.Slot, g.Request, g.Folder = first.Worker, first.Incarnation, first.Slot, first.Request, first.Folder
		}
	case p < 44:
		cmd.Op = &logv1.Command_ChangeGroup{ChangeGroup: c.change(c.someGroup(v))}
	case p < 85:
		cmd.Op = &logv1.Command_RecordEvents{RecordEvents: c.events(v)}
	case p < 90:
		g := c.someGrant()
		cmd.Op = &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{Id: g.sweep, Trial: g.trial, Token: g.token, Cause: "late"}}
	case p < 92:
		if s, ok := v.Sweep(id); ok && c.rng.IntN(3) > 0 {
			for _, open := range s.Open() {
				if s.Trial(open).Status == trial.Paused {
					n = open
				}
			}
		}
		switch c.rng.IntN(21) {
		case 0:
			cmd.Op = &logv1.Command_EnqueueTrials{EnqueueTrials: &logv1.EnqueueTrials{Id: id, ParamsJson: []string{`{"x":-3}`}}}
		case 1:
			cmd.Op = &logv1.Command_PrioritizeSweep{PrioritizeSweep: &logv1.PrioritizeSweep{Id: id, Priority: int32(c.rng.IntN(3))}}
		case 2:
			cmd.Op = &logv1.Command_EndOverdue{EndOverdue: &logv1.EndOverdue{Id: id}}
		case 3:
			label := &logv1.LabelSweep{Id: id, AddTags: []string{fmt.Sprintf("t%d", c.rng.IntN(5))}, RemoveTags: []string{fmt.Sprintf("t%d", c.rng.IntN(5))}}
			if c.rng.IntN(2) == 0 {
				label.Name, label.Note = new(fmt.Sprintf("n%d", c.rng.IntN(3))[c.rng.IntN(3):]), new("a\nb")
			}
			cmd.Op = &logv1.Command_LabelSweep{LabelSweep: label}
		case 4, 5:
			cmd.Op = &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: wire.ToAction(trial.ActionArchive + trial.Action(c.rng.IntN(4))), Force: c.rng.IntN(4) == 0}}
		case 17, 18, 19, 20:
			alias := &logv1.SetAlias{Name: fmt.Sprintf("a%d", c.rng.IntN(4)), By: "me"}
			if s, ok := v.Sweep(id); ok && c.rng.IntN(8) > 0 {
				alias.SweepId = id
				for tr := range s.Trials(1) { // some trial with a checkpoint
					if len(tr.Checkpoints) > 0 && (alias.Trial == 0 || c.rng.IntN(3) == 0) {
						k := tr.Checkpoints[c.rng.IntN(len(tr.Checkpoints))]
						alias.Trial, alias.Epoch, alias.Token = tr.Number, k.Epoch, k.Token
					}
				}
			}
			cmd.Op = &logv1.Command_SetAlias{SetAlias: alias}
		case 14:
			cmd.Op = &logv1.Command_SetNotification{SetNotification: &logv1.SetNotification{Id: id, Url: []string{"", "http://h/x", "https://h/y", "h"}[c.rng.IntN(4)], On: []atelierv1.SweepStatus{6, 4}[:c.rng.IntN(3)]}}
		case 15, 16:
			record := &logv1.RecordNotification{Id: id, Attempt: 1, Last: c.rng.IntN(4) == 0, Error: []string{"", "no"}[c.rng.IntN(2)]}
			if s, ok := v.Sweep(id); ok {
				attempts, _ := s.PendingNotification()
				record.EndMs, record.Attempt = s.EndedMS, attempts+int32(c.rng.IntN(2))
				if s.Notification != nil {
					record.Url = s.Notification.URL
				}
			}
			cmd.Op = &logv1.Command_RecordNotification{RecordNotification: record}
		case 6:
			purge := &logv1.PurgeSweep{Id: id, DeletedMs: c.rng.Int64N(2)}
			if s, ok := v.Sweep(id); ok && id > "s-5" { // else few would be left
				purge.DeletedMs = s.DeletedMS
			}
			cmd.Op = &logv1.Command_PurgeSweep{PurgeSweep: purge}
		default:
			cmd.Op = &logv1.Command_ResumeTrial{ResumeTrial: &logv1.ResumeTrial{Id: id, Trial: n, Reason: "r"}}
		}
	case p < 94:
		cmd.Op = &logv1.Command_SetVerdict{SetVerdict: &logv1.SetVerdict{Id: id, Trial: n, Verdict: wire.ToVerdict(trial.Verdict(c.rng.IntN(4)))}}
	case p < 96:
		actions := []atelierv1.SweepAction{1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3}
		if c.rng.IntN(60) == 0 {
			actions = []atelierv1.SweepAction{4}
		}
		cmd.Op = &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: actions[c.rng.IntN(len(actions))]}}
	case p < 97:
		cmd.Op = &logv1.Command_ExtendSweep{ExtendSweep: &logv1.ExtendSweep{Id: id, AddTrials: c.rng.Int64N(9), AddEpochs: c.rng.Int64N(2) * 5, AddMs: c.rng.Int64N(2) << 20}}
	case p < 98:
		cmd.Op = &logv1.Command_RetryTrial{RetryTrial: &logv1.RetryTrial{Id: id, Trial: n}}
	case p < 99:
		cmd.Op = &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: fmt.Sprintf("w%d", c.rng.IntN(3)), Drain: c.rng.IntN(4) == 0}}
	default:
		cmd.Op = &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: fmt.Sprintf("n%d", c.rng.IntN(5)), RaftAddress: fmt.Sprint(c.rng.IntN(9)), ClusterId: "c"}}
	}
	return c.by(cmd)
}

func (c *chaos) events(v *state.View) *logv1.RecordEvents {
	e := &logv1.RecordEvents{}
	for range 1 + c.rng.IntN(6) {
		g := c.someGrant()
		if c.rng.IntN(4) == 0 {
			g = c.someGroup(v)
		}
		event := &atelierv1.RunEvent{SweepId: g.sweep, Trial: g.trial, Token: g.token}
		if grouped(g.sweep) && c.rng.IntN(30) > 0 || c.rng.IntN(30) == 0 {
			event.Member = c.someMember(v, g)
			if c.rng.IntN(3) == 0 {
				c.ofMember(event)
				e.Events = append(e.Events, event)
				continue
			}
		}
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
			event.Event = &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{Epoch: int32(c.rng.IntN(10)), Location: "shared:x", Sha256: "0", Size: int64(c.rng.IntN(9))}}
		default:
			event.Event = &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.Exit(max(c.rng.IntN(28)-14, c.rng.IntN(2)))), Message: "m"}}
			if g.trial%4 == 0 && c.rng.IntN(3) == 0 {
				event.GetEnded().Exit = wire.ToExit(trial.ExitDataMissing)
			}
		}
		e.Events = append(e.Events, event)
	}
	return e
}

// learn takes in what the machine answered and checks what an answer alone shows.
func (c *chaos) learn(t *testing.T, before *state.View, e *logv1.Entry, results []state.Result) {
	t.Helper()
	for i, r := range results {
		for _, change := range r.Changes {
			c.kinds[change.Kind]++
		}
		switch op := e.Commands[i].Op.(type) {
		case *logv1.Command_GrantLease:
			if r.Err != nil {
				break
			}
			if r.Outcome == trial.OutcomeRecorded {
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
				if r.Events[j].Outcome != trial.OutcomeRecorded {
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
	pinned := map[string]bool{}
	for _, a := range v.Aliases() {
		for _, p := range a.Places[:min(2, len(a.Places))] {
			pinned[fmt.Sprint(p.Sweep, p.Trial, p.Epoch, p.Token)] = true
		}
		if _, ok := v.Checkpoint(a.Places[0]); !ok {
			t.Fatalf("the checkpoint that alias %s names was dropped", a.Name)
		}
	}
	for _, s := range v.Sweeps() {
		var counts state.Counts
		var open, retries, fresh, ranked []int64
		var epochs, stored, protected int64
		findings := map[int64]bool{}
		for tr := range s.Trials(1) {
			counts.Proposed++
			if tr.Number != counts.Proposed {
				t.Fatalf("%s: trial %d in place %d", s.ID, tr.Number, counts.Proposed)
			}
			counts.Runs += int64(len(tr.Runs))
			counts.Reports += int64(tr.ReportCount())
			switch tr.Status {
			case trial.Waiting:
				counts.Waiting++
				if len(tr.Runs) > 0 {
					retries = append(retries, tr.Number)
				} else {
					fresh = append(fresh, tr.Number)
				}
			case trial.Running:
				counts.Running++
			case trial.Paused:
				counts.Paused++
			case trial.Finished:
				counts.Finished++
			case trial.Stopped:
				counts.Stopped++
			case trial.Diverged:
				counts.Diverged++
			case trial.Failed:
				counts.Failed++
			case trial.Cancelled:
				counts.Cancelled++
			}
			if !tr.Ended() {
				open = append(open, tr.Number)
			}
			if (tr.Lease != nil) != (tr.Status == trial.Running) {
				t.Fatalf("%s trial %d: %v with lease %v", s.ID, tr.Number, tr.Status, tr.Lease)
			}
			checkGroup(t, s, tr, held)
			if tr.Lease != nil && tr.Lease.Members == nil {
				key := tr.Lease.Worker + tr.Lease.Incarnation + tr.Lease.Request
				if held[key] {
					t.Fatalf("request %s holds two leases", key)
				}
				held[key] = true
			}
			key := trialKey{s.ID, tr.Number}
			if was, ok := c.ended[key]; ok && was != tr.Status && was != trial.Failed {
				t.Fatalf("%v went from %v to %v", key, was, tr.Status)
			}
			if tr.Ended() {
				c.ended[key] = tr.Status
			}
			epochs += tr.Trained()
			for i := range tr.Checkpoints {
				stored += tr.Checkpoints[i].Size
				if i == 0 && !tr.Ended() || s.Best() == tr || pinned[fmt.Sprint(s.ID, tr.Number, tr.Checkpoints[i].Epoch, tr.Checkpoints[i].Token)] {
					protected += tr.Checkpoints[i].Size
				}
			}
			for i, f := range tr.Findings {
				if findings[f.Ordinal] || f.Ordinal < 1 || f.Ordinal > s.Findings || i > 0 && f.Ordinal < tr.Findings[i-1].Ordinal {
					t.Fatalf("%v: findings %+v of %d", key, tr.Findings, s.Findings)
				}
				findings[f.Ordinal] = true
			}
			if last, ok := tr.Known(s.Findings); tr.Ended() && (!ok || last.Status != tr.Status || last.HasValue != tr.HasValue || last.Value != tr.Value) {
				t.Fatalf("%v is %v with %g; the last finding is %+v", key, tr.Status, tr.Value, last)
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
				acc, ok := tr.MetricAt(r.Epoch, "acc")
				if len(s.Constraints) > 0 && (!ok || !s.Constraints[0].Holds(acc)) {
					return true
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
			unnamed := 0
			for _, k := range tr.Checkpoints {
				if !pinned[fmt.Sprint(s.ID, tr.Number, k.Epoch, k.Token)] {
					unnamed++
				}
			}
			if unnamed > 2 {
				t.Fatalf("%v has %d checkpoints that no alias names", key, unnamed)
			}
		}
		if counts != s.Counts {
			t.Fatalf("%s: counts %+v, recounted %+v", s.ID, s.Counts, counts)
		}
		if epochs != s.Epochs || s.BudgetEpochs > 0 && epochs > s.BudgetEpochs {
			t.Fatalf("%s: %d epochs of %d, recounted %d", s.ID, s.Epochs, s.BudgetEpochs, epochs)
		}
		if stored != s.StoredBytes || s.CheckpointBytes > 0 && len(fresh) == 0 && stored > max(s.CheckpointBytes, protected) {
			t.Fatalf("%s: %d bytes of %d, recounted %d, of which %d must stay", s.ID, s.StoredBytes, s.CheckpointBytes, stored, protected)
		}
		if int64(len(findings)) != s.Findings {
			t.Fatalf("%s: %d findings, recounted %d", s.ID, s.Findings, len(findings))
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
		if _, purged := v.Purged(key.sweep); purged && !ok {
			continue
		}
		if !ok || s.Trial(key.trial) == nil {
			t.Fatalf("acknowledged report %v has no trial", key)
		}
	}
}
