package wire

import (
	"encoding/json"
	"maps"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// From the schema. TestEveryFieldIsCarried holds that nothing is left out.

// Sweep is a sweep as the API tells it, with lists and maps that are never nil: they are printed. A
// sweep of one objective has it in Objectives, too.
func Sweep(s *atelierv1.Sweep) trial.Sweep {
	r := trial.Sweep{ID: s.GetId(), Name: s.GetName(), Kind: Kind(s.GetKind()), Status: SweepStatus(s.GetStatus()), Failure: s.GetFailure(),
		SearchMethod: s.GetSearchMethod(), Algorithm: s.GetAlgorithm(), Trainer: s.GetTrainer(), Seed: s.GetSeed(), Objective: Objective(s.GetObjective()),
		BudgetTrials: s.GetBudgetTrials(), Parallelism: s.GetParallelism(), MaxRetries: s.GetMaxRetries(), Exhausted: s.GetExhausted(),
		CreatedMS: s.GetCreatedMs(), EndedMS: s.GetEndedMs(), BaseDir: s.GetDefaultDir(), Stopping: Object(s.GetStoppingJson()), Counts: counts(s.GetCounts()),
		Objectives: List(s.GetObjectives(), Objective), Constraints: List(s.GetConstraints(), Constraint),
		BudgetEpochs: s.GetBudgetEpochs(), Epochs: s.GetEpochs(), BudgetMS: s.GetBudgetMs(), SpentMS: s.GetSpentMs(),
		CheckpointBytes: s.GetCheckpointBytes(), StoredBytes: s.GetStoredBytes(), Priority: s.GetPriority(), Enqueued: s.GetEnqueued(),
		WarmStart: s.GetWarmStart(), WarmTrials: s.GetWarmTrials(), Requires: texts(s.GetRequires()),
		Ending: s.GetEnding(), Findings: s.GetFindings(), Note: s.GetNote(),
		Tags: append([]string{}, s.GetTags()...), UserNote: s.GetUserNote(), ArchivedMS: s.GetArchivedMs(), DeletedMS: s.GetDeletedMs(), PurgeMS: s.GetPurgeMs(), Notify: Notification(s.GetNotification()), SpecYAML: s.GetSpecYaml(), SpecJSON: s.GetSpecJson(),
		MembersMin: max(s.GetMembersMin(), 1), MembersMax: max(s.GetMembersMax(), 1), Shards: max(s.GetShards(), 1), // earlier coordinators send none
		Groups: List(s.GetGroups(), func(g *atelierv1.GroupSize) trial.GroupSize {
			return trial.GroupSize{Members: g.GetMembers(), Runs: g.GetRuns()}
		})}
	if len(r.Objectives) == 0 {
		r.Objectives = append(r.Objectives, r.Objective)
	}
	if b := s.GetBest(); b.GetHasValue() {
		r.Best = &trial.BestTrial{Trial: b.GetNumber(), Value: trial.Number(b.GetValue()), Epoch: b.GetValueEpoch(), Params: Object(b.GetParamsJson()), Metrics: metrics(b.GetMetrics())}
	}
	return r
}

func counts(c *atelierv1.SweepCounts) trial.Counts {
	return trial.Counts{Proposed: c.GetProposed(), Waiting: c.GetWaiting(), Running: c.GetRunning(), Paused: c.GetPaused(), Finished: c.GetFinished(), Stopped: c.GetStopped(),
		Diverged: c.GetDiverged(), Failed: c.GetFailed(), Cancelled: c.GetCancelled(), Runs: c.GetRuns(), Reports: c.GetReports()}
}

// Trial is a trial with its runs and what is kept of its checkpoints, without its curve.
func Trial(t *atelierv1.Trial) trial.Trial {
	r := trial.Trial{Sweep: t.GetSweepId(), Number: t.GetNumber(), Status: Status(t.GetStatus()), Params: Object(t.GetParamsJson()),
		Value: number(t.GetHasValue(), t.GetValue()), ValueEpoch: t.GetValueEpoch(), Epoch: t.GetEpoch(),
		CreatedMS: t.GetCreatedMs(), StartedMS: t.GetStartedMs(), EndedMS: t.GetEndedMs(), Failure: t.GetFailure(),
		Verdict: Verdict(t.GetVerdict()), StopReason: t.GetStopReason(), Runs: List(t.GetRuns(), run), Checkpoints: List(t.GetCheckpoints(), Checkpoint),
		Source: Source(t.GetSource()), Seen: t.GetProposedSeen(), OriginTrial: t.GetOrigin().GetTrial(), OriginEpoch: t.GetOrigin().GetEpoch(),
		Pauses: t.GetPauses(), Metrics: metrics(t.GetMetrics()), Infeasible: t.GetInfeasible(), Note: t.GetNote(), Data: t.GetData(), OtherData: t.GetOtherData()}
	return r
}

func metrics(all []*atelierv1.Metric) map[string]trial.Number {
	out := make(map[string]trial.Number, len(all))
	for _, x := range all {
		out[x.GetName()] = trial.Number(x.GetValue())
	}
	return out
}

func run(r *atelierv1.Run) trial.Run {
	return trial.Run{Number: r.GetNumber(), Token: r.GetToken(), Worker: r.GetWorker(), Slot: r.GetSlot(), StartedMS: r.GetStartedMs(), EndedMS: r.GetEndedMs(),
		Exit: Exit(r.GetExit()), Message: r.GetMessage(), ResumedEpoch: r.GetResumedEpoch(), Data: r.GetData(), Group: RunGroup(r.GetGroup())}
}

// Checkpoint is a stored model state; Metric is nil where its epoch has no objective value.
func Checkpoint(c *atelierv1.Checkpoint) trial.Checkpoint {
	return trial.Checkpoint{Sweep: c.GetSweepId(), Trial: c.GetTrial(), Epoch: c.GetEpoch(), Metric: number(c.GetHasMetric(), c.GetMetric()), Size: c.GetSize(), SHA256: c.GetSha256(),
		Location: trial.Location(c.GetLocation()), Worker: c.GetWorker(), CreatedMS: c.GetCreatedMs(), Token: c.GetToken()}
}

// Report is the metrics of one epoch, in the order they were reported.
func Report(r *atelierv1.Report) trial.Report {
	return trial.Report{Epoch: r.GetEpoch(), TimeMS: r.GetTimeMs(), Metrics: List(r.GetMetrics(), metric), Data: r.GetData()}
}

func metric(m *atelierv1.Metric) trial.Metric {
	return trial.Metric{Name: m.GetName(), Value: m.GetValue()}
}

// Row is a leaderboard's row.
func Row(r *atelierv1.LeaderboardRow) trial.Row {
	return trial.Row{Rank: r.GetRank(), Trial: r.GetTrial(), Status: Status(r.GetStatus()), Value: trial.Number(r.GetValue()), Params: Object(r.GetParamsJson()), Epoch: r.GetEpoch(),
		Checkpoint: trial.Location(r.GetCheckpoint()), Values: List(r.GetValues(), func(v float64) trial.Number { return trial.Number(v) }), Front: r.GetFront(), Metrics: metrics(r.GetMetrics()), OtherData: r.GetOtherData()}
}

// Worker is a worker as the leader knows it; Usage is nil until it has read its machine.
func Worker(w *atelierv1.Worker) trial.Worker {
	return trial.Worker{Name: w.GetName(), State: w.GetState(), Draining: w.GetDraining(), Address: w.GetAddress(), LastSeenMS: w.GetLastSeenMs(), Version: w.GetVersion(),
		Trainers: append([]string{}, w.GetTrainers()...), Labels: texts(w.GetLabels()), Usage: usage(w.GetUsage()), Slots: List(w.GetSlots(), slot), Note: w.GetNote(), GroupTrainers: append([]string{}, w.GetGroupTrainers()...), Incarnation: w.GetIncarnation()}
}

func slot(s *atelierv1.Slot) trial.Slot {
	return trial.Slot{Name: s.GetName(), Kind: s.GetKind(), Device: s.GetDevice(), Description: s.GetDescription(), Threads: s.GetThreads(), MemoryBytes: s.GetMemoryBytes(),
		State: s.GetState(), Sweep: s.GetSweepId(), Trial: s.GetTrial(), Member: s.GetMember(), Pace: pace(s.GetPace())}
}

func usage(u *atelierv1.Usage) *trial.Usage {
	if u == nil {
		return nil
	}
	return &trial.Usage{TimeMS: u.TimeMs, CPUPercent: trial.Number(u.CpuPercent), Cores: u.Cores, MemoryUsed: u.MemoryUsed, MemoryTotal: u.MemoryTotal, SwapUsed: u.SwapUsed, SwapTotal: u.SwapTotal,
		DiskUsed: u.DiskUsed, DiskFree: u.DiskFree, DiskRead: u.DiskRead, DiskWritten: u.DiskWritten, NetReceived: u.NetReceived, NetSent: u.NetSent, GPUs: List(u.Gpus, gpu)}
}

func gpu(g *atelierv1.GpuUsage) trial.GPUUsage {
	return trial.GPUUsage{Index: g.GetIndex(), Name: g.GetName(), BusyPercent: trial.Number(g.GetBusyPercent()), MemoryUsed: g.GetMemoryUsed(), MemoryTotal: g.GetMemoryTotal(),
		Celsius: trial.Number(g.GetCelsius()), Watts: trial.Number(g.GetWatts()), WattsAtMost: trial.Number(g.GetWattsAtMost())}
}

// To the schema: what workers and programs outside say.

// ToCheckpoint is Checkpoint's inverse.
func ToCheckpoint(c trial.Checkpoint) *atelierv1.Checkpoint {
	p := &atelierv1.Checkpoint{SweepId: c.Sweep, Trial: c.Trial, Epoch: c.Epoch, HasMetric: c.Metric != nil, Size: c.Size, Sha256: c.SHA256, Location: string(c.Location),
		Worker: c.Worker, CreatedMs: c.CreatedMS, Token: c.Token}
	if c.Metric != nil {
		p.Metric = float64(*c.Metric)
	}
	return p
}

// ToCheckpoints is a list of them, never nil.
func ToCheckpoints(all []trial.Checkpoint) []*atelierv1.Checkpoint { return List(all, ToCheckpoint) }

// ToRows are the rows of a leaderboard.
func ToRows(all []trial.Row) []*atelierv1.LeaderboardRow {
	return List(all, func(r trial.Row) *atelierv1.LeaderboardRow {
		return &atelierv1.LeaderboardRow{Rank: r.Rank, Trial: r.Trial, Status: ToStatus(r.Status), Value: float64(r.Value), ParamsJson: string(r.Params), Epoch: r.Epoch,
			Checkpoint: string(r.Checkpoint), Values: List(r.Values, func(v trial.Number) float64 { return float64(v) }), Front: r.Front, OtherData: r.OtherData, Metrics: toMetrics(r.Metrics)}
	})
}

// toMetrics is in the order of names: a map's would reach messages.
func toMetrics(all map[string]trial.Number) (out []*atelierv1.Metric) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, &atelierv1.Metric{Name: name, Value: float64(all[name])})
	}
	return out
}

