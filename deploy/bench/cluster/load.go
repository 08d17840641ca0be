package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/deploy/bench/harness"
)

// load plays a worker over the API: it takes leases and relays reports without
// any trainer, so that the coordinator alone is measured.
type load struct {
	c    *client.Client
	name string
	inc  string
}

const loadTrainer = "bench"

func newLoad(addrs []string, name string) *load {
	return &load{c: client.New(addrs), name: name, inc: fmt.Sprintf("%s-%d", name, time.Now().UnixNano())}
}

func createSweep(ctx context.Context, c *client.Client, yaml string) (string, error) {
	s, _, err := c.Submit(ctx, client.Submission{Spec: yaml, Name: "bench.yaml"})
	if err != nil {
		return "", err
	}
	return s.ID, nil
}

// openSweep makes a sweep whose trials only this load takes.
func (l *load) openSweep(ctx context.Context, trials, parallelism int) (string, error) {
	return createSweep(ctx, l.c, fmt.Sprintf(`
name: load
search_method: random
seed: 1
objective: {metric: val_loss, direction: minimize}
budget: {trials: %d}
parallelism: %d
trainer: %s
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
  depth: {type: int, low: 1, high: 5}
`, trials, parallelism, loadTrainer))
}

// leases keeps what the load holds alive until ctx ends.
type leases struct {
	mu   sync.Mutex
	held map[int64]trial.LeaseRef
}

func (h *leases) add(l *trial.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[l.Trial] = l.LeaseRef
}

func (h *leases) drop(trial int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, trial)
}

func (h *leases) refs() []trial.LeaseRef {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.held))
}

// heartbeat registers the load as a worker and renews its leases. It returns
// once the first beat is answered.
func (l *load) heartbeat(ctx context.Context, h *leases) error {
	beat := func() error {
		_, err := l.c.Heartbeat(ctx, trial.Heartbeat{Worker: trial.Worker{Name: l.name, Incarnation: l.inc, Trainers: []string{loadTrainer}, Address: "127.0.0.1:1"}, Leases: h.refs()})
		return err
	}
	if err := beat(); err != nil {
		return err
	}
	go func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				_ = beat()
			}
		}
	}()
	return nil
}

// acquire takes one lease.
func (l *load) acquire(ctx context.Context, slot string) (*trial.Lease, error) {
	id := fmt.Sprintf("%s-%s-%d", l.inc, slot, time.Now().UnixNano())
	for {
		lease, err := l.c.Acquire(ctx, client.AcquireRequest{RequestID: id, Worker: l.name, Incarnation: l.inc, Slot: slot, Trainers: []string{loadTrainer}, Wait: 5 * time.Second})
		if err != nil || lease != nil {
			return lease, err
		}
	}
}

func report(l *trial.Lease, epoch int) trial.Event {
	x := 1/float64(epoch+1) + float64(l.Trial%997)/1000
	return trial.Event{LeaseRef: l.LeaseRef, Report: &trial.Report{Epoch: int32(epoch), TimeMS: time.Now().UnixMilli(),
		Metrics: trial.Metrics{{Name: "val_loss", Value: x}, {Name: "val_acc", Value: 1 - x/2}, {Name: "train_loss", Value: math.Sqrt(x)}}}}
}

func ended(l *trial.Lease) trial.Event {
	return trial.Event{LeaseRef: l.LeaseRef, Ended: &trial.Ended{Exit: trial.ExitFinished, TimeMS: time.Now().UnixMilli()}}
}

// relay sends events and checks that each was recorded, now or before.
func (l *load) relay(ctx context.Context, events ...trial.Event) error {
	results, err := l.c.Relay(ctx, l.name, l.inc, events)
	if err != nil {
		return err
	}
	for i, x := range results {
		if x.Outcome != trial.OutcomeRecorded && x.Outcome != trial.OutcomeAlready {
			return fmt.Errorf("event %d of trial %d: %v %s", i, events[i].Trial, x.Outcome, x.Message)
		}
	}
	return nil
}

// waitSweep waits until the sweep ended and returns it.
func waitSweep(ctx context.Context, c *client.Client, id string, each func(*trial.Sweep)) (*trial.Sweep, error) {
	s, err := c.Follow(ctx, id, func(s *trial.Sweep) error {
		if each != nil {
			each(s)
		}
		return nil
	})
	if err == nil && s.Status != trial.SweepFinished {
		err = fmt.Errorf("sweep ended as %s: %s", s.Status, s.Failure)
	}
	return s, err
}

// percentile of durations, in ms.
func percentile(took []time.Duration, p float64) float64 {
	return harness.Quantile(harness.Of(took, func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }), p)
}
