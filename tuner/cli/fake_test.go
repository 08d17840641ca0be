package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/snapshot"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// now is when all commands of the tests run.
var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ms(before time.Duration) int64 { return now.Add(-before).UnixMilli() }

// fake is a cluster as the command sees it: two sweeps, one of them going on.
type fake struct {
	atelierv1connect.UnimplementedSweepServiceHandler
	atelierv1connect.UnimplementedTrialServiceHandler
	atelierv1connect.UnimplementedWorkerServiceHandler
	atelierv1connect.UnimplementedClusterServiceHandler

	mu       sync.Mutex
	err      error // answers every call of SweepService
	requests []any // writes that arrived
	ids      map[string]bool
	snapshot *snapshot.Info // that was restored

	cutSave      int         // bytes that are missing at the end of what is saved
	restoreID    string      // of the last one
	restoreError error       // its answer
	tookPlace    bool        // whether it did
	waits        []*v1.Sweep // what WaitSweep answers, one after another; the last one stays
	files        string      // address of the file server
	named        []*v1.Alias // by SetAlias
	specJSON     string      // of s-aaaaaaaa, where a test wants one
	groups       bool        // a third worker has a member of a group
	listed       []*v1.Sweep // what ListSweeps answers, newest first; nil = two of the fake's
}

const params7 = `{"lr":0.0031622776601683794,"batch_size":32,"optimizer":"sgd","momentum":0.9}`
const params3 = `{"lr":0.1,"batch_size":16,"optimizer":"adamw"}`

var model = bytes.Repeat([]byte("weights "), 1000)

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// metrics7 are what trial 7 reported at the epoch of its value.
func metrics7() []*v1.Metric {
	return []*v1.Metric{{Name: "train_loss", Value: 1.0 / 3}, {Name: "val_acc", Value: 0.96875}, {Name: "val_loss", Value: 0.12345678901234567}}
}

func objective() *v1.Objective {
	return wire.ToObjective(trial.Objective{Metric: "val_loss"})
}

func (f *fake) sweep(id string) *v1.Sweep {
	switch id {
	case "s-aaaaaaaa":
		return &v1.Sweep{Id: id, Kind: v1.Kind_KIND_TRAINING, Name: "facades", Status: wire.ToSweepStatus(trial.SweepRunning), SpecYaml: "name: facades\n", SpecJson: f.specJSON, Seed: 18446744073709551615,
			Objective: objective(), SearchMethod: "bayesian", Algorithm: "tpe", Trainer: "torch", BudgetTrials: 40, Parallelism: 8, CreatedMs: ms(95 * time.Second),
			Counts: &v1.SweepCounts{Proposed: 12, Waiting: 2, Running: 4, Finished: 4, Diverged: 1, Failed: 1, Runs: 13, Reports: 77},
			Best:   f.trials()[1], DefaultDir: "/home/ada", MaxRetries: 3}
	case "s-bbbbbbbb":
		return &v1.Sweep{Id: id, Kind: v1.Kind_KIND_TRAINING, Name: "broken, \"quoted\"", Status: wire.ToSweepStatus(trial.SweepFailed), Failure: "all trials ended and none has a value",
			Objective: wire.ToObjective(trial.Objective{Metric: "val_acc", Maximize: true}), SearchMethod: "grid_search", Trainer: "sim",
			BudgetTrials: 4, Parallelism: 2, Exhausted: true, CreatedMs: ms(26 * time.Hour), EndedMs: ms(25*time.Hour + 30*time.Minute),
			Counts:   &v1.SweepCounts{Proposed: 4, Failed: 4, Runs: 4},
			SpecJson: `{"version":1,"name":"broken","search_method":"grid_search","seed":1,"budget":{"trials":4},"objectives":[{"metric":"val_acc","direction":"maximize"}],"space":[{"name":"lr","type":"float","low":0.0001,"high":0.1,"log":true}],"training":{"model":"resnet18","epochs":20}}`}
	case "s-cccccccc":
		return f.pareto()
	case "s-gggggggg":
		return ofGroups()
	case "s-dddddddd":
		return &v1.Sweep{Id: id, Kind: v1.Kind_KIND_INFERENCE, Status: wire.ToSweepStatus(trial.SweepRunning), Objective: objective(), Counts: &v1.SweepCounts{}}
	}
	return nil
}

