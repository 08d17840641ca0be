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

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/duty/attend"
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

// Judge is the duty: an attendant for each open sweep that has a rule.
type Judge struct {
	cfg    Config
	courts *attend.Group[*court]
}

// New returns the duty, not started.
func New(cfg Config) *Judge {
	j := &Judge{cfg: cfg}
	j.courts = attend.New(attend.Config[*court]{
		View: cfg.View, Logger: cfg.Logger, Run: (*court).run,
		Begin: func(s *attend.Seat) *court { return &court{Seat: s, cfg: cfg, looked: make(chan struct{})} },
		Fail: func(ctx context.Context, sweep, reason string) error {
			return failSweep(ctx, cfg, sweep, "stopping rule: "+reason)
		},
	})
	return j
}

// Start begins to judge every open sweep.
func (j *Judge) Start() { j.courts.Start(j.adopt) }

// Stop ends it.
func (j *Judge) Stop() { j.courts.Stop() }

// judged reports whether a rule has a say in a sweep now.
func judged(s *state.Sweep) bool {
	return s.StoppingJSON != "" && (s.Status == trial.SweepRunning || s.Status == trial.SweepPaused)
}

func (j *Judge) adopt(courts attend.Roll[*court]) {
	for _, s := range j.cfg.View().Sweeps() {
		if judged(s) {
			courts.Call(s.ID)
		}
	}
}

// Changed implements duty.Watcher.
func (j *Judge) Changed(changes []state.Change) {
	j.courts.Do(func(courts attend.Roll[*court]) {
		var view *state.View
		for i := range changes {
			c := &changes[i]
			if _, open := courts.Find(c.Sweep); !open {
				if c.Kind != state.SweepCreated && c.Kind != state.SweepChanged {
					continue
				}
				if view == nil {
					view = j.cfg.View()
				}
				if s, ok := view.Sweep(c.Sweep); ok && judged(s) {
					courts.Call(c.Sweep)
				}
				continue
			}
			switch c.Kind {
			case state.ReportRecorded, state.TrialPaused, state.TrialEnded, state.TrialReopened, state.LeaseEnded, state.SweepChanged, state.TrialsProposed:
				courts.Wake(c.Sweep)
			}
		}
	})
}

// Resync implements duty.Watcher.
func (j *Judge) Resync() { j.courts.Restart(j.adopt) }

// Judges reports whether a rule has a say in a sweep here, without a look at the
// state.
func (j *Judge) Judges(sweep string) (is bool) {
	j.courts.Do(func(courts attend.Roll[*court]) { _, is = courts.Find(sweep) })
	return is
}

// Await returns once what the sweep's rule decides on the state at index is in
// the log; at once where nobody judges the sweep here, and when ctx ends. So the
// answer to a report can carry the verdict on it.
func (j *Judge) Await(ctx context.Context, sweep string, index uint64) {
	for {
		var looked, over <-chan struct{}
		j.courts.Do(func(courts attend.Roll[*court]) {
			c, open := courts.Find(sweep)
			if !open || c.closed || c.settled >= index {
				return
			}
			looked, over = c.looked, courts.Context().Done()
			courts.Wake(sweep) // the change may not have come here yet
		})
		if looked == nil {
			return
		}
		select {
		case <-looked:
		case <-ctx.Done():
			return
		case <-over:
			return
		}
	}
}
