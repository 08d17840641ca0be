package state_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

func saved(t testing.TB, v *state.View) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := v.Settled().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restoring is the commands of a restore of a stream, in parts of some bytes.
func restoring(id string, stream []byte, part int, taken int64) []*logv1.Command {
	sum := sha256.Sum256(stream)
	out := []*logv1.Command{{Op: &logv1.Command_BeginRestore{BeginRestore: &logv1.BeginRestore{Id: id, Bytes: int64(len(stream)), Sha256: sum[:], Format: state.StreamFormat, TakenMs: taken}}}}
	for at := 0; at < len(stream); at += part {
		out = append(out, &logv1.Command{Op: &logv1.Command_StageRestore{StageRestore: &logv1.StageRestore{Id: id, Offset: int64(at), Data: stream[at:min(at+part, len(stream))]}}})
	}
	return append(out, &logv1.Command{TimeMs: 1_000_000, Op: &logv1.Command_CommitRestore{CommitRestore: &logv1.CommitRestore{Id: id}}})
}

// leases returns the tokens of all leases, and newest the highest token there is.
func leases(v *state.View) (held []uint64, newest uint64) {
	for _, s := range v.Sweeps() {
		for tr := range s.Trials(1) {
			if tr.Lease != nil {
				held = append(held, tr.Lease.Token)
			}
			for _, r := range tr.Runs {
				newest = max(newest, r.Token)
			}
		}
	}
	return held, newest
}

func churn(t *testing.T, c *chaos, from, entries int, machines ...*state.Machine) (index uint64) {
	t.Helper()
	for i := range entries {
		index = uint64(from + i + 1)
		v := machines[0].View()
		e := &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v), c.command(v)}}
		results := machines[0].Apply(index, e)
		c.learn(t, v, e, results)
		for _, m := range machines[1:] {
			m.Apply(index, e)
		}
	}
	return index
}

func sameHash(t *testing.T, when string, machines ...*state.Machine) {
	t.Helper()
	for i, m := range machines[1:] {
		if m.View().Hash() != machines[0].View().Hash() {
			t.Fatalf("%s: machine %d has another hash", when, i+1)
		}
	}
}

// TestRestoreThroughTheLog restores an earlier state on three machines, one of
// which is saved and made anew between any two commands. Views of before stay,
// all leases have ended, nothing is counted as lost, and tokens grow.
func TestRestoreThroughTheLog(t *testing.T) {
	ran := 0
	for seed := range uint64(4) {
		c := newChaos(seed)
		plain, viewed, moved := state.New(), state.New(), state.New()
		at := int(churn(t, c, 0, 150, viewed, plain, moved))
		stream, then := saved(t, viewed.View()), viewed.View()
		running, _ := leases(then)
		at = int(churn(t, c, at, 150, viewed, plain, moved))
		before := viewed.View()
		hash := before.Hash()
		_, newest := leases(before)
		commands := restoring("r-1", stream, max(1, len(stream)/20), 0)
		var last state.Result
		for i, cmd := range commands {
			at++
			e := &logv1.Entry{Commands: []*logv1.Command{cmd}}
			if i == len(commands)-1 && viewed.View().Staging() != "r-1" {
				t.Fatalf("staged is %q", viewed.View().Staging())
			}
			if id, _ := viewed.View().Restored(); id != "" {
				t.Fatal("it was restored before the commit")
			}
			for _, m := range []*state.Machine{plain, viewed, moved} {
				last = m.Apply(uint64(at), e)[0]
				if last.Err != nil {
					t.Fatal(last.Err)
				}
			}
			viewed.View()
			moved = restored(t, moved.View())
			sameHash(t, fmt.Sprintf("seed %d, command %d of %d", seed, i, len(commands)), plain, viewed, moved)
		}
		if len(last.Changes) == 0 || last.Changes[0].Kind != state.Restored {
			t.Errorf("the first change of the commit is %v", last.Changes)
		}
		v := viewed.View()
		if id, index := v.Restored(); id != "r-1" || index != uint64(at) || v.Index() != uint64(at) || v.Staging() != "" {
			t.Errorf("restored %q at %d, index %d, staged %q", id, index, v.Index(), v.Staging())
		}
		if before.Hash() != hash {
			t.Error("a view of before the restore changed")
		}
		ran += len(running)
		if held, _ := leases(v); len(held) != 0 {
			t.Errorf("leases %v outlived the restore of a state with %d", held, len(running))
		}
		if len(v.Sweeps()) != len(then.Sweeps()) || v.Trials() != then.Trials() {
			t.Errorf("%d sweeps and %d trials, saved were %d and %d", len(v.Sweeps()), v.Trials(), len(then.Sweeps()), then.Trials())
		}
		ended := 0
		for _, s := range v.Sweeps() {
			old, _ := then.Sweep(s.ID)
			if s.ModifiedIndex != v.Index() {
				t.Errorf("%s was modified at %d, the restore is at %d", s.ID, s.ModifiedIndex, v.Index())
			}
			for tr := range s.Trials(1) {
				was := old.Trial(tr.Number)
				if tr.LostRuns != was.LostRuns || tr.FailedRuns != was.FailedRuns || tr.ReportCount() != was.ReportCount() {
					t.Errorf("%s trial %d: %d lost runs and %d reports, were %d and %d", s.ID, tr.Number, tr.LostRuns, tr.ReportCount(), was.LostRuns, was.ReportCount())
				}
				if n := len(tr.Runs); n > 0 && slices.Contains(running, tr.Runs[n-1].Token) {
					ended++
					if r := tr.Runs[n-1]; r.Exit != trial.ExitRestored || r.EndedMS != 1_000_000 {
						t.Errorf("%s trial %d: its run ended %v at %d", s.ID, tr.Number, r.Exit, r.EndedMS)
					}
				}
			}
		}
		if ended != len(running) {
			t.Errorf("%d of %d runs ended", ended, len(running))
		}
		// The machines go on alike, and every new token is above all of before.
		next := newChaos(seed + 100)
		for range 100 {
			at++
			e := &logv1.Entry{Commands: []*logv1.Command{next.command(plain.View()), next.command(plain.View())}}
			for i, r := range plain.Apply(uint64(at), e) {
				if e.Commands[i].GetGrantLease() != nil && r.Err == nil && r.Outcome == trial.OutcomeRecorded && r.Token <= newest {
					t.Fatalf("token %d after %d", r.Token, newest)
				}
			}
			viewed.Apply(uint64(at), e)
			moved.Apply(uint64(at), e)
		}
		sameHash(t, "afterwards", plain, viewed, moved)
		readAll(plain.View())
		sameHash(t, "saved and read again", plain, restored(t, plain.View()))
	}
	if ran == 0 {
		t.Error("no saved state had a run: the test shows nothing of them")
	}
}