func (f *fake) trials() []*v1.Trial {
	return []*v1.Trial{
		{SweepId: "s-aaaaaaaa", Number: 3, Status: wire.ToStatus(trial.Diverged), ParamsJson: params3, Epoch: 2, CreatedMs: ms(90 * time.Second), StartedMs: ms(89 * time.Second), EndedMs: ms(80 * time.Second)},
		{SweepId: "s-aaaaaaaa", Number: 7, Status: wire.ToStatus(trial.Running), ParamsJson: params7, HasValue: true, Value: 0.12345678901234567, ValueEpoch: 2, Epoch: 3, Metrics: metrics7(),
			CreatedMs: ms(60 * time.Second), StartedMs: ms(59 * time.Second),
			Runs: []*v1.Run{
				{Number: 1, Token: 120, Worker: "w1", Slot: "gpu0", StartedMs: ms(59 * time.Second), EndedMs: ms(40 * time.Second), Exit: wire.ToExit(trial.ExitLost), Message: "lease expired"},
				{Number: 2, Token: 140, Worker: "w2", Slot: "cpu1", StartedMs: ms(39 * time.Second), ResumedEpoch: 1}},
			Checkpoints: f.checkpoints()},
		{SweepId: "s-aaaaaaaa", Number: 9, Status: wire.ToStatus(trial.Waiting), ParamsJson: params3, CreatedMs: ms(time.Second)},
	}
}

func (f *fake) checkpoints() []*v1.Checkpoint {
	return []*v1.Checkpoint{
		{SweepId: "s-aaaaaaaa", Trial: 7, Epoch: 3, Metric: 0.2, HasMetric: true, Size: int64(len(model)), Sha256: sum(model), Location: "shared:s-aaaaaaaa/7/3.pth", Worker: "w2", CreatedMs: ms(5 * time.Second)},
		{SweepId: "s-aaaaaaaa", Trial: 7, Epoch: 2, Metric: 0.12345678901234567, HasMetric: true, Size: int64(len(model)), Sha256: sum(model), Location: "http://" + f.files + "/checkpoints/s-aaaaaaaa/7/2.pth", Worker: "w2", CreatedMs: ms(15 * time.Second)},
		{SweepId: "s-aaaaaaaa", Trial: 7, Epoch: 1, Size: int64(len(model)), Sha256: sum([]byte("something else")), Location: "http://" + f.files + "/checkpoints/s-aaaaaaaa/7/2.pth", Worker: "w2", CreatedMs: ms(25 * time.Second)},
	}
}

func (f *fake) find(id string) (*v1.Sweep, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if s := f.sweep(id); s != nil {
		return s, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("sweep %s does not exist", id))
}

// write notes a request; the same id counts once.
func (f *fake) write(id string, r any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(id) < 16 {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("request id missing"))
	}
	if !f.ids[id] {
		f.ids[id] = true
		f.requests = append(f.requests, r)
	}
	return nil
}

func ok[T any](m *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}

func (f *fake) CreateSweep(_ context.Context, r *connect.Request[v1.CreateSweepRequest]) (*connect.Response[v1.CreateSweepResponse], error) {
	if err := f.write(r.Msg.RequestId, r.Msg); err != nil {
		return nil, err
	}
	s, err := f.find("s-aaaaaaaa")
	return ok(&v1.CreateSweepResponse{Sweep: s, Warnings: []string{"the grid is cut to 40 points"}}, err)
}

func (f *fake) GetSweep(_ context.Context, r *connect.Request[v1.GetSweepRequest]) (*connect.Response[v1.GetSweepResponse], error) {
	s, err := f.find(r.Msg.Id)
	return ok(&v1.GetSweepResponse{Sweep: s}, err)
}

