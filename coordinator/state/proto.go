package state

import (
	"cmp"
	"fmt"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Proto returns the sweep as the API speaks of it; now, in Unix milliseconds,
// is for how long it has run.
func (s *Sweep) Proto(now int64) *atelierv1.Sweep {
	p := &atelierv1.Sweep{
		Id: s.ID, Name: s.Name, Kind: wire.ToKind(s.Kind), Status: wire.ToSweepStatus(s.Status), Failure: s.Failure, SpecYaml: s.SpecYAML, SpecJson: s.SpecJSON, Seed: s.Seed,
		Objective: wire.ToObjective(s.Objective), SearchMethod: s.SearchMethod, Algorithm: s.Algorithm, Trainer: s.Trainer,
		BudgetTrials: s.Budget, Parallelism: s.Parallelism, Exhausted: s.Exhausted, CreatedMs: s.CreatedMS, EndedMs: s.EndedMS,
		Counts: s.Counts.Proto(), DefaultDir: s.BaseDir, MaxRetries: s.MaxRetries,
		BudgetEpochs: s.BudgetEpochs, BudgetMs: s.BudgetMS, CheckpointBytes: s.CheckpointBytes, Priority: s.Priority,
		StoppingJson: s.StoppingJSON, WarmStart: s.WarmStart, WarmTrials: int64(len(s.WarmTrials)), Enqueued: int64(len(s.Queue())),
		Epochs: s.Epochs, SpentMs: s.Spent(now), Ending: s.Ending, StoredBytes: s.StoredBytes, Findings: s.Findings,
		Tags: s.Tags, UserNote: s.UserNote, ArchivedMs: s.ArchivedMS, DeletedMs: s.DeletedMS, PurgeMs: s.PurgeMS(),
		MembersMin: s.Members.Min, MembersMax: s.Members.Max, Shards: s.Shards,
	}
	for _, g := range s.GroupSizes() {
		p.Groups = append(p.Groups, &atelierv1.GroupSize{Members: g.Members, Runs: g.Runs})
	}
	if p.Notification = wire.ToNotification(s.Notification); p.Notification != nil {
		p.Notification.Url = trial.HookHost(p.Notification.Url)
	}
	for _, o := range s.Objectives {
		p.Objectives = append(p.Objectives, wire.ToObjective(o))
	}
	for _, c := range s.Constraints {
		p.Constraints = append(p.Constraints, wire.ToConstraint(c))
	}
	for _, q := range s.Requires {
		if p.Requires == nil {
			p.Requires = map[string]string{}
		}
		p.Requires[q.Key] = q.Value
	}
	if best := s.Best(); best != nil {
		p.Best = best.Proto(s)
	}
	return p
}

// Proto returns the counts as the API speaks of them: those kept up with each change, not counted now.
func (c Counts) Proto() *atelierv1.SweepCounts {
	return &atelierv1.SweepCounts{Proposed: c.Proposed, Waiting: c.Waiting, Running: c.Running, Paused: c.Paused, Finished: c.Finished,
		Stopped: c.Stopped, Diverged: c.Diverged, Failed: c.Failed, Cancelled: c.Cancelled, Runs: c.Runs, Reports: c.Reports}
}

// Proto returns the trial as the API speaks of it, without its curve.
func (t *Trial) Proto(s *Sweep) *atelierv1.Trial {
	p := &atelierv1.Trial{
		SweepId: s.ID, Number: t.Number, Status: wire.ToStatus(t.Status), ParamsJson: t.ParamsJSON, HasValue: t.HasValue, Value: t.Value, ValueEpoch: t.ValueEpoch, Epoch: t.Epoch(),
		CreatedMs: t.CreatedMS, StartedMs: t.StartedMS, EndedMs: t.EndedMS, Failure: t.Failure, Verdict: wire.ToVerdict(t.Verdict), StopReason: t.StopReason,
		Source: wire.ToSource(t.Source), ProposedSeen: t.ProposedSeen, Pauses: t.Pauses, Origin: wire.ToOrigin(t.Origin),
	}
	if t.Status == trial.Waiting && (t.lastExit() == trial.ExitDataMissing || t.lastExit() == trial.ExitBadSpec) {
		last := &t.Runs[len(t.Runs)-1]
		p.Note = cut(fmt.Sprintf("waits for another worker: %s gave it back: %s", last.Worker, last.Message))
	}
	for i := range t.Findings {
		p.Findings = append(p.Findings, t.Findings[i].Proto())
	}
	p.Infeasible = (len(s.Objectives) > 1 || len(s.Constraints) > 0) && s.Infeasible(t)
	for _, metric := range s.Reported(t) {
		p.Metrics = append(p.Metrics, &atelierv1.Metric{Name: metric.Name, Value: metric.Value})
	}
	for i := range t.Runs {
		p.Runs = append(p.Runs, t.Runs[i].Proto())
		p.Data = cmp.Or(t.Runs[i].Data, p.Data)
		p.OtherData = p.OtherData || !trial.SameData(s.Data, t.Runs[i].Data)
	}
	for i := range t.Checkpoints {
		p.Checkpoints = append(p.Checkpoints, t.Checkpoints[i].Proto(s.ID, t.Number))
	}
	return p
}

// Proto returns the finding as the API speaks of it.
func (f *Finding) Proto() *atelierv1.Finding {
	return &atelierv1.Finding{Ordinal: f.Ordinal, Status: wire.ToStatus(f.Status), HasValue: f.HasValue, Value: f.Value, ValueEpoch: f.ValueEpoch, Epoch: f.Epoch}
}

// Proto returns the run as the API speaks of it.
func (r *Run) Proto() *atelierv1.Run {
	return &atelierv1.Run{Number: r.Number, Token: r.Token, Worker: r.Worker, Slot: r.Slot, StartedMs: r.StartedMS, EndedMs: r.EndedMS, Exit: wire.ToExit(r.Exit), Message: r.Message, ResumedEpoch: r.ResumedEpoch, Data: r.Data,
		Group: wire.ToRunGroup(r.Group)}
}

// Record is a checkpoint as those outside speak of it.
func (c *Checkpoint) Record(sweep string, number int64) trial.Checkpoint {
	r := trial.Checkpoint{Sweep: sweep, Trial: number, Epoch: c.Epoch, Size: c.Size, SHA256: c.SHA256, Location: trial.Location(c.Location), Worker: c.Worker, CreatedMS: c.CreatedMS, Token: c.Token}
	if c.HasMetric {
		r.Metric = new(trial.Number(c.Metric))
	}
	return r
}

// Proto returns the checkpoint as the API speaks of it.
func (c *Checkpoint) Proto(sweep string, number int64) *atelierv1.Checkpoint {
	return wire.ToCheckpoint(c.Record(sweep, number))
}

// Proto returns what became of an event as the API speaks of it.
func (r *EventResult) Proto() *atelierv1.EventResult {
	return &atelierv1.EventResult{Outcome: wire.ToOutcome(r.Outcome), Verdict: wire.ToVerdict(r.Verdict), Message: r.Message, Kept: r.Kept}
}

// Proto returns the report as the API speaks of it.
func (r Report) Proto() *atelierv1.Report {
	p := &atelierv1.Report{Epoch: r.Epoch, TimeMs: r.TimeMS}
	for _, metric := range r.Metrics {
		p.Metrics = append(p.Metrics, &atelierv1.Metric{Name: metric.Name, Value: metric.Value})
	}
	return p
}
