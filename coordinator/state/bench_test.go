package state_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"

	"google.golang.org/protobuf/proto"
)

// fill makes a sweep of trials with reports each, three metrics a report, one
// checkpoint a trial: the load of the project's memory and restart goals.
func fill(tb testing.TB, m *state.Machine, trials, reports int) {
	tb.Helper()
	index := uint64(0)
	apply := func(commands ...*logv1.Command) []state.Result {
		index++
		// As from the log: nothing may be kept alive by the caller's copies.
		data, err := proto.Marshal(&logv1.Entry{Commands: commands})
		if err != nil {
			tb.Fatal(err)
		}
		var e logv1.Entry
		if err := proto.Unmarshal(data, &e); err != nil {
			tb.Fatal(err)
		}
		results := m.Apply(index, &e)
		for _, r := range results {
			if r.Err != nil {
				tb.Fatal(r.Err)
			}
		}
		return results
	}
	apply(&logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-big", Objective: wire.ToObjective(trial.Objective{Metric: "val_loss"}),
		BudgetTrials: int64(trials) + 10, Parallelism: 64, MaxRetries: 3}}})
	for first := 1; first <= trials; first += 32 {
		p := &logv1.ProposeTrials{Id: "s-big", First: int64(first)}
		var grants []*logv1.Command
		for n := first; n < first+32 && n <= trials; n++ {
			p.ParamsJson = append(p.ParamsJson, fmt.Sprintf(`{"lr":%.17g,"batch_size":32,"depth":%d,"optimizer":"sgd","momentum":0.%d}`, 1/float64(n), n%5, n))
			grants = append(grants, &logv1.Command{TimeMs: 1e12, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s-big", Trial: int64(n), Worker: fmt.Sprintf("worker-%d", n%16), Incarnation: "0123456789abcdef", Slot: "cpu0", Request: fmt.Sprintf("request-%d", n)}}})
		}
		apply(&logv1.Command{TimeMs: 1e12, Op: &logv1.Command_ProposeTrials{ProposeTrials: p}})
		granted := apply(grants...)
		var commands []*logv1.Command
		for i, r := range granted {
			events := &logv1.RecordEvents{}
			add := func(e *atelierv1.RunEvent) {
				e.SweepId, e.Trial, e.Token = "s-big", r.Trial, r.Token
				events.Events = append(events.Events, e)
			}
			for epoch := 1; epoch <= reports; epoch++ {
				add(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Report{Report: oneReport(epoch, float64((first+i)*7919%trials)+1/float64(epoch))}})
			}
			add(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{Epoch: int32(reports), Size: 1 << 20, Location: fmt.Sprintf("shared:s-big/%d/%d.pth", r.Trial, reports), Worker: "worker-1",
				Sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}})
			add(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)}}})
			commands = append(commands, &logv1.Command{TimeMs: 1e12, Op: &logv1.Command_RecordEvents{RecordEvents: events}})
		}
		apply(commands...)
	}
}

func oneReport(epoch int, loss float64) *atelierv1.Report {
	return &atelierv1.Report{Epoch: int32(epoch), TimeMs: 1e12 + int64(epoch), Metrics: []*atelierv1.Metric{{Name: "train_loss", Value: loss}, {Name: "val_loss", Value: loss + 1}, {Name: "val_acc", Value: 1 / loss}}}
}

const benchTrials, benchReports = 100_000, 10

// BenchmarkHundredThousandTrials measures memory, saving, restoring and ranking of
// 100,000 trials with 1,000,000 reports.
func BenchmarkHundredThousandTrials(b *testing.B) {
	for b.Loop() {
		m := state.New()
		start := time.Now()
		fill(b, m, benchTrials, benchReports)
		b.ReportMetric(time.Since(start).Seconds(), "fill-s")
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "heap-MiB")

		v := m.View()
		var file bytes.Buffer
		start = time.Now()
		if _, err := v.WriteTo(&file); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "save-s")
		b.ReportMetric(float64(file.Len())/(1<<20), "snapshot-MiB")
		start = time.Now()
		v.Hash()
		b.ReportMetric(time.Since(start).Seconds(), "hash-s")
		again := state.New()
		start = time.Now()
		if err := again.Restore(bytes.NewReader(file.Bytes())); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "restore-s")

		s, _ := v.Sweep("s-big")
		start = time.Now()
		if len(s.Leaderboard(20)) != 20 {
			b.Fatal("no leaderboard")
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "top20-ms")
		start = time.Now()
		if len(s.Leaderboard(0)) != benchTrials {
			b.Fatal("no leaderboard")
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "all-ms")
		runtime.KeepAlive(m)
	}
}

// BenchmarkRestoreThroughTheLog restores a state of some 100 MB over one like it:
// how long the slowest part and the commit hold Apply up.
func BenchmarkRestoreThroughTheLog(b *testing.B) {
	m := state.New()
	fill(b, m, 250_000, 10)
	stream := saved(b, m.View())
	b.ReportAllocs()
	for b.Loop() {
		index := m.View().Index()
		var slowest, all, commit time.Duration
		for _, cmd := range restoring(fmt.Sprint(index), stream, 256<<10, 0) {
			index++
			start := time.Now()
			if r := m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{cmd}})[0]; r.Err != nil {
				b.Fatal(r.Err)
			}
			commit = time.Since(start)
			all += commit
			if cmd.GetCommitRestore() == nil {
				slowest = max(slowest, commit)
			}
		}
		b.ReportMetric(float64(len(stream))/1e6, "MB")
		b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-part-ms")
		b.ReportMetric(float64(commit.Microseconds())/1000, "commit-ms")
		b.ReportMetric(all.Seconds(), "all-s")
	}
}

// BenchmarkApplyReport applies entries of one report each, on top of 10,000
// trials; viewed takes a View before every entry, as a busy leader does.
func BenchmarkApplyReport(b *testing.B) {
	for _, viewed := range []bool{false, true} {
		b.Run(fmt.Sprintf("viewed=%v", viewed), func(b *testing.B) {
			m := state.New()
			fill(b, m, 10_000, 3)
			index := m.View().Index() + 1
			m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: "s-big", First: 10_001, ParamsJson: []string{"{}"}}}}}})
			index++
			token := m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: "s-big", Trial: 10_001, Worker: "w", Incarnation: "i", Request: "r"}}}}})[0].Token
			epoch := 0
			report := oneReport(1, 1)
			e := &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{
				{SweepId: "s-big", Trial: 10_001, Token: token, Event: &atelierv1.RunEvent_Report{Report: report}}}}}}}}
			b.ReportAllocs()
			for b.Loop() {
				if viewed {
					m.View()
				}
				epoch++
				index++
				report.Epoch = int32(epoch)
				if r := m.Apply(index, e); epoch < 1_000_000 && r[0].Events[0].Outcome != trial.OutcomeRecorded {
					b.Fatal(r[0].Events[0])
				}
			}
		})
	}
}