// TestRestoreIntoAnotherCluster: a state of a high index comes into a new cluster
// of a low one. Tokens go on from the saved ones, no index lies in the future, the
// members and the cluster's id stay.
func TestRestoreIntoAnotherCluster(t *testing.T) {
	c := newChaos(7)
	old := state.New()
	apply := func(m *state.Machine, index uint64, commands ...*logv1.Command) []state.Result {
		t.Helper()
		return m.Apply(index, &logv1.Entry{Commands: commands})
	}
	member := func(id, cluster string) *logv1.Command {
		return &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: id, ClusterId: cluster}}}
	}
	drain := func(worker, request string) *logv1.Command {
		return &logv1.Command{RequestId: request, Op: &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: worker, Drain: true}}}
	}
	at := churn(t, c, 1_000_000, 300, old)
	apply(old, at+1, member("old-member", "c-old"), drain("bad-gpu", "d-1"))
	held, newest := leases(old.View())
	if len(held) == 0 {
		t.Fatal("nothing runs in the saved state")
	}
	fresh := state.New()
	apply(fresh, 1, member("new-member", "c-new"), drain("away", "d-2"))
	index := uint64(1)
	for _, cmd := range restoring("r-1", saved(t, old.View()), 9999, 0) {
		index++
		if r := apply(fresh, index, cmd)[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	again := restored(t, fresh.View())
	for _, m := range []*state.Machine{fresh, again} {
		v := m.View()
		if len(v.Members()) != 1 || v.Members()[0].ID != "new-member" || v.ClusterID() != "c-new" || v.Index() != index {
			t.Errorf("members %v, cluster %s, index %d", v.Members(), v.ClusterID(), v.Index())
		}
		if got := v.DrainedWorkers(); !slices.Equal(got, slices.Sorted(slices.Values(append(old.View().DrainedWorkers(), "away")))) {
			t.Errorf("drained %v", got)
		}
		for _, s := range v.Sweeps() {
			if s.ModifiedIndex > index {
				t.Errorf("%s was modified at %d, this is %d", s.ID, s.ModifiedIndex, index)
			}
		}
		if r := apply(m, index+1, drain("bad-gpu", "d-1"))[0]; r.Outcome != trial.OutcomeAlready || r.Index > index+1 {
			t.Errorf("a request remembered by the saved state: %v at %d", r.Outcome, r.Index)
		}
		granted := false
		for _, s := range m.View().Sweeps() {
			for _, n := range s.Waiting() {
				r := apply(m, m.View().Index()+1, &logv1.Command{TimeMs: 1, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: s.ID, Trial: n, Worker: "w-new", Incarnation: "i", Slot: "0", Request: fmt.Sprint("r-", s.ID, n)}}})[0]
				if r.Err == nil && r.Token <= newest {
					t.Fatalf("token %d, there was %d", r.Token, newest)
				}
				granted = granted || r.Err == nil
			}
		}
		if !granted {
			t.Error("no trial of the restored state can be given out")
		}
	}
	sameHash(t, "after grants", fresh, again)
}

