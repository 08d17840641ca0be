// Package propose keeps sweeps supplied with trials: whenever a running sweep
// has room, its search method is asked for points, and the points go into the
// log.
//
// A proposal is a function of the sweep's spec, seed and history, all of which
// are replicated: a new leader goes on from the state alone, and a proposal
// that comes twice or late is a no-op in the log. The package refuses to keep
// anything that a restart would lose; what it remembers is a cache.
package propose

import (
	"context"
	"log/slog"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/duty/persweep"
	"atelier/coordinator/state"
)

// Log is where proposals are made durable.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of a Proposer.
type Config struct {
	Log    Log
	View   func() *state.View
	NowMS  func() int64
	Logger *slog.Logger
	// Settle returns once what a sweep's stopping rule decides on the state at
	// index is in the log: trials that it resumes come before new ones. nil = no
	// rules here.
	Settle func(ctx context.Context, sweep string, index uint64)
}

// Proposer is the duty: a searcher for each running sweep.
type Proposer struct {
	cfg      Config
	searches *persweep.Group[*searcher]
}

// New returns the duty, not started.
func New(cfg Config) *Proposer {
	p := &Proposer{cfg: cfg}
	p.searches = persweep.New(persweep.Config[*searcher]{
		View: cfg.View, Logger: cfg.Logger, Run: (*searcher).run,
		Begin: func(s *persweep.Handle) *searcher { return &searcher{Handle: s, cfg: cfg} },
		Fail: func(ctx context.Context, sweep, reason string) error {
			return failSweep(ctx, cfg, sweep, reason)
		},
	})
	return p
}

// Start begins to search for every running sweep.
func (p *Proposer) Start() { p.searches.Start(p.adopt) }

// Stop ends the searches. One that is still running is not waited for: its
// result is dropped.
func (p *Proposer) Stop() { p.searches.Stop() }

// adopt begins with the sweeps that run; what search was told before this leadership it has missed.
func (p *Proposer) adopt(searches persweep.Registry[*searcher]) {
	for _, s := range p.cfg.View().Sweeps() {
		if s.Status == trial.SweepRunning {
			searches.Ensure(s.ID).missed = true
		}
	}
}

// Changed implements duty.Watcher.
func (p *Proposer) Changed(changes []state.Change) {
	p.searches.Do(func(searches persweep.Registry[*searcher]) {
		for i := range changes {
			switch c := &changes[i]; c.Kind {
			case state.SweepCreated, state.SweepChanged:
				searches.Ensure(c.Sweep)
			case state.TrialEnded, state.TrialPaused, state.TrialReopened:
				if s, ok := searches.Wake(c.Sweep); ok {
					s.stale = append(s.stale, c.Trial)
				}
			}
		}
	})
}

// Resync implements duty.Watcher.
func (p *Proposer) Resync() { p.searches.Restart(p.adopt) }
