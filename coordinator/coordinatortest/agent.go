package coordinatortest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Agent is a worker as the API sees one, with simtrainer and the slot cpu0. It does
// what the test says and nothing by itself.
type Agent struct {
	T           testing.TB
	API         API
	Name        string
	Incarnation string // of its start
	Labels      map[string]string

	asked int
}

// NewAgent returns one that the leader has heard of.
func NewAgent(t testing.TB, api API, name string) *Agent {
	t.Helper()
	a := &Agent{T: t, API: api, Name: name, Incarnation: name + "-1"}
	a.Beat()
	return a
}

// Beat is a heartbeat that renews leases.
func (a *Agent) Beat(leases ...*atelierv1.Lease) *atelierv1.HeartbeatResponse {
	a.T.Helper()
	req := &atelierv1.HeartbeatRequest{Worker: &atelierv1.Worker{
		Name: a.Name, Incarnation: a.Incarnation, Trainers: []string{"sim"}, Labels: a.Labels, Slots: []*atelierv1.Slot{{Name: "cpu0", Kind: "cpu"}},
	}}
	for _, l := range leases {
		req.Leases = append(req.Leases, &atelierv1.LeaseRef{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token})
	}
	return Call(a.T, a.API.Workers.Heartbeat, req)
}

// Request is one for a lease, under an id of its own.
func (a *Agent) Request(slot string, wait time.Duration) *atelierv1.AcquireRequest {
	a.asked++
	return &atelierv1.AcquireRequest{
		RequestId: fmt.Sprintf("%s-%d", a.Incarnation, a.asked), Worker: a.Name, Incarnation: a.Incarnation, Slot: slot,
		Trainers: []string{"sim"}, WaitMs: wait.Milliseconds(), Labels: a.Labels,
	}
}

// Send asks for a lease; nil for none.
func (a *Agent) Send(req *atelierv1.AcquireRequest) *atelierv1.Lease {
	a.T.Helper()
	return Call(a.T, a.API.Workers.Acquire, req).Lease
}

// Acquire asks for a lease for cpu0; nil for none.
func (a *Agent) Acquire(wait time.Duration) *atelierv1.Lease {
	a.T.Helper()
	return a.Send(a.Request("cpu0", wait))
}

// Relay tells of events.
func (a *Agent) Relay(events ...*atelierv1.RunEvent) []*atelierv1.EventResult {
	a.T.Helper()
	return Call(a.T, a.API.Workers.Relay, &atelierv1.RelayRequest{Worker: a.Name, Incarnation: a.Incarnation, Events: events}).Results
}

// Work carries leases out until the sweep has ended: one report, one checkpoint, done.
func (a *Agent) Work(sweep string) {
	a.T.Helper()
	for {
		l := a.Acquire(200 * time.Millisecond)
		if l != nil {
			v := 1 / float64(l.Trial)
			for i, r := range a.Relay(Report(l, 1, v), Checkpointed(l, 1, v), Ended(l, trial.ExitFinished)) {
				if wire.Outcome(r.Outcome) != trial.OutcomeRecorded && wire.Outcome(r.Outcome) != trial.OutcomeAlready {
					a.T.Errorf("event %d of trial %d: %v %s", i, l.Trial, r.Outcome, r.Message)
				}
			}
			continue
		}
		if s := a.API.Sweep(a.T, sweep); s.EndedMs != 0 {
			return
		}
	}
}

// Report is the event of an epoch with a loss.
func Report(l *atelierv1.Lease, epoch int32, loss float64) *atelierv1.RunEvent {
	return &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Report{
		Report: &atelierv1.Report{Epoch: epoch, TimeMs: 1000 + int64(epoch), Metrics: []*atelierv1.Metric{{Name: "loss", Value: loss}}},
	}}
}

// Checkpointed is the event of a checkpoint of 10 bytes in a shared folder.
func Checkpointed(l *atelierv1.Lease, epoch int32, metric float64) *atelierv1.RunEvent {
	return &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Checkpoint{
		Checkpoint: &atelierv1.Checkpoint{
			SweepId: l.SweepId, Trial: l.Trial, Epoch: epoch, Metric: metric, HasMetric: true, Size: 10,
			Sha256: strings.Repeat("ab", 32), Location: fmt.Sprintf("shared:%s/%d/%d", l.SweepId, l.Trial, epoch), Worker: "w", Token: l.Token, CreatedMs: 5,
		},
	}}
}

// Ended is the event of a run's end.
func Ended(l *atelierv1.Lease, class trial.Exit) *atelierv1.RunEvent {
	return &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Ended{
		Ended: &atelierv1.RunEnded{Exit: wire.ToExit(class), TimeMs: 2000},
	}}
}