// TestBadRestoreChangesNothing: whatever is wrong, the command is refused, what
// was staged is gone and the state is what it was.
func TestBadRestoreChangesNothing(t *testing.T) {
	c := newChaos(5)
	m := state.New()
	at := churn(t, c, 0, 200, m)
	stream := saved(t, m.View())
	other := saved(t, state.New().View())
	begin := func(id string, stream []byte) *logv1.Command { return restoring(id, stream, len(stream), 0)[0] }
	stage := func(id string, offset int, data []byte) *logv1.Command {
		return &logv1.Command{Op: &logv1.Command_StageRestore{StageRestore: &logv1.StageRestore{Id: id, Offset: int64(offset), Data: data}}}
	}
	commit := func(id string) *logv1.Command {
		return &logv1.Command{TimeMs: 1, Op: &logv1.Command_CommitRestore{CommitRestore: &logv1.CommitRestore{Id: id}}}
	}
	half := len(stream) / 2
	flipped := bytes.Clone(stream)
	flipped[half] ^= 0x20
	inner := restored(t, m.View())
	inner.Apply(at+1, &logv1.Entry{Commands: []*logv1.Command{begin("x", other), stage("x", 0, other)}})
	var nested bytes.Buffer
	inner.View().WriteTo(&nested)
	cases := map[string][]*logv1.Command{
		"nothing was begun":          {commit("r")},
		"no id":                      {begin("", stream)},
		"no bytes":                   {begin("r", nil)},
		"half of it":                 {begin("r", stream), stage("r", 0, stream[:half]), commit("r")},
		"a part is missing":          {begin("r", stream), stage("r", 0, stream[:half]), stage("r", half+1, stream[half+1:])},
		"an empty part":              {begin("r", stream), stage("r", 0, nil)},
		"more than was said":         {begin("r", stream), stage("r", 0, append(bytes.Clone(stream), 0))},
		"a part too large":           {begin("r", stream), stage("r", 0, make([]byte, 256<<10+1))},
		"another one was begun":      {begin("r", stream), begin("q", other), stage("r", 0, stream)},
		"given up":                   {begin("r", stream), {Op: &logv1.Command_AbortRestore{AbortRestore: &logv1.AbortRestore{}}}, stage("r", 0, stream)},
		"another hash":               {begin("r", other), stage("r", 0, append(bytes.Clone(other[:len(other)-1]), other[len(other)-1]^1)), commit("r")},
		"a flipped bit":              {begin("r", stream), stage("r", 0, flipped), commit("r")},
		"its own hash, but no state": {begin("r", flipped[half:]), stage("r", 0, flipped[half:]), commit("r")},
		"a stream cut short":         {begin("r", stream[:half]), stage("r", 0, stream[:half]), commit("r")},
		"something behind it":        {begin("r", append(bytes.Clone(other), 9)), stage("r", 0, append(bytes.Clone(other), 9)), commit("r")},
		"a restore within":           {begin("r", nested.Bytes()), stage("r", 0, nested.Bytes()), commit("r")},
	}
	if len(stream) > 256<<10 {
		t.Fatalf("%d bytes do not fit into one part", len(stream))
	}
	for name, commands := range cases {
		m := restored(t, m.View())
		var want bytes.Buffer
		m.View().WriteTo(&want)
		var last state.Result
		for i, cmd := range commands {
			last = m.Apply(at+uint64(i)+1, &logv1.Entry{Commands: []*logv1.Command{cmd}})[0]
		}
		if last.Err == nil {
			t.Errorf("%s: it was taken", name)
		}
		m.Apply(at+100, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_AbortRestore{AbortRestore: &logv1.AbortRestore{}}}}})
		reference := restored(t, m.View())
		if err := reference.Restore(&want); err != nil {
			t.Fatal(err)
		}
		reference.Apply(at+100, &logv1.Entry{})
		sameHash(t, name, m, reference)
		if name != "another one was begun" && m.View().Staging() != "" {
			t.Errorf("%s: %s stays staged", name, m.View().Staging())
		}
	}
}

