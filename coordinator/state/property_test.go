package state_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

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
	seen := map[state.ChangeKind]int{}
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
					before := moved.View()
					moved = restored(t, before)
					for _, d := range state.Differences(before, moved.View()) {
						t.Errorf("entry %d, saved and restored: %s", index, d)
					}
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
			for kind, n := range c.kinds {
				seen[kind] += n
			}
		})
	}
	for _, kind := range []state.ChangeKind{state.MemberJoined, state.MemberLeaving, state.MemberGone, state.ViewRecorded} {
		if !testing.Short() && seen[kind] < 10 {
			t.Errorf("the commands did too little to show anything: %d times %s", seen[kind], kind)
		}
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
	if r := drain(4); r.Outcome != trial.OutcomeAlready || r.Index != 5 {
		t.Errorf("request 4 is still remembered: %+v", r)
	}
	if r := drain(0); r.Outcome == trial.OutcomeAlready || !m.View().Drained("w") {
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
				readAll(v)
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

// readAll touches everything a reader of a View may touch.
func readAll(v *state.View) {
	for _, s := range v.Sweeps() {
		s.Proto(5)
		s.Leaderboard(5)
		s.Waiting()
		for tr := range s.Trials(1) {
			tr.Proto(s)
			tr.Reports(func(r state.Report) bool { r.Proto(); return true })
		}
	}
	v.Members()
}
