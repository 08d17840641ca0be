package state_test

import (
	"fmt"
	"slices"
	"testing"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// grouped are the sweeps of chaos whose runs groups carry out.
func grouped(sweep string) bool { return sweep == "s-3" || sweep == "s-7" }

// member is some slot that asks.
func (c *chaos) member(id int32) *atelierv1.GroupMember {
	return &atelierv1.GroupMember{Id: id, Worker: fmt.Sprintf("w%d", c.rng.IntN(3)), Slot: fmt.Sprintf("cpu%d", c.rng.IntN(4)), Incarnation: "i", Request: fmt.Sprintf("r%d", c.rng.IntN(60))}
}

// someGroup is mostly the lease of a group that computes.
func (c *chaos) someGroup(v *state.View) grant {
	if s, ok := v.Sweep([]string{"s-3", "s-7"}[c.rng.IntN(2)]); ok && c.rng.IntN(4) > 0 {
		for _, n := range s.Open() {
			if l := s.Trial(n).Lease; l != nil && c.rng.IntN(2) == 0 {
				return grant{s.ID, n, l.Token}
			}
		}
	}
	return c.someGrant()
}

// someMember is mostly one that holds the lease, and of these the one that reports.
func (c *chaos) someMember(v *state.View, g grant) int32 {
	s, ok := v.Sweep(g.sweep)
	if !ok || c.rng.IntN(8) == 0 {
		return 1 + int32(c.rng.IntN(5))
	}
	t := s.Trial(g.trial)
	if t == nil || t.Group() == nil {
		return 1
	}
	all := t.Group().Members
	if c.rng.IntN(2) == 0 {
		return all[t.Group().Reporter()].ID
	}
	return all[c.rng.IntN(len(all))].ID
}

func (c *chaos) change(g grant) *logv1.ChangeGroup {
	change := &logv1.ChangeGroup{Id: g.sweep, Trial: g.trial, Token: g.token}
	id := func() int32 { return int32(1 + c.rng.IntN(4)) }
	what := c.rng.IntN(8) // mostly one thing
	for range c.rng.IntN(3) {
		if what < 4 {
			change.Add = append(change.Add, c.member(0))
		}
	}
	if what == 0 || what >= 4 && what < 7 {
		change.Leave = []int32{id()}
	}
	if what == 1 || what == 7 {
		change.Lost = append(change.Lost, &logv1.GroupLoss{Member: id(), Cause: "silent"})
	}
	return change
}

// ofMember is an event that only groups have.
func (c *chaos) ofMember(event *atelierv1.RunEvent) {
	if c.rng.IntN(8) == 0 {
		event.Event = &atelierv1.RunEvent_MemberEnded{MemberEnded: &atelierv1.MemberEnded{Exit: wire.ToExit(trial.Exit(c.rng.IntN(14))), Message: "m"}}
		return
	}
	v := &atelierv1.GroupView{Number: int32(c.rng.IntN(8)), Step: int64(c.rng.IntN(5)), Reason: "r"}
	for id := range int32(5) {
		if id+1 == event.Member || c.rng.IntN(2) == 0 {
			v.Members = append(v.Members, id+1)
		}
	}
	event.Event = &atelierv1.RunEvent_View{View: v}
}

// checkGroup wants of a trial's runs what group.go promises; held has the requests
// of all leases so far.
func checkGroup(t *testing.T, s *state.Sweep, tr *state.Trial, held map[string]bool) {
	t.Helper()
	for i := range tr.Runs {
		run := &tr.Runs[i]
		g := run.Group
		if (g != nil) != s.Members.Group() {
			t.Fatalf("%s trial %d run %d: group %+v, members %+v", s.ID, tr.Number, run.Number, g, s.Members)
		}
		if g == nil {
			continue
		}
		if len(g.Members) < 1 || len(g.Members) > int(g.Max) || g.Max != s.Members.Max || g.Shards != s.Shards {
			t.Fatalf("%s trial %d: group %+v", s.ID, tr.Number, g)
		}
		for j, m := range g.Members {
			if m.ID < 1 || m.ID > g.Joined || j > 0 && m.ID <= g.Members[j-1].ID {
				t.Fatalf("%s trial %d: ids of %+v, %d joined", s.ID, tr.Number, g.Members, g.Joined)
			}
			if slices.ContainsFunc(g.Members[:j], func(o trial.GroupMember) bool { return o.Name() == m.Name() }) {
				t.Fatalf("%s trial %d: slot %s twice", s.ID, tr.Number, m.Name())
			}
		}
		for j, v := range g.Views {
			if j > 0 && (v.Number <= g.Views[j-1].Number || !slices.ContainsFunc(v.Members, func(id int32) bool { return slices.Contains(g.Views[j-1].Members, id) })) {
				t.Fatalf("%s trial %d: views %+v", s.ID, tr.Number, g.Views)
			}
		}
	}
	l := tr.Lease
	if l == nil || l.Members == nil {
		if l != nil && s.Members.Group() {
			t.Fatalf("%s trial %d: a lease without members", s.ID, tr.Number)
		}
		return
	}
	run := &tr.Runs[len(tr.Runs)-1]
	if !slices.Equal(l.Members, run.Group.Members) {
		t.Fatalf("%s trial %d: the lease's members are %+v, the run's %+v", s.ID, tr.Number, l.Members, run.Group.Members)
	}
	for _, m := range l.Members {
		key := m.Worker + m.Incarnation + m.Request
		if held[key] {
			t.Fatalf("request %s holds two leases", key)
		}
		held[key] = true
	}
	if m := l.Members[run.Group.Reporter()]; m.Worker != l.Worker || m.Request != l.Request || m.Slot != l.Slot || run.Worker != m.Worker || run.Slot != m.Slot {
		t.Fatalf("%s trial %d: lease %+v, run %+v, and %+v reports", s.ID, tr.Number, l, run, m)
	}
}
