package wire

import (
	"encoding/json"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// From the schema: what a worker gets.

// Lease is what a worker has to know to carry out a run: durations come in milliseconds, documents
// as they are.
func Lease(l *atelierv1.Lease) trial.Lease {
	return trial.Lease{LeaseRef: trial.LeaseRef{Sweep: l.GetSweepId(), Trial: l.GetTrial(), Token: l.GetToken(), Member: l.GetGroup().GetMember()}, Kind: Kind(l.GetKind()), Run: l.GetRun(), Slot: l.GetSlot(),
		Trainer: l.GetTrainer(), Params: json.RawMessage(l.GetParamsJson()), Training: json.RawMessage(l.GetTrainingJson()), Seed: l.GetSeed(),
		Objective: Objective(l.GetObjective()), Checkpoints: List(l.GetCheckpoints(), Checkpoint), Origin: Origin(l.GetOrigin()), BaseDir: l.GetBaseDir(), LastEpoch: l.GetLastEpoch(),
		TTL: time.Duration(l.GetTtlMs()) * time.Millisecond, EndEpoch: l.GetEndEpoch(), EndVerdict: Verdict(l.GetEndVerdict()), EndReason: l.GetEndReason(),
		Group: leaseGroup(l.GetGroup())}
}

// LeaseRef names a lease: sweep, trial and token, of a group the member too.
func LeaseRef(l *atelierv1.LeaseRef) trial.LeaseRef {
	return trial.LeaseRef{Sweep: l.GetSweepId(), Trial: l.GetTrial(), Token: l.GetToken(), Member: l.GetMember()}
}

// HeartbeatAnswer is what a leader tells a worker of its leases, and which cluster it is.
func HeartbeatAnswer(a *atelierv1.HeartbeatResponse) trial.HeartbeatAnswer {
	return trial.HeartbeatAnswer{TTL: time.Duration(a.GetTtlMs()) * time.Millisecond, Lost: each(a.GetLost(), LeaseRef), Verdicts: each(a.GetVerdicts(), leaseVerdict), Leave: each(a.GetLeave(), LeaseRef),
		Drain: a.GetDrain(), Coordinators: a.GetCoordinators(), Dropped: each(a.GetDropped(), location), Refused: a.GetRefused(), Final: a.GetFinal(),
		Cluster: a.GetCluster().GetId(), FormerClusters: a.GetCluster().GetFormerIds()}
}

func leaseVerdict(v *atelierv1.LeaseVerdict) trial.LeaseVerdict {
	return trial.LeaseVerdict{Lease: LeaseRef(v.GetLease()), Verdict: Verdict(v.GetVerdict()), Reason: v.GetReason()}
}

func location(text string) trial.Location { return trial.Location(text) }

// EventResult is what became of one event, and what is kept of its trial's checkpoints.
func EventResult(r *atelierv1.EventResult) trial.EventResult {
	return trial.EventResult{Outcome: Outcome(r.GetOutcome()), Verdict: Verdict(r.GetVerdict()), Message: r.GetMessage(), Kept: each(r.GetKept(), location)}
}

// each is nil for what is empty: what workers and coordinators say to one another
// is not printed.
func each[A, B any](all []A, one func(A) B) []B {
	if len(all) == 0 {
		return nil
	}
	return List(all, one)
}

// And what a coordinator hears and answers.

// Heartbeat is what a worker says of itself and which leases it holds.
func Heartbeat(h *atelierv1.HeartbeatRequest) trial.Heartbeat {
	return trial.Heartbeat{Worker: Worker(h.GetWorker()), Leases: each(h.GetLeases(), LeaseRef), Folder: h.GetFolder(), Admitted: h.GetAdmitted(), Cluster: h.GetClusterId()}
}

// ToHeartbeatAnswer is HeartbeatAnswer's inverse.
func ToHeartbeatAnswer(a trial.HeartbeatAnswer) *atelierv1.HeartbeatResponse {
	return &atelierv1.HeartbeatResponse{TtlMs: a.TTL.Milliseconds(), Lost: each(a.Lost, ToLeaseRef), Verdicts: each(a.Verdicts, toLeaseVerdict), Leave: each(a.Leave, ToLeaseRef), Drain: a.Drain,
		Coordinators: a.Coordinators, Dropped: each(a.Dropped, func(l trial.Location) string { return string(l) }), Refused: a.Refused, Final: a.Final,
		Cluster: &atelierv1.ClusterIdentity{Id: a.Cluster, FormerIds: a.FormerClusters}}
}

func toLeaseVerdict(v trial.LeaseVerdict) *atelierv1.LeaseVerdict {
	return &atelierv1.LeaseVerdict{Lease: ToLeaseRef(v.Lease), Verdict: ToVerdict(v.Verdict), Reason: v.Reason}
}

// ToLease is nil where there is none.
func ToLease(l *trial.Lease) *atelierv1.Lease {
	if l == nil {
		return nil
	}
	return &atelierv1.Lease{SweepId: l.Sweep, Trial: l.Trial, Token: l.Token, Kind: ToKind(l.Kind), Run: l.Run, Slot: l.Slot, Trainer: l.Trainer,
		ParamsJson: string(l.Params), TrainingJson: string(l.Training), Seed: l.Seed, Objective: ToObjective(l.Objective), Checkpoints: each(l.Checkpoints, ToCheckpoint),
		Origin: ToOrigin(l.Origin), BaseDir: l.BaseDir, LastEpoch: l.LastEpoch, TtlMs: l.TTL.Milliseconds(), EndEpoch: l.EndEpoch, EndVerdict: ToVerdict(l.EndVerdict), EndReason: l.EndReason,
		Group: toLeaseGroup(l.Group)}
}

// To the schema: what a worker says.

// ToLeaseRef is LeaseRef's inverse.
func ToLeaseRef(l trial.LeaseRef) *atelierv1.LeaseRef {
	return &atelierv1.LeaseRef{SweepId: l.Sweep, Trial: l.Trial, Token: l.Token, Member: l.Member}
}

// ToHeartbeat is Heartbeat's inverse.
func ToHeartbeat(h trial.Heartbeat) *atelierv1.HeartbeatRequest {
	return &atelierv1.HeartbeatRequest{Worker: ToWorker(h.Worker), Leases: each(h.Leases, ToLeaseRef), Folder: h.Folder, Admitted: h.Admitted, ClusterId: h.Cluster}
}

// ToEvents makes the events of a batch. All results of a cluster go this way, up
// to thousands a second: a batch of reports takes five allocations, however many
// they are.
func ToEvents(all []trial.Event) []*atelierv1.RunEvent {
	var reports, metrics int
	for i := range all {
		if r := all[i].Report; r != nil {
			reports++
			metrics += len(r.Metrics)
		}
	}
	out := make([]*atelierv1.RunEvent, len(all))
	events := make([]atelierv1.RunEvent, len(all))
	reported := make([]struct {
		event  atelierv1.RunEvent_Report
		report atelierv1.Report
	}, reports)
	values := make([]atelierv1.Metric, metrics)
	pointers := make([]*atelierv1.Metric, metrics)
	for i := range all {
		e, p := &all[i], &events[i]
		p.SweepId, p.Trial, p.Token, p.Member = e.Sweep, e.Trial, e.Token, e.Member
		switch {
		case e.Report != nil:
			n := len(e.Report.Metrics)
			for j, m := range e.Report.Metrics {
				values[j].Name, values[j].Value = m.Name, m.Value
				pointers[j] = &values[j]
			}
			r := &reported[0]
			r.report.Epoch, r.report.TimeMs, r.report.Data, r.report.Metrics = e.Report.Epoch, e.Report.TimeMS, e.Report.Data, pointers[:n:n]
			r.event.Report = &r.report
			p.Event = &r.event
			reported, values, pointers = reported[1:], values[n:], pointers[n:]
		case e.Checkpoint != nil:
			p.Event = &atelierv1.RunEvent_Checkpoint{Checkpoint: ToCheckpoint(*e.Checkpoint)}
		case e.Ended != nil:
			p.Event = &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: ToExit(e.Ended.Exit), Message: e.Ended.Message, TimeMs: e.Ended.TimeMS}}
		case e.Lost != nil:
			p.Event = &atelierv1.RunEvent_CheckpointLost{CheckpointLost: &atelierv1.CheckpointLost{Epoch: e.Lost.Epoch, Location: string(e.Lost.Location), Worker: e.Lost.Worker}}
		case e.MemberEnded != nil:
			p.Event = &atelierv1.RunEvent_MemberEnded{MemberEnded: &atelierv1.MemberEnded{Exit: ToExit(e.MemberEnded.Exit), Message: e.MemberEnded.Message, TimeMs: e.MemberEnded.TimeMS}}
		case e.View != nil:
			p.Event = &atelierv1.RunEvent_View{View: ToView(*e.View)}
		}
		out[i] = p
	}
	return out
}
