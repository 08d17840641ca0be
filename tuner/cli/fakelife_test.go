package cli_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// pareto is a sweep with all that a sweep may have.
func (f *fake) pareto() *v1.Sweep {
	s := f.sweep("s-aaaaaaaa")
	s.Id, s.Name, s.Trainer, s.BudgetTrials = "s-cccccccc", "rich", "external", 0
	s.SpecJson = `{"version":1,"name":"rich","search_method":"bayesian","seed":1,"budget":{"epochs":500,"time_ms":7200000},"requires":[{"key":"gpu","value":"a100"}],"objectives":[{"metric":"val_loss","direction":"minimize"}],"space":[{"name":"depth","type":"int","low":1,"high":5},{"name":"lr","type":"float","low":0.00001,"high":0.1,"log":true}],"training":{"model":"resnet18","epochs":12}}`
	s.BudgetEpochs, s.Epochs, s.BudgetMs, s.SpentMs = 500, 77, 7_200_000, 95_000
	s.CheckpointBytes, s.StoredBytes, s.Priority, s.Enqueued = 10_000_000_000, 123_456_789, -5, 2
	s.WarmStart, s.WarmTrials, s.StoppingJson = "s-bbbbbbbb", 31, `{"rule":"asha","min_epochs":1}`
	s.Tags, s.UserNote, s.ArchivedMs = []string{"baseline", "paper"}, "lr too high?\nsee ticket 12", ms(time.Hour)
	s.Notification = &v1.Notification{Url: "https://hooks.example.org", On: []v1.SweepStatus{4, 7}, EndMs: ms(0), Attempts: 3, LastMs: ms(0), Error: "answered 500 Internal Server Error"}
	s.Requires = map[string]string{"zone": "b", "gpu": "a100"}
	s.Objectives = []*v1.Objective{objective(), wire.ToObjective(trial.Objective{Metric: "latency_ms"})}
	s.Constraints = []*v1.Constraint{{Metric: "mb", HasMax: true, Max: 100}, {Metric: "fps", HasMin: true, Min: 30}}
	s.Counts.Paused, s.Status, s.Ending, s.EndedMs = 3, wire.ToSweepStatus(trial.SweepFinished), "its budget of 500 epochs is used", ms(0)
	return s
}

// wholeTrial is a trial with all that a trial may have.
func (f *fake) wholeTrial() *v1.Trial {
	return &v1.Trial{SweepId: "s-cccccccc", Number: 11, Status: wire.ToStatus(trial.Failed), ParamsJson: `{"lr":0.1,"note":"<a & b>"}`, HasValue: true, Value: math.NaN(), ValueEpoch: 2, Epoch: 3,
		Runs:        []*v1.Run{{Number: 1, Token: 9, Worker: "w1", Slot: "gpu0", StartedMs: ms(50 * time.Second), EndedMs: ms(40 * time.Second), Exit: wire.ToExit(trial.ExitOutOfMemory), Message: "batch of 512", ResumedEpoch: 1, Data: "a.b@64:c"}},
		Checkpoints: []*v1.Checkpoint{{SweepId: "s-cccccccc", Trial: 11, Epoch: 3, Metric: math.Inf(-1), HasMetric: true, Size: 5, Sha256: "ab", Location: "shared:s-cccccccc/11/3.pth", Worker: "w1", CreatedMs: ms(41 * time.Second), Token: 9}},
		CreatedMs:   ms(60 * time.Second), StartedMs: ms(50 * time.Second), EndedMs: ms(40 * time.Second), Failure: "out of memory", Verdict: wire.ToVerdict(trial.VerdictPause), StopReason: "rung 2 of asha",
		Source: wire.ToSource(trial.SourcePopulation), ProposedSeen: 17, Origin: &v1.Origin{Trial: 4, Epoch: 6}, Findings: []*v1.Finding{{Ordinal: 1}}, Pauses: 2,
		Metrics: []*v1.Metric{{Name: "mb", Value: 120}, {Name: "fps", Value: math.Inf(1)}}, Infeasible: true, Note: "no worker has the data", Data: "a.b@64:c", OtherData: true}
}

func (f *fake) EnqueueTrials(_ context.Context, r *connect.Request[v1.EnqueueTrialsRequest]) (*connect.Response[v1.EnqueueTrialsResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
		s.Enqueued = int64(len(r.Msg.ParamsJson))
	}
	return ok(&v1.EnqueueTrialsResponse{Sweep: s}, err)
}

func (f *fake) LabelSweep(_ context.Context, r *connect.Request[v1.LabelSweepRequest]) (*connect.Response[v1.LabelSweepResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
		if r.Msg.Name != nil {
			s.Name = r.Msg.GetName()
		}
		if r.Msg.Note != nil {
			s.UserNote = r.Msg.GetNote()
		}
		s.Tags = append(slices.DeleteFunc(s.Tags, func(tag string) bool { return slices.Contains(r.Msg.RemoveTags, tag) }), r.Msg.AddTags...)
	}
	return ok(&v1.LabelSweepResponse{Sweep: s}, err)
}

func (f *fake) SetNotification(_ context.Context, r *connect.Request[v1.SetNotificationRequest]) (*connect.Response[v1.SetNotificationResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
		s.Notification = nil
		if r.Msg.Url != "" {
			s.Notification = &v1.Notification{Url: trial.HookHost(r.Msg.Url), On: r.Msg.On}
		}
	}
	return ok(&v1.SetNotificationResponse{Sweep: s}, err)
}