// TestRestoreIsRepeatable: every command of a restore may come twice, as after an
// answer that was lost.
func TestRestoreIsRepeatable(t *testing.T) {
	c := newChaos(9)
	m := state.New()
	at := churn(t, c, 0, 200, m)
	commands := restoring("r", saved(t, m.View()), 5000, 0)
	for i, cmd := range commands {
		for again := range 2 {
			at++
			r := m.Apply(at, &logv1.Entry{Commands: []*logv1.Command{cmd}})[0]
			if r.Err != nil || again == 1 && i > 0 && r.Outcome != trial.OutcomeAlready {
				t.Fatalf("command %d, time %d: %v %v", i, again, r.Outcome, r.Err)
			}
		}
	}
	if r := m.Apply(at+1, &logv1.Entry{Commands: []*logv1.Command{commands[0]}})[0]; r.Outcome != trial.OutcomeAlready || m.View().Staging() != "" {
		t.Errorf("a restore that is done was begun again: %v", r)
	}
}

// A sweep with a budget of time has not used up what went by since it was saved.
func TestRestoreDoesNotUseTime(t *testing.T) {
	m := state.New()
	apply := func(index uint64, cmd *logv1.Command) {
		t.Helper()
		if r := m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{cmd}})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	apply(1, &logv1.Command{TimeMs: 1000, Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s", Objective: wire.ToObjective(trial.Objective{Metric: "loss"}),
		BudgetMs: 60_000, Parallelism: 1}}})
	for i, cmd := range restoring("r", saved(t, m.View()), 100, 11_000) { // committed at 1,000,000
		apply(uint64(i)+2, cmd)
	}
	s, _ := m.View().Sweep("s")
	if got := s.Spent(1_000_000); got != 10_000 || s.Overdue(1_000_000) {
		t.Errorf("it has spent %d ms of 60,000, it ran for 10,000", got)
	}
}

// A checkpoint whose file is gone is given up by whoever finds out, once, and no
// other.
func TestLostCheckpointIsGivenUp(t *testing.T) {
	m := state.New()
	index := uint64(0)
	apply := func(cmd *logv1.Command) state.Result {
		t.Helper()
		index++
		r := m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{cmd}})[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r
	}
	event := func(e *atelierv1.RunEvent) state.EventResult {
		return apply(&logv1.Command{TimeMs: 1, Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{e}}}}).Events[0]
	}
	apply(&logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s", Objective: wire.ToObjective(trial.Objective{Metric: "loss"}), BudgetTrials: 1, Parallelism: 1}}})
	apply(&logv1.Command{TimeMs: 1, Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s", First: 1, ParamsJson: []string{"{}"}}}})
	token := apply(&logv1.Command{TimeMs: 1, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s", Trial: 1, Worker: "w", Incarnation: "i", Slot: "0", Request: "r"}}}).Token
	for epoch := int32(1); epoch <= 2; epoch++ {
		event(&atelierv1.RunEvent{SweepId: "s", Trial: 1, Token: token, Event: &atelierv1.RunEvent_Report{Report: oneReport(int(epoch), float64(epoch))}})
		event(&atelierv1.RunEvent{SweepId: "s", Trial: 1, Token: token, Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{Epoch: epoch, Size: 10, Location: fmt.Sprint("l", epoch), HasMetric: true, Metric: float64(epoch)}}})
	}
	lost := func(epoch int32, location string, token uint64) state.EventResult {
		return event(&atelierv1.RunEvent{SweepId: "s", Trial: 1, Token: token, Event: &atelierv1.RunEvent_CheckpointLost{CheckpointLost: &atelierv1.CheckpointLost{Epoch: epoch, Location: location, Worker: "other"}}})
	}
	epochs := func() (out []int32) {
		s, _ := m.View().Sweep("s")
		if s.StoredBytes != 10*int64(len(s.Trial(1).Checkpoints)) {
			t.Errorf("%d bytes stored in %d checkpoints", s.StoredBytes, len(s.Trial(1).Checkpoints))
		}
		for _, c := range s.Trial(1).Checkpoints {
			out = append(out, c.Epoch)
		}
		return out
	}
	for _, r := range []state.EventResult{lost(2, "l1", token), lost(2, "l2", token+1), lost(3, "l3", token)} {
		if r.Outcome != trial.OutcomeAlready {
			t.Errorf("another file is said to be gone: %v", r)
		}
	}
	if got := epochs(); !slices.Equal(got, []int32{2, 1}) {
		t.Fatalf("checkpoints of epochs %v", got)
	}
	if r := lost(2, "l2", token); r.Outcome != trial.OutcomeRecorded {
		t.Errorf("%v", r)
	}
	if r := lost(2, "l2", token); r.Outcome != trial.OutcomeAlready {
		t.Errorf("a second time: %v", r)
	}
	if got := epochs(); !slices.Equal(got, []int32{1}) {
		t.Errorf("checkpoints of epochs %v", got)
	}
}
