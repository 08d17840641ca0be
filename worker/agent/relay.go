package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// A request has this much at most: coordinators take up to 4,096 events in one,
// but what is sent together is answered together.
const (
	batchEvents = 256
	batchBytes  = 1 << 20
)

// relay is the agent's one ordered queue of events. One request is in flight at
// a time, so what arrives is in order; it is repeated until it is answered.
type relay struct {
	coordinator Coordinator
	worker      string
	incarnation string
	limit       int // bytes
	log         *slog.Logger

	mu        sync.Mutex
	items     []item
	bytes     int
	unlimited bool          // no limit any more: the agent is ending
	freed     chan struct{} // closed and replaced when something left the queue
	filled    chan struct{} // capacity 1
	counts    map[trial.Outcome]int64

	reports, checkpoints, checkpointBytes int64 // recorded
}

// item is one event; answer is called once, from the sending goroutine.
type item struct {
	event  trial.Event
	size   int
	answer func(trial.EventResult)
}

func newRelay(c Coordinator, worker, incarnation string, limit int, log *slog.Logger) *relay {
	return &relay{coordinator: c, worker: worker, incarnation: incarnation, limit: limit, log: log,
		freed: make(chan struct{}), filled: make(chan struct{}, 1), counts: map[trial.Outcome]int64{}}
}

// sizeOf is about what an event takes, here and in a request.
func sizeOf(e *trial.Event) int {
	n := 128 + len(e.Sweep)
	if r := e.Report; r != nil {
		n += len(r.Data)
		for i := range r.Metrics {
			n += 32 + len(r.Metrics[i].Name)
		}
	}
	if c := e.Checkpoint; c != nil {
		n += 64 + len(c.SHA256) + len(c.Location) + len(c.Worker)
	}
	for _, end := range []*trial.Ended{e.Ended, e.MemberEnded} {
		if end != nil {
			n += len(end.Message)
		}
	}
	if v := e.View; v != nil {
		n += 64 + 8*len(v.Members) + len(v.Reason)
	}
	if e.Lost != nil {
		n += len(e.Lost.Location) + len(e.Lost.Worker)
	}
	return n
}

// push queues an event. While the queue is full it waits for room, or until
// lost is closed: then the event could only be fenced, and false is returned.
// A nil channel means that the event is queued at once, full or not: the end of
// a run is small and there is one for each.
func (r *relay) push(e trial.Event, lost <-chan struct{}, answer func(trial.EventResult)) bool {
	it := item{event: e, size: sizeOf(&e), answer: answer}
	for {
		r.mu.Lock()
		if lost == nil || r.unlimited || r.bytes == 0 || r.bytes+it.size <= r.limit {
			r.items = append(r.items, it)
			r.bytes += it.size
			r.mu.Unlock()
			select {
			case r.filled <- struct{}{}:
			default:
			}
			return true
		}
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-freed:
		case <-lost:
			return false
		}
	}
}

// liftLimit lifts the limit, so that trainers which are being ended need not wait
// for a coordinator: what they still have to say is no more than a pipe holds.
func (r *relay) liftLimit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlimited = true
	close(r.freed)
	r.freed = make(chan struct{})
}

// waiting returns how much is waiting.
func (r *relay) waiting() (events, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.items), r.bytes
}

// nextBatch returns the next batch without taking it from the queue: it goes when
// it is answered. An event that is larger than a batch goes alone.
func (r *relay) nextBatch(most int) []item {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, size := 0, 0
	for n < len(r.items) && n < most && (n == 0 || size+r.items[n].size <= batchBytes) {
		size += r.items[n].size
		n++
	}
	return r.items[:n:n]
}

// remove takes answered events from the queue and wakes those who wait for room.
func (r *relay) remove(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.items[:n] {
		r.bytes -= r.items[i].size
		r.items[i] = item{}
	}
	r.items = r.items[n:]
	if len(r.items) == 0 {
		r.items = nil // lets the array of a burst go
	}
	close(r.freed)
	r.freed = make(chan struct{})
}

// send works the queue until ctx ends. A request that failed for want of a leader is
// repeated, with pauses; one that is refused as it stands is halved until the event
// at fault is alone, which is dropped.
func (r *relay) send(ctx context.Context) {
	most, backoff := batchEvents, time.Duration(0)
	for {
		batch := r.nextBatch(most)
		if len(batch) == 0 {
			select {
			case <-r.filled:
			case <-ctx.Done():
				return
			}
			continue
		}
		results, err := r.call(ctx, batch)
		switch {
		case err == nil:
			most, backoff = batchEvents, 0
		case ctx.Err() != nil:
			return
		case refused(err) && len(batch) > 1:
			most = max(1, len(batch)/2)
			continue
		case refused(err):
			r.log.Error("the coordinators refuse an event; dropped", "sweep", batch[0].event.Sweep, "trial", batch[0].event.Trial, "error", err)
			results = []trial.EventResult{{Outcome: trial.OutcomeRefused, Message: err.Error()}}
		default:
			if backoff == 0 {
				r.log.Warn("reports wait for a coordinator", "events", len(batch), "error", err)
			}
			backoff = min(max(2*backoff, 20*time.Millisecond), time.Second)
			sleep(ctx, backoff)
			continue
		}
		for i, it := range batch {
			r.count(&it.event, results[i].Outcome)
			it.answer(results[i])
		}
		r.remove(len(batch))
	}
}

// call sends a batch; events are known by token and epoch, so one that is sent again counts once.
func (r *relay) call(ctx context.Context, batch []item) ([]trial.EventResult, error) {
	events := make([]trial.Event, len(batch))
	for i := range batch {
		events[i] = batch[i].event
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return r.coordinator.Relay(ctx, r.worker, r.incarnation, events)
}

// refused reports whether the request itself is at fault, so that repeating it is
// useless.
func refused(err error) bool {
	switch client.CodeOf(err) {
	case client.CodeInvalidArgument, client.CodeOutOfRange:
		return true
	}
	return false
}

// count is for the metrics.
func (r *relay) count(e *trial.Event, o trial.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[o]++
	if o != trial.OutcomeRecorded {
		return
	}
	switch {
	case e.Report != nil:
		r.reports++
	case e.Checkpoint != nil:
		r.checkpoints++
		r.checkpointBytes += e.Checkpoint.Size
	}
}

// flush waits until the queue is empty and returns what is left of it after d.
func (r *relay) flush(d time.Duration) int {
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		r.mu.Lock()
		n, freed := len(r.items), r.freed
		r.mu.Unlock()
		if n == 0 {
			return 0
		}
		select {
		case <-freed:
		case <-end.C:
			return n
		}
	}
}