func (f *fake) ListSweeps(_ context.Context, r *connect.Request[v1.ListSweepsRequest]) (*connect.Response[v1.ListSweepsResponse], error) {
	a, err := f.find("s-aaaaaaaa")
	b, _ := f.find("s-bbbbbbbb")
	if len(f.listed) > 0 {
		var list []*v1.Sweep
		for _, s := range f.listed {
			if (s.ArchivedMs == 0 || r.Msg.Archived) && (s.DeletedMs == 0 || r.Msg.Deleted) {
				list = append(list, s)
			}
		}
		return ok(&v1.ListSweepsResponse{Sweeps: list}, err)
	}
	return ok(&v1.ListSweepsResponse{Sweeps: []*v1.Sweep{b, a}}, err)
}

func (f *fake) ControlSweep(_ context.Context, r *connect.Request[v1.ControlSweepRequest]) (*connect.Response[v1.ControlSweepResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
		s.Status = map[v1.SweepAction]v1.SweepStatus{wire.ToAction(trial.ActionPause): wire.ToSweepStatus(trial.SweepPaused), wire.ToAction(trial.ActionResume): wire.ToSweepStatus(trial.SweepRunning),
			wire.ToAction(trial.ActionArchive): s.Status, wire.ToAction(trial.ActionUnarchive): s.Status, wire.ToAction(trial.ActionDelete): s.Status, wire.ToAction(trial.ActionUndelete): s.Status,
			wire.ToAction(trial.ActionStop): wire.ToSweepStatus(trial.SweepStopping), wire.ToAction(trial.ActionCancel): wire.ToSweepStatus(trial.SweepCancelled)}[r.Msg.Action]
	}
	switch {
	case err != nil:
	case wire.Action(r.Msg.Action) == trial.ActionArchive:
		s.ArchivedMs = ms(0)
	case wire.Action(r.Msg.Action) == trial.ActionUnarchive:
		s.ArchivedMs = 0
	case wire.Action(r.Msg.Action) == trial.ActionDelete:
		s.DeletedMs, s.PurgeMs = ms(0), ms(-24*time.Hour)
	}
	return ok(&v1.ControlSweepResponse{Sweep: s}, err)
}

func (f *fake) ExtendSweep(_ context.Context, r *connect.Request[v1.ExtendSweepRequest]) (*connect.Response[v1.ExtendSweepResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
		s.BudgetTrials += r.Msg.AddTrials
		s.BudgetEpochs += r.Msg.AddEpochs
		s.BudgetMs += r.Msg.AddMs
	}
	return ok(&v1.ExtendSweepResponse{Sweep: s}, err)
}

func (f *fake) WaitSweep(ctx context.Context, r *connect.Request[v1.WaitSweepRequest]) (*connect.Response[v1.WaitSweepResponse], error) {
	s, err := f.find(r.Msg.Id)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	if len(f.waits) > 0 {
		s = f.waits[0]
		if len(f.waits) > 1 {
			f.waits = f.waits[1:]
		}
	}
	f.mu.Unlock()
	return ok(&v1.WaitSweepResponse{Sweep: s, Index: r.Msg.AfterIndex + 1}, nil)
}