// ToReport is Report's inverse.
func ToReport(r trial.Report) *atelierv1.Report {
	return &atelierv1.Report{Epoch: r.Epoch, TimeMs: r.TimeMS, Data: r.Data,
		Metrics: List(r.Metrics, func(m trial.Metric) *atelierv1.Metric { return &atelierv1.Metric{Name: m.Name, Value: m.Value} })}
}

// ToWorker is Worker's inverse.
func ToWorker(w trial.Worker) *atelierv1.Worker {
	return &atelierv1.Worker{Name: w.Name, Address: w.Address, Incarnation: w.Incarnation, Draining: w.Draining, LastSeenMs: w.LastSeenMS, Slots: List(w.Slots, toSlot),
		Labels: w.Labels, Trainers: w.Trainers, Version: w.Version, State: w.State, Usage: toUsage(w.Usage), Note: w.Note, GroupTrainers: w.GroupTrainers}
}

func toSlot(s trial.Slot) *atelierv1.Slot {
	return &atelierv1.Slot{Name: s.Name, Kind: s.Kind, Device: s.Device, Description: s.Description, Threads: s.Threads, MemoryBytes: s.MemoryBytes, SweepId: s.Sweep, Trial: s.Trial, State: s.State, Member: s.Member, Pace: toPace(s.Pace)}
}

