package api_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// groupSlots are slots of one worker that ask for members' parts, by hand.
type groupSlots struct {
	t testing.TB
	c *node.Node
}

func (g groupSlots) beat(pace *atelierv1.Pace, leases ...*atelierv1.Lease) *atelierv1.HeartbeatResponse {
	req := &atelierv1.HeartbeatRequest{Worker: &atelierv1.Worker{Name: "w1", Incarnation: "w1-1", Address: "w1:7610", Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}}}
	for _, name := range []string{"cpu0", "cpu1"} {
		slot := &atelierv1.Slot{Name: name, Kind: "cpu"}
		for _, l := range leases {
			if l.Slot == name {
				slot.SweepId, slot.Trial, slot.Member, slot.Pace = l.SweepId, l.Trial, l.Group.GetMember(), pace
			}
		}
		req.Worker.Slots = append(req.Worker.Slots, slot)
	}
	for _, l := range leases {
		req.Leases = append(req.Leases, &atelierv1.LeaseRef{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Member: l.Group.GetMember()})
	}
	return coordinatortest.Call(g.t, g.c.API.Workers.Heartbeat, req)
}

func (g groupSlots) ask(slot string) *atelierv1.AcquireRequest {
	return &atelierv1.AcquireRequest{RequestId: "r-" + slot, Worker: "w1", Incarnation: "w1-1", Slot: slot, Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}, WaitMs: 5000}
}

// A run of two members, as agents and people see it through the API.
func TestAGroupThroughTheAPI(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, strings.Replace(coordinatortest.Spec(2, 2), "training: {", "training: {members: 2, shards: 4, ", 1))
	if sw.MembersMin != 2 || sw.MembersMax != 2 || sw.Shards != 4 {
		t.Fatalf("members %d to %d, %d shards", sw.MembersMin, sw.MembersMax, sw.Shards)
	}
	g := groupSlots{t, c}
	g.beat(nil)
	granted := make(chan *atelierv1.Lease, 2)
	for _, slot := range []string{"cpu0", "cpu1"} {
		go func() {
			resp, err := c.Workers.Acquire(coordinatortest.Context(t), connect.NewRequest(g.ask(slot)))
			if err != nil {
				t.Error(err)
				granted <- nil
				return
			}
			granted <- resp.Msg.Lease
		}()
	}
	leases := []*atelierv1.Lease{<-granted, <-granted}
	for i, l := range leases {
		if l == nil || len(l.Group.GetMembers()) != 2 || l.Group.Shards != 4 || l.Token != leases[0].Token || l.Group.Members[0].Address != "w1:7610" {
			t.Fatalf("lease %d: %v", i, l)
		}
		if again := coordinatortest.Call(t, c.API.Workers.Acquire, g.ask(l.Slot)).Lease; again == nil || again.Token != l.Token || again.Group.GetMember() != l.Group.Member {
			t.Errorf("asked again, slot %s has %v", l.Slot, again)
		}
	}
	slices.SortFunc(leases, func(a, b *atelierv1.Lease) int { return int(a.Group.Member - b.Group.Member) })
	answers := g.beat(&atelierv1.Pace{StepS: 0.5, Waiting: 0.25, Slowest: 2, Lag: 0.1}, leases...)
	if len(answers.Lost)+len(answers.Leave) > 0 {
		t.Errorf("heartbeat %v", answers)
	}
	of := func(member int, e *atelierv1.RunEvent) *atelierv1.RunEvent {
		e.Member = leases[member-1].Group.Member
		return e
	}
	view := func(number int32, members ...int32) *atelierv1.RunEvent {
		return &atelierv1.RunEvent{SweepId: sw.Id, Trial: leases[0].Trial, Token: leases[0].Token, Event: &atelierv1.RunEvent_View{View: &atelierv1.GroupView{Number: number, Members: members, Reason: "start"}}}
	}
	relay := func(events ...*atelierv1.RunEvent) (out []trial.Outcome) {
		for _, r := range coordinatortest.Call(t, c.API.Workers.Relay, &atelierv1.RelayRequest{Worker: "w1", Incarnation: "w1-1", Events: events}).Results {
			out = append(out, wire.Outcome(r.Outcome))
		}
		return out
	}
	if got := relay(of(1, view(1, 1, 2)), of(1, coordinatortest.Report(leases[0], 1, 0.5)), coordinatortest.Report(leases[0], 2, 0.5)); !slices.Equal(got, []trial.Outcome{trial.OutcomeRecorded, trial.OutcomeRecorded, trial.OutcomeFenced}) {
		t.Errorf("a view, a report and one of no member: %v", got)
	}
	show := func() (*trial.RunGroup, *atelierv1.Sweep) {
		tr := coordinatortest.Call(t, c.API.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: sw.Id, Trial: leases[0].Trial}).Trial
		return wire.RunGroup(tr.Runs[0].Group), c.Sweep(t, sw.Id)
	}
	if run, s := show(); run == nil || len(run.Members) != 2 || run.View() == nil || len(s.Groups) != 1 || s.Groups[0].Members != 2 || s.Groups[0].Runs != 1 {
		t.Errorf("shown %+v, %v", run, s.Groups)
	}
	resp, err := http.Get("http://" + c.Addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	for _, want := range []string{`atelier_group_runs{members="2"} 1`, "atelier_group_members 2", `atelier_group_view{sweep="` + sw.Id + `",trial="1"} 1`,
		`atelier_group_step_seconds{sweep="` + sw.Id + `",trial="1"} 0.5`, `worker="w1"} 0.1`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	// One that ends for itself is gone; the other continues.
	gone := of(2, &atelierv1.RunEvent{SweepId: sw.Id, Trial: leases[0].Trial, Token: leases[0].Token, Event: &atelierv1.RunEvent_MemberEnded{MemberEnded: &atelierv1.MemberEnded{Exit: wire.ToExit(trial.ExitOutOfMemory), Message: "m"}}})
	if got := relay(gone, of(1, view(2, 1)), of(1, coordinatortest.Ended(leases[0], trial.ExitFinished))); !slices.Equal(got, []trial.Outcome{trial.OutcomeRecorded, trial.OutcomeRecorded, trial.OutcomeRecorded}) {
		t.Errorf("a member's end, a view and the run's end: %v", got)
	}
	if run, s := show(); len(run.Ended) != 1 || run.Ended[0].Exit != trial.ExitOutOfMemory || s.Counts.Finished != 1 || len(s.Groups) != 0 {
		t.Errorf("shown %+v, %v %v", run, s.Counts, s.Groups)
	}
}