func (f *fake) GetLeaderboard(_ context.Context, r *connect.Request[v1.GetLeaderboardRequest]) (*connect.Response[v1.GetLeaderboardResponse], error) {
	if _, err := f.find(r.Msg.Id); err != nil {
		return nil, err
	}
	rows := []*v1.LeaderboardRow{
		{Rank: 1, Trial: 7, Status: wire.ToStatus(trial.Running), Value: 0.12345678901234567, ParamsJson: params7, Epoch: 2, Checkpoint: "http://w2:7610/checkpoints/s-aaaaaaaa/7/2.pth",
			Metrics: metrics7()},
		{Rank: 2, Trial: 5, Status: wire.ToStatus(trial.Finished), Value: 0.5, ParamsJson: params3, Epoch: 4, Metrics: []*v1.Metric{{Name: "val_loss", Value: 0.5}, {Name: "val_acc", Value: 0.75}}},
		{Rank: 3, Trial: 1, Status: wire.ToStatus(trial.Stopped), Value: math.Inf(1), ParamsJson: params3, Epoch: 1},
	}
	objectives := []*v1.Objective{objective()}
	switch r.Msg.Id {
	case "s-bbbbbbbb":
		rows = nil
	case "s-cccccccc":
		objectives = f.pareto().Objectives
		for i, r := range rows {
			r.Values, r.Front = []float64{r.Value, []float64{12, 7.25, math.NaN()}[i]}, i < 2
		}
		if r.Msg.Pareto {
			rows = rows[:2]
		}
	}
	if r.Msg.Top > 0 {
		rows = rows[:min(len(rows), int(r.Msg.Top))]
	}
	source := r.Msg.Source
	if source == "" {
		source = "redis"
	}
	return ok(&v1.GetLeaderboardResponse{Rows: rows, Index: 4711, Source: source, Objective: objective(), Objectives: objectives}, nil)
}

func (f *fake) ListCheckpoints(_ context.Context, r *connect.Request[v1.ListCheckpointsRequest]) (*connect.Response[v1.ListCheckpointsResponse], error) {
	_, err := f.find(r.Msg.Id)
	all := f.checkpoints()
	if r.Msg.Trial != 0 && r.Msg.Trial != 7 {
		all = nil
	}
	return ok(&v1.ListCheckpointsResponse{Checkpoints: all, Index: 4711, Source: "state"}, err)
}

func (f *fake) ListTrials(_ context.Context, r *connect.Request[v1.ListTrialsRequest]) (*connect.Response[v1.ListTrialsResponse], error) {
	_, err := f.find(r.Msg.SweepId)
	var out []*v1.Trial
	for _, t := range f.trials() {
		wanted := len(r.Msg.Status) == 0
		for _, s := range r.Msg.Status {
			wanted = wanted || s == t.Status
		}
		if wanted && t.Number > r.Msg.After && (r.Msg.Limit == 0 || len(out) < int(r.Msg.Limit)) {
			out = append(out, t)
		}
	}
	return ok(&v1.ListTrialsResponse{Trials: out, Total: 3}, err)
}

func (f *fake) trial(sweep string, n int64) (*v1.Trial, error) {
	if _, err := f.find(sweep); err != nil {
		return nil, err
	}
	if sweep == "s-cccccccc" && n == 11 {
		return f.wholeTrial(), nil
	}
	if sweep == "s-gggggggg" && n == 1 {
		return groupTrial(), nil
	}
	for _, t := range f.trials() {
		if t.Number == n {
			return t, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("sweep %s has no trial %d", sweep, n))
}

func (f *fake) GetTrial(_ context.Context, r *connect.Request[v1.GetTrialRequest]) (*connect.Response[v1.GetTrialResponse], error) {
	t, err := f.trial(r.Msg.SweepId, r.Msg.Trial)
	return ok(&v1.GetTrialResponse{Trial: t}, err)
}

func (f *fake) GetCurve(_ context.Context, r *connect.Request[v1.GetCurveRequest]) (*connect.Response[v1.GetCurveResponse], error) {
	_, err := f.trial(r.Msg.SweepId, r.Msg.Trial)
	m := func(name string, v float64) *v1.Metric { return &v1.Metric{Name: name, Value: v} }
	return ok(&v1.GetCurveResponse{Reports: []*v1.Report{
		{Epoch: 1, TimeMs: ms(30 * time.Second), Metrics: []*v1.Metric{m("val_loss", 0.5), m("train_loss", 1.0/3)}},
		{Epoch: 2, TimeMs: ms(20 * time.Second), Metrics: []*v1.Metric{m("val_loss", 0.25), m("lr", 1e-5), m("train_loss", math.NaN())}},
	}}, err)
}

func (f *fake) StopTrial(_ context.Context, r *connect.Request[v1.StopTrialRequest]) (*connect.Response[v1.StopTrialResponse], error) {
	t, err := f.trial(r.Msg.SweepId, r.Msg.Trial)
	if err == nil {
		err = f.write(r.Msg.RequestId, r.Msg)
	}
	return ok(&v1.StopTrialResponse{Trial: t}, err)
}

func (f *fake) RetryTrial(_ context.Context, r *connect.Request[v1.RetryTrialRequest]) (*connect.Response[v1.RetryTrialResponse], error) {
	return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("trial %d has not failed", r.Msg.Trial))
}

