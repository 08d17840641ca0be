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
	"atelier/coordinator/duty/persweep"
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

// Judge is the duty: a sweepJudge for each open sweep that has a rule.
type Judge struct {
	cfg    Config
	judges *persweep.Group[*sweepJudge]
}

// New returns the duty, not started.
func New(cfg Config) *Judge {
	j := &Judge{cfg: cfg}
	j.judges = persweep.New(persweep.Config[*sweepJudge]{
		View: cfg.View, Logger: cfg.Logger, Run: (*sweepJudge).run,
		Begin: func(s *persweep.Handle) *sweepJudge {
			return &sweepJudge{Handle: s, cfg: cfg, decided: make(chan struct{})}
		},
		Fail: func(ctx context.Context, sweep, reason string) error {
			return failSweep(ctx, cfg, sweep, "stopping rule: "+reason)
		},
	})
	return j
}

// Start begins to judge every open sweep.
func (j *Judge) Start() { j.judges.Start(j.adopt) }

// Stop ends it.
func (j *Judge) Stop() { j.judges.Stop() }

// judged reports whether a rule has a say in a sweep now.
func judged(s *state.Sweep) bool {
	return s.StoppingJSON != "" && (s.Status == trial.SweepRunning || s.Status == trial.SweepPaused)
}

// adopt begins with the sweeps that are judged now.
func (j *Judge) adopt(judges persweep.Registry[*sweepJudge]) {
	for _, s := range j.cfg.View().Sweeps() {
		if judged(s) {
			judges.Ensure(s.ID)
		}
	}
}

// Changed implements duty.Watcher.
func (j *Judge) Changed(changes []state.Change) {
	j.judges.Do(func(judges persweep.Registry[*sweepJudge]) {
		var view *state.View
		for i := range changes {
			c := &changes[i]
			if _, open := judges.Find(c.Sweep); !open {
				if c.Kind != state.SweepCreated && c.Kind != state.SweepChanged {
					continue
				}
				if view == nil {
					view = j.cfg.View()
				}
				if s, ok := view.Sweep(c.Sweep); ok && judged(s) {
					judges.Ensure(c.Sweep)
				}
				continue
			}
			switch c.Kind {
			case state.ReportRecorded, state.TrialPaused, state.TrialEnded, state.TrialReopened, state.LeaseEnded, state.SweepChanged, state.TrialsProposed:
				judges.Wake(c.Sweep)
			}
		}
	})
}

// Resync implements duty.Watcher.
func (j *Judge) Resync() { j.judges.Restart(j.adopt) }

// Judges reports whether a rule has a say in a sweep here, without a look at the
// state.
func (j *Judge) Judges(sweep string) (is bool) {
	j.judges.Do(func(judges persweep.Registry[*sweepJudge]) { _, is = judges.Find(sweep) })
	return is
}

// Await returns once what the sweep's rule decides on the state at index is in
// the log; at once where nobody judges the sweep here, and when ctx ends. So the
// answer to a report can carry the verdict on it.
func (j *Judge) Await(ctx context.Context, sweep string, index uint64) {
	for {
		var decided, over <-chan struct{}
		j.judges.Do(func(judges persweep.Registry[*sweepJudge]) {
			c, open := judges.Find(sweep)
			if !open || c.closed || c.settled >= index {
				return
			}
			decided, over = c.decided, judges.Context().Done()
			judges.Wake(sweep) // the change may not have come here yet
		})
		if decided == nil {
			return
		}
		select {
		case <-decided:
		case <-ctx.Done():
			return
		case <-over:
			return
		}
	}
}
