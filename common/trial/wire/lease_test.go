package wire_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// filled sets every field of a message.
func filled[M proto.Message](m M) M {
	next := 0
	fill(m.ProtoReflect(), &next)
	return m
}

func TestEveryFieldOfALeaseIsCarried(t *testing.T) {
	lease, ref, result := filled(&atelierv1.Lease{}), filled(&atelierv1.LeaseRef{}), filled(&atelierv1.EventResult{})
	heartbeat, answer := filled(&atelierv1.HeartbeatRequest{}), filled(&atelierv1.HeartbeatResponse{})
	for _, x := range []struct {
		m       proto.Message
		convert func() any
	}{
		{lease, func() any { return wire.Lease(lease) }},
		{ref, func() any { return wire.LeaseRef(ref) }},
		{result, func() any { return wire.EventResult(result) }},
		{heartbeat, func() any { return wire.Heartbeat(heartbeat) }},
		{answer, func() any { return wire.HeartbeatAnswer(answer) }},
	} {
		if got := missing(x.m.ProtoReflect(), "", x.convert); len(got) > 0 {
			t.Errorf("%s: %q are not carried", x.m.ProtoReflect().Descriptor().Name(), got)
		}
	}
	for _, x := range [][2]proto.Message{{ref, wire.ToLeaseRef(wire.LeaseRef(ref))}, {lease, wire.ToLease(new(wire.Lease(lease)))},
		{heartbeat, wire.ToHeartbeat(wire.Heartbeat(heartbeat))}, {answer, wire.ToHeartbeatAnswer(wire.HeartbeatAnswer(answer))}} {
		if !proto.Equal(x[0], x[1]) {
			t.Errorf("%v came back as %v", x[0], x[1])
		}
	}
	if wire.ToLease(nil) != nil {
		t.Error("a lease that there is not")
	}
}

// Each kind of event, in one batch, with all that its message has.
func TestEvents(t *testing.T) {
	report, other := filled(&atelierv1.Report{}), &atelierv1.Report{Epoch: 9, Metrics: []*atelierv1.Metric{{Name: "a", Value: 1}, {Name: "b", Value: 2}}}
	checkpoint, ended, lost := filled(&atelierv1.Checkpoint{}), filled(&atelierv1.RunEnded{}), filled(&atelierv1.CheckpointLost{})
	gone, view := filled(&atelierv1.MemberEnded{}), filled(&atelierv1.GroupView{})
	want := []*atelierv1.RunEvent{
		{Event: &atelierv1.RunEvent_Report{Report: other}},
		{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: checkpoint}},
		{Event: &atelierv1.RunEvent_Report{Report: report}},
		{Event: &atelierv1.RunEvent_Ended{Ended: ended}},
		{Event: &atelierv1.RunEvent_CheckpointLost{CheckpointLost: lost}},
		{Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: 1}}},
		{Event: &atelierv1.RunEvent_MemberEnded{MemberEnded: gone}},
		{Event: &atelierv1.RunEvent_View{View: view}},
	}
	kinds := (&atelierv1.RunEvent{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields().Len()
	if kinds != 6 {
		t.Errorf("there are %d kinds of events, this test has 6", kinds)
	}
	var batch []trial.Event
	for i, p := range want {
		p.SweepId, p.Trial, p.Token, p.Member = "s-a", int64(i), uint64(100+i), int32(200+i)
		e := trial.Event{LeaseRef: trial.LeaseRef{Sweep: p.SweepId, Trial: p.Trial, Token: p.Token, Member: p.Member}}
		switch {
		case p.GetReport() != nil:
			e.Report = new(wire.Report(p.GetReport()))
		case p.GetCheckpoint() != nil:
			e.Checkpoint = new(wire.Checkpoint(p.GetCheckpoint()))
		case p.GetEnded() != nil:
			e.Ended = &trial.Ended{Exit: wire.Exit(ended.Exit), Message: ended.Message, TimeMS: ended.TimeMs}
		case p.GetMemberEnded() != nil:
			e.MemberEnded = &trial.Ended{Exit: wire.Exit(gone.Exit), Message: gone.Message, TimeMS: gone.TimeMs}
		case p.GetView() != nil:
			e.View = new(wire.View(view))
		default:
			e.Lost = &trial.LostCheckpoint{Epoch: lost.Epoch, Location: trial.Location(lost.Location), Worker: lost.Worker}
		}
		batch = append(batch, e)
	}
	if got := wire.ToEvents(batch); !slices.EqualFunc(got, want, func(a, b *atelierv1.RunEvent) bool { return proto.Equal(a, b) }) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The way of all results is not paved with garbage.
func TestReportsTakeFewAllocations(t *testing.T) {
	batch := make([]trial.Event, 256)
	for i := range batch {
		batch[i].Report = &trial.Report{Epoch: 1, Metrics: trial.Metrics{{Name: "loss", Value: 1}, {Name: "val_loss", Value: 2}}}
	}
	if n := testing.AllocsPerRun(10, func() { wire.ToEvents(batch) }); n > 5 {
		t.Errorf("%v allocations for a batch of reports, want 5", n)
	}
}