func (f *fake) ListWorkers(context.Context, *connect.Request[v1.ListWorkersRequest]) (*connect.Response[v1.ListWorkersResponse], error) {
	workers := []*v1.Worker{
		{Name: "w1", Address: "10.0.0.1:7610", State: "lost", LastSeenMs: ms(40 * time.Second), Trainers: []string{"sim"}},
		{Name: "w2", Address: f.files, State: "ready", LastSeenMs: ms(time.Second), Trainers: []string{"sim", "torch"}, Labels: map[string]string{"zone": "b", "rack": "4"}, Version: "v1",
			Usage: &v1.Usage{TimeMs: ms(2 * time.Second), CpuPercent: 37.4, Cores: 16, MemoryUsed: 12_340_000_000, MemoryTotal: 64e9, SwapUsed: -1, DiskUsed: 1e9, DiskFree: 9e9, DiskRead: -1, NetReceived: 5, NetSent: 6,
				Gpus: []*v1.GpuUsage{{Index: 0, Name: "A100", BusyPercent: 87, MemoryUsed: 20e9, MemoryTotal: 80e9, Celsius: 61, Watts: math.NaN(), WattsAtMost: 400}}},
			Slots: []*v1.Slot{{Name: "gpu0", Kind: "gpu", Device: "cuda:0", Description: "A100", MemoryBytes: 80 << 30, State: "idle"},
				{Name: "cpu1", Kind: "cpu", Device: "cpu", Threads: 2, State: "busy", SweepId: "s-aaaaaaaa", Trial: 7}}},
	}
	if f.groups {
		workers = append(workers, groupWorker())
	}
	return ok(&v1.ListWorkersResponse{Workers: workers}, nil)
}

func (f *fake) DrainWorker(_ context.Context, r *connect.Request[v1.DrainWorkerRequest]) (*connect.Response[v1.DrainWorkerResponse], error) {
	if r.Msg.Name != "w2" {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("worker %s is not known", r.Msg.Name))
	}
	return ok(&v1.DrainWorkerResponse{}, f.write(r.Msg.RequestId, r.Msg))
}

func members() []*v1.Member {
	return []*v1.Member{
		{Id: "c1", RaftAddress: "10.0.0.1:7601", ApiAddress: "127.0.0.3:1", GossipAddress: "10.0.0.1:7602", Suffrage: "voter", Alive: true},
		{Id: "c2", RaftAddress: "10.0.0.2:7601", ApiAddress: "127.0.0.2:1", GossipAddress: "10.0.0.2:7602", Suffrage: "voter", Alive: true, Leader: true},
		{Id: "c3", RaftAddress: "10.0.0.3:7601", Suffrage: "nonvoter"},
	}
}

func (f *fake) GetStatus(context.Context, *connect.Request[v1.GetStatusRequest]) (*connect.Response[v1.GetStatusResponse], error) {
	return ok(&v1.GetStatusResponse{ClusterId: "k7", LeaderId: "c2", Term: 3, CommitIndex: 4712, AppliedIndex: 4711, Members: members(), Sweeps: 2, Trials: 16, RunningTrials: 4,
		Workers: 2, Slots: 2, Redis: "ok", RedisIndex: 4711, Version: "v1"}, nil)
}

func (f *fake) GetNode(context.Context, *connect.Request[v1.GetNodeRequest]) (*connect.Response[v1.GetNodeResponse], error) {
	return ok(&v1.GetNodeResponse{Id: "c2", Role: "leader", LeaderId: "c2", ClusterId: "k7", Term: 3, LastLogIndex: 4713, CommitIndex: 4712, AppliedIndex: 4711, Members: members(), Version: "v1"}, nil)
}