func (f *fake) PurgeSweep(_ context.Context, r *connect.Request[v1.PurgeSweepRequest]) (*connect.Response[v1.PurgeSweepResponse], error) {
	_, err := f.find(r.Msg.Id)
	return ok(&v1.PurgeSweepResponse{}, err)
}

func (f *fake) PrioritizeSweep(_ context.Context, r *connect.Request[v1.PrioritizeSweepRequest]) (*connect.Response[v1.PrioritizeSweepResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
		s.Priority = r.Msg.Priority
	}
	return ok(&v1.PrioritizeSweepResponse{Sweep: s}, err)
}

func (f *fake) VerifySweep(_ context.Context, r *connect.Request[v1.VerifySweepRequest]) (*connect.Response[v1.VerifySweepResponse], error) {
	_, err := f.find(r.Msg.Id)
	m := &v1.VerifySweepResponse{Checked: 6, Index: 4711, Through: r.Msg.After + 6, Trials: 12}
	if r.Msg.Id == "s-bbbbbbbb" {
		m.Checked, m.Unchecked, m.Through, m.Trials = 3, 1, 4, 4
		m.Differences = []*v1.ProposalDifference{{Trial: 2, RecordedJson: params3, ComputedJson: params7, Seen: 1, Source: wire.ToSource(trial.SourceSearch),
			RecordedOrigin: &v1.Origin{Trial: 1, Epoch: 4}},
			{Trial: 3, RecordedJson: params3, Seen: 2, Source: wire.ToSource(trial.SourceEnqueued)}}
	}
	return ok(m, err)
}

func (f *fake) GetImportance(_ context.Context, r *connect.Request[v1.GetImportanceRequest]) (*connect.Response[v1.GetImportanceResponse], error) {
	if _, err := f.find(r.Msg.Id); err != nil {
		return nil, err
	}
	if r.Msg.Id == "s-bbbbbbbb" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("0 trials have a value; at least 10 are needed"))
	}
	return ok(&v1.GetImportanceResponse{Method: "PED-ANOVA", Trials: 12, Index: 4711, Parameters: []*v1.ParameterImportance{
		{Name: "lr", Importance: 0.75}, {Name: "batch_size", Importance: 0.25}, {Name: "momentum"}}}, nil)
}

func (f *fake) GetProgress(_ context.Context, r *connect.Request[v1.GetProgressRequest]) (*connect.Response[v1.GetProgressResponse], error) {
	_, err := f.find(r.Msg.Id)
	return ok(&v1.GetProgressResponse{Objective: objective(), Index: 4711, Points: []*v1.ProgressPoint{
		{Ended: 1, Trial: 2, Value: 0.5, Best: 0.5, BestTrial: 2, TimeMs: 1500, Epochs: 4},
		{Ended: 3, Trial: 1, Value: 0.75, Best: 0.5, BestTrial: 2, TimeMs: 65_000, Epochs: 12},
		{Ended: 4, Trial: 4, Value: 0.25, Best: 0.25, BestTrial: 4, TimeMs: 3_700_000, Epochs: 16}}}, err)
}

func (f *fake) AskTrial(_ context.Context, r *connect.Request[v1.AskTrialRequest]) (*connect.Response[v1.AskTrialResponse], error) {
	s, err := f.find(r.Msg.SweepId)
	switch {
	case err != nil:
		return nil, err
	case len(r.Msg.RequestId) < 16:
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("request id missing"))
	case s.Id != "s-cccccccc" || r.Msg.Name == "late":
		return ok(&v1.AskTrialResponse{Status: s.Status}, nil)
	}
	return ok(&v1.AskTrialResponse{Status: s.Status, Lease: &v1.Lease{SweepId: s.Id, Trial: 7, Token: 140, Run: 2, ParamsJson: params7, TrainingJson: `{"epochs":3}`, Seed: 9,
		Objective: objective(), TtlMs: r.Msg.TermMs, LastEpoch: 3, Checkpoints: f.checkpoints()[:1]}}, nil)
}

func (f *fake) TellTrial(_ context.Context, r *connect.Request[v1.TellTrialRequest]) (*connect.Response[v1.TellTrialResponse], error) {
	t, err := f.trial(r.Msg.SweepId, r.Msg.Trial)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.requests = append(f.requests, r.Msg)
	f.mu.Unlock()
	if r.Msg.Token != 140 {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("tell trial %d: the lease is over", r.Msg.Trial))
	}
	m := &v1.TellTrialResponse{Trial: t, Verdict: wire.ToVerdict(trial.VerdictContinue)}
	if r.Msg.Report != nil {
		m.Outcome = wire.ToOutcome(trial.OutcomeRecorded)
		t.Epoch = r.Msg.Report.Epoch
		if r.Msg.Report.Epoch > 4 {
			m.Verdict, m.Reason = wire.ToVerdict(trial.VerdictPause), "rung 2 of asha"
		}
	}
	if r.Msg.Ended != nil {
		m.Outcome, m.Verdict, t.Status = wire.ToOutcome(trial.OutcomeRecorded), 0, wire.ToStatus(trial.Finished)
	}
	return ok(m, nil)
}
