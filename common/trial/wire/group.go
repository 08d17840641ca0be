package wire

import (
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// RunGroup is the group of a run; nil where one slot carries it out alone.
func RunGroup(g *atelierv1.RunGroup) *trial.RunGroup {
	if g == nil {
		return nil
	}
	return &trial.RunGroup{Min: g.GetMin(), Max: g.GetMax(), Shards: g.GetShards(), Members: List(g.GetMembers(), GroupMember), Views: List(g.GetViews(), View),
		Joined: g.GetJoined(), Ended: List(g.GetEnded(), groupEnd)}
}

// ToRunGroup is RunGroup's inverse.
func ToRunGroup(g *trial.RunGroup) *atelierv1.RunGroup {
	if g == nil {
		return nil
	}
	return &atelierv1.RunGroup{Min: g.Min, Max: g.Max, Shards: g.Shards, Members: each(g.Members, ToGroupMember), Views: each(g.Views, ToView),
		Joined: g.Joined, Ended: each(g.Ended, toGroupEnd)}
}

// GroupMember is one slot's part in a run.
func GroupMember(m *atelierv1.GroupMember) trial.GroupMember {
	return trial.GroupMember{ID: m.GetId(), Worker: m.GetWorker(), Slot: m.GetSlot(), Incarnation: m.GetIncarnation(), Request: m.GetRequest(), Folder: m.GetFolder(),
		GrantedMS: m.GetGrantedMs(), Leaving: m.GetLeaving(), Address: m.GetAddress()}
}

// ToGroupMember is GroupMember's inverse.
func ToGroupMember(m trial.GroupMember) *atelierv1.GroupMember {
	return &atelierv1.GroupMember{Id: m.ID, Worker: m.Worker, Slot: m.Slot, Incarnation: m.Incarnation, Request: m.Request, Folder: m.Folder,
		GrantedMs: m.GrantedMS, Leaving: m.Leaving, Address: m.Address}
}

// View is who computes together from a step on.
func View(v *atelierv1.GroupView) trial.View {
	return trial.View{Number: v.GetNumber(), Members: slices.Clone(v.GetMembers()), TimeMS: v.GetTimeMs(), Step: v.GetStep(), Reason: v.GetReason(), PauseMS: v.GetPauseMs()}
}

// ToView is View's inverse.
func ToView(v trial.View) *atelierv1.GroupView {
	return &atelierv1.GroupView{Number: v.Number, Members: v.Members, TimeMs: v.TimeMS, Step: v.Step, Reason: v.Reason, PauseMs: v.PauseMS}
}

func groupEnd(e *atelierv1.GroupEnd) trial.GroupEnd {
	return trial.GroupEnd{Member: e.GetMember(), Worker: e.GetWorker(), Slot: e.GetSlot(), Exit: Exit(e.GetExit()), Message: e.GetMessage(), TimeMS: e.GetTimeMs()}
}

func toGroupEnd(e trial.GroupEnd) *atelierv1.GroupEnd {
	return &atelierv1.GroupEnd{Member: e.Member, Worker: e.Worker, Slot: e.Slot, Exit: ToExit(e.Exit), Message: e.Message, TimeMs: e.TimeMS}
}

// leaseGroup is what a member has to know of its group; nil where there is none.
func leaseGroup(g *atelierv1.Group) *trial.Group {
	if g == nil {
		return nil
	}
	return &trial.Group{Member: g.GetMember(), Members: each(g.GetMembers(), GroupMember), Join: g.GetJoin(), Min: g.GetMin(), Max: g.GetMax(), Shards: g.GetShards()}
}

func toLeaseGroup(g *trial.Group) *atelierv1.Group {
	if g == nil {
		return nil
	}
	return &atelierv1.Group{Member: g.Member, Members: each(g.Members, ToGroupMember), Join: g.Join, Min: g.Min, Max: g.Max, Shards: g.Shards}
}

func pace(p *atelierv1.Pace) *trial.Pace {
	if p == nil {
		return nil
	}
	return &trial.Pace{Step: trial.Number(p.GetStepS()), Waiting: trial.Number(p.GetWaiting()), Slowest: p.GetSlowest(), Lag: trial.Number(p.GetLag())}
}

func toPace(p *trial.Pace) *atelierv1.Pace {
	if p == nil {
		return nil
	}
	return &atelierv1.Pace{StepS: float64(p.Step), Waiting: float64(p.Waiting), Slowest: p.Slowest, Lag: float64(p.Lag)}
}
