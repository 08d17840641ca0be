// Package judge obeys the stopping rules of sweeps: it looks at what trials
// have reported and writes verdicts and resumptions into the log.
//
// What a rule decides is a function of the state alone, so a new leader goes on
// where the old one was cut off, and a decision that comes twice is a no-op in
// the log. The package refuses to remember anything that a restart would lose;
// what it keeps is a cache.
package judge

import (
	"context"
	"log/slog"
	"sync"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

// Log is where decisions are made durable.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of a Judge.
type Config struct {
	Log    Log
	View   func() *state.View
	NowMS  func() int64
	Logger *slog.Logger
}

// Judge is the duty: one goroutine for each open sweep that has a rule.
type Judge struct {
	cfg Config

	mu   sync.Mutex
	term *term // nil while not leading
}

type term struct {
	ctx    context.Context
	cancel context.CancelFunc
	courts map[string]*court
}

// New returns the duty, not started.
func New(cfg Config) *Judge { return &Judge{cfg: cfg} }

// Start begins to judge every open sweep.
func (j *Judge) Start() {
	j.mu.Lock()
	defer j.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	j.term = &term{ctx: ctx, cancel: cancel, courts: map[string]*court{}}
	j.adopt(j.term)
}

// Stop ends it.
func (j *Judge) Stop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.term != nil {
		j.term.cancel()
		j.term = nil
	}
}

// judged reports whether a rule has a say in a sweep now.
func judged(s *state.Sweep) bool {
	return s.StoppingJSON != "" && (s.Status == atelierv1.SweepStatus_SWEEP_STATUS_RUNNING || s.Status == atelierv1.SweepStatus_SWEEP_STATUS_PAUSED)
}

func (j *Judge) adopt(t *term) {
	for _, s := range j.cfg.View().Sweeps() {
		if judged(s) {
			j.call(t, s.ID)
		}
	}
}

// call wakes a sweep's court, opened where there is none.
func (j *Judge) call(t *term, sweep string) *court {
	c := t.courts[sweep]
	if c == nil {
		c = &court{j: j, t: t, id: sweep, wake: make(chan struct{}, 1), looked: make(chan struct{})}
		t.courts[sweep] = c
		go c.run()
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return c
}

// close takes a court off the list, unless it has been woken meanwhile. Who
// waits for it is let go.
func (j *Judge) close(c *court) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(c.wake) > 0 {
		return false
	}
	delete(c.t.courts, c.id)
	c.closed = true
	close(c.looked)
	return true
}

// Changed implements duty.Watcher.
func (j *Judge) Changed(changes []state.Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.term
	if t == nil {
		return
	}
	var view *state.View
	for i := range changes {
		c := &changes[i]
		if t.courts[c.Sweep] == nil {
			if c.Kind != state.SweepCreated && c.Kind != state.SweepChanged {
				continue
			}
			if view == nil {
				view = j.cfg.View()
			}
			if s, ok := view.Sweep(c.Sweep); ok && judged(s) {
				j.call(t, c.Sweep)
			}
			continue
		}
		switch c.Kind {
		case state.ReportRecorded, state.TrialPaused, state.TrialEnded, state.TrialReopened, state.LeaseEnded, state.SweepChanged, state.TrialsProposed:
			j.call(t, c.Sweep)
		}
	}
}

// Resync implements duty.Watcher.
func (j *Judge) Resync() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.term; t != nil {
		for id := range t.courts {
			j.call(t, id)
		}
		j.adopt(t)
	}
}

// Judges reports whether a rule has a say in a sweep here, without a look at the
// state.
func (j *Judge) Judges(sweep string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.term != nil && j.term.courts[sweep] != nil
}

// Await returns once what the sweep's rule decides on the state at index is in
// the log; at once where nobody judges the sweep here, and when ctx ends. So the
// answer to a report can carry the verdict on it.
func (j *Judge) Await(ctx context.Context, sweep string, index uint64) {
	for {
		j.mu.Lock()
		t := j.term
		var c *court
		if t != nil {
			c = t.courts[sweep]
		}
		if c == nil || c.closed || c.settled >= index {
			j.mu.Unlock()
			return
		}
		looked := c.looked
		j.call(t, sweep) // the change may not have come here yet
		j.mu.Unlock()
		select {
		case <-looked:
		case <-ctx.Done():
			return
		case <-t.ctx.Done():
			return
		}
	}
}
