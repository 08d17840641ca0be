package wire

import (
	"encoding/json"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// From the schema: what a worker gets.

func Lease(l *atelierv1.Lease) trial.Lease {
	return trial.Lease{LeaseRef: trial.LeaseRef{Sweep: l.GetSweepId(), Trial: l.GetTrial(), Token: l.GetToken()}, Kind: Kind(l.GetKind()), Run: l.GetRun(), Slot: l.GetSlot(),
		Trainer: l.GetTrainer(), Params: json.RawMessage(l.GetParamsJson()), Training: json.RawMessage(l.GetTrainingJson()), Seed: l.GetSeed(),
		Objective: Objective(l.GetObjective()), Checkpoints: Checkpoints(l.GetCheckpoints()), Origin: Origin(l.GetOrigin()), BaseDir: l.GetBaseDir(), LastEpoch: l.GetLastEpoch(),
		TTL: time.Duration(l.GetTtlMs()) * time.Millisecond, EndEpoch: l.GetEndEpoch(), EndVerdict: Verdict(l.GetEndVerdict()), EndReason: l.GetEndReason()}
}

func LeaseRef(l *atelierv1.LeaseRef) trial.LeaseRef {
	return trial.LeaseRef{Sweep: l.GetSweepId(), Trial: l.GetTrial(), Token: l.GetToken()}
}

func EventResult(r *atelierv1.EventResult) trial.EventResult {
	out := trial.EventResult{Outcome: Outcome(r.GetOutcome()), Verdict: Verdict(r.GetVerdict()), Message: r.GetMessage()}
	for _, location := range r.GetKept() {
		out.Kept = append(out.Kept, trial.Location(location))
	}
	return out
}

// To the schema: what a worker says.

func ToLeaseRef(l trial.LeaseRef) *atelierv1.LeaseRef {
	return &atelierv1.LeaseRef{SweepId: l.Sweep, Trial: l.Trial, Token: l.Token}
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
		p.SweepId, p.Trial, p.Token = e.Sweep, e.Trial, e.Token
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
		}
		out[i] = p
	}
	return out
}
