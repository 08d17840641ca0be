package trial_test

import (
	"testing"

	"atelier/common/trial"
)

// Who reports: the first of the newest view that holds the lease still.
func TestReporter(t *testing.T) {
	members := []trial.GroupMember{{ID: 2}, {ID: 3}, {ID: 5}}
	for _, c := range []struct {
		views []trial.View
		want  int
	}{
		{nil, 0},
		{[]trial.View{{Number: 1, Members: []int32{1, 2, 3}}}, 0},
		{[]trial.View{{Number: 1, Members: []int32{1, 2}}, {Number: 2, Members: []int32{1, 3, 5}}}, 1},
		{[]trial.View{{Number: 1, Members: []int32{1, 4}}}, 0}, // none of it is left
	} {
		g := &trial.RunGroup{Members: members, Views: c.views}
		if got := g.Reporter(); got != c.want {
			t.Errorf("%v: place %d, want %d", c.views, got, c.want)
		}
	}
	if got := (&trial.RunGroup{}).Reporter(); got != -1 {
		t.Errorf("of nobody: %d", got)
	}
	g := &trial.RunGroup{Members: members[:1], Ended: []trial.GroupEnd{{Member: 1, Worker: "w", Slot: "s"}}}
	if in := g.In(&trial.View{Members: []int32{1, 2, 9}}); len(in) != 2 || in[0].Name() != "w/s" || in[1].ID != 2 {
		t.Errorf("members of a view: %v", in)
	}
}

// The pace that counts is the reporting member's; of a slot that computes something
// else, and of a lost worker, there is none.
func TestPaces(t *testing.T) {
	slot := func(member int32, step float64) trial.Slot {
		return trial.Slot{Sweep: "s", Trial: 1, Member: member, Pace: &trial.Pace{Step: trial.Number(step)}}
	}
	paces := trial.PacesOf([]trial.Worker{{State: "lost", Slots: []trial.Slot{slot(2, 1)}}, {Slots: []trial.Slot{slot(3, 2), {Sweep: "s", Trial: 1, Member: 4}}}})
	g := &trial.RunGroup{Members: []trial.GroupMember{{ID: 2}, {ID: 3}, {ID: 4}}}
	if p := paces.Of("s", 1, g); p == nil || p.Step != 2 {
		t.Errorf("pace %v", p)
	}
	g.Views = []trial.View{{Number: 1, Members: []int32{2, 3}}}
	paces[trial.MemberRef{Sweep: "s", Trial: 1, Member: 2}] = &trial.Pace{Step: 3}
	if p := paces.Of("s", 1, g); p == nil || p.Step != 3 {
		t.Errorf("pace of who reports %v", p)
	}
	if p := paces.Of("s", 2, g); p != nil {
		t.Errorf("another trial's: %v", p)
	}
}