func toUsage(u *trial.Usage) *atelierv1.Usage {
	if u == nil {
		return nil
	}
	return &atelierv1.Usage{TimeMs: u.TimeMS, CpuPercent: float64(u.CPUPercent), Cores: u.Cores, MemoryUsed: u.MemoryUsed, MemoryTotal: u.MemoryTotal, SwapUsed: u.SwapUsed, SwapTotal: u.SwapTotal,
		DiskUsed: u.DiskUsed, DiskFree: u.DiskFree, DiskRead: u.DiskRead, DiskWritten: u.DiskWritten, NetReceived: u.NetReceived, NetSent: u.NetSent, Gpus: List(u.GPUs, toGPU)}
}

func toGPU(g trial.GPUUsage) *atelierv1.GpuUsage {
	return &atelierv1.GpuUsage{Index: g.Index, Name: g.Name, BusyPercent: float64(g.BusyPercent), MemoryUsed: g.MemoryUsed, MemoryTotal: g.MemoryTotal, Celsius: float64(g.Celsius),
		Watts: float64(g.Watts), WattsAtMost: float64(g.WattsAtMost)}
}

// List turns each of a list; it is never nil, JSON has [] for it.
func List[A, B any](all []A, one func(A) B) []B {
	out := make([]B, 0, len(all))
	for _, x := range all {
		out = append(out, one(x))
	}
	return out
}

func texts(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func number(has bool, v float64) *trial.Number {
	if !has {
		return nil
	}
	return new(trial.Number(v))
}

// Object passes a JSON object through as it is; what is none becomes null.
func Object(text string) json.RawMessage {
	if !json.Valid([]byte(text)) {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}