func (f *fake) ListMembers(context.Context, *connect.Request[v1.ListMembersRequest]) (*connect.Response[v1.ListMembersResponse], error) {
	return ok(&v1.ListMembersResponse{Members: members(), LeaderId: "c2"}, nil)
}

func (f *fake) RemoveMember(_ context.Context, r *connect.Request[v1.RemoveMemberRequest]) (*connect.Response[v1.RemoveMemberResponse], error) {
	if r.Msg.Id != "c3" {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("coordinator %s is not a member", r.Msg.Id))
	}
	return ok(&v1.RemoveMemberResponse{}, nil)
}

func (f *fake) TransferLeadership(_ context.Context, r *connect.Request[v1.TransferLeadershipRequest]) (*connect.Response[v1.TransferLeadershipResponse], error) {
	id := r.Msg.Id
	if id == "" {
		id = "c1"
	}
	return ok(&v1.TransferLeadershipResponse{LeaderId: id}, nil)
}

func (f *fake) SaveSnapshot(_ context.Context, _ *connect.Request[v1.SaveSnapshotRequest], s *connect.ServerStream[v1.SnapshotChunk]) error {
	var b bytes.Buffer
	w, err := snapshot.NewWriter(&b, 1_700_000_000_000)
	if err != nil {
		return err
	}
	w.Write(bytes.Repeat([]byte("a"), 300<<10))
	w.Close()
	f.mu.Lock()
	cut := f.cutSave
	f.mu.Unlock()
	for data := b.Bytes()[:b.Len()-cut]; len(data) > 0; {
		n := min(len(data), 100<<10)
		if err := s.Send(&v1.SnapshotChunk{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (f *fake) RestoreSnapshot(_ context.Context, s *connect.ClientStream[v1.SnapshotChunk]) (*connect.Response[v1.RestoreSnapshotResponse], error) {
	var b bytes.Buffer
	id := ""
	for s.Receive() {
		if s.Msg().Inquire {
			f.mu.Lock()
			defer f.mu.Unlock()
			switch {
			case f.restoreID != s.Msg().RestoreId || f.restoreID == "":
				return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("asked for another restore"))
			case !f.tookPlace:
				return nil, connect.NewError(connect.CodeAborted, errors.New("the restore did not take place"))
			}
			return ok(&v1.RestoreSnapshotResponse{Index: 4900, Sweeps: 2, Trials: 16}, nil)
		}
		if s.Msg().RestoreId != "" {
			id = s.Msg().RestoreId
		}
		b.Write(s.Msg().Data)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restoreID = id
	if f.restoreError != nil {
		return nil, f.restoreError
	}
	info, err := snapshot.Copy(io.Discard, &b)
	if err != nil || !info.Checked && info.Bytes < 10 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("not a snapshot"))
	}
	f.snapshot = &info
	return ok(&v1.RestoreSnapshotResponse{Index: 4800, Sweeps: 2, Trials: 16, LeasesEnded: 3, NoChecksum: !info.Checked, TakenMs: info.TakenMS}, nil)
}

// start serves the fake and points ATELIER_ADDR at it.
func start(t *testing.T) *fake {
	t.Helper()
	f := &fake{ids: map[string]bool{}}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewSweepServiceHandler(f))
	mux.Handle(atelierv1connect.NewTrialServiceHandler(f))
	mux.Handle(atelierv1connect.NewWorkerServiceHandler(f))
	mux.Handle(atelierv1connect.NewClusterServiceHandler(f))
	mux.HandleFunc("/checkpoints/s-aaaaaaaa/7/2.pth", func(w http.ResponseWriter, _ *http.Request) { w.Write(model) })
	mux.HandleFunc("/logs/s-aaaaaaaa/7/run-2.log", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "epoch 2 done\n") })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	f.files = strings.TrimPrefix(s.URL, "http://")
	t.Setenv("ATELIER_ADDR", f.files)
	return f
}
