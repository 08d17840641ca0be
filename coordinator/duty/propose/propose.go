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
	"sync"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
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

// Proposer is the duty: one goroutine for each running sweep.
type Proposer struct {
	cfg Config

	mu   sync.Mutex
	term *term // nil while not leading
}

type term struct {
	ctx      context.Context
	cancel   context.CancelFunc
	searches map[string]*searcher
}

// New returns the duty, not started.
func New(cfg Config) *Proposer { return &Proposer{cfg: cfg} }

// Start begins to search for every running sweep.
func (p *Proposer) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.term = &term{ctx: ctx, cancel: cancel, searches: map[string]*searcher{}}
	p.adopt(p.term)
}

// Stop ends the searches. One that is deep in thought is not waited for: what
// it finds then goes nowhere.
func (p *Proposer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.term != nil {
		p.term.cancel()
		p.term = nil
	}
}

func (p *Proposer) adopt(t *term) {
	for _, s := range p.cfg.View().Sweeps() {
		if s.Status == atelierv1.SweepStatus_SWEEP_STATUS_RUNNING {
			p.poke(t, s.ID, true).missed = true
		}
	}
}

// poke wakes a sweep's searcher. When there is none and start is set, it starts
// one.
func (p *Proposer) poke(t *term, sweep string, start bool) *searcher {
	s := t.searches[sweep]
	if s == nil && start {
		s = &searcher{p: p, t: t, id: sweep, wake: make(chan struct{}, 1)}
		t.searches[sweep] = s
		go s.run()
	}
	if s != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return s
}

// retire takes a searcher off the list, unless it has been woken meanwhile.
func (p *Proposer) retire(s *searcher) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(s.wake) > 0 {
		return false
	}
	delete(s.t.searches, s.id)
	return true
}

// Changed implements duty.Watcher.
func (p *Proposer) Changed(changes []state.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.term
	if t == nil {
		return
	}
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case state.SweepCreated, state.SweepChanged:
			p.poke(t, c.Sweep, true)
		case state.TrialEnded, state.TrialPaused, state.TrialReopened:
			if s := p.poke(t, c.Sweep, false); s != nil {
				s.stale = append(s.stale, c.Trial)
			}
		}
	}
}

// Resync implements duty.Watcher.
func (p *Proposer) Resync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.term != nil {
		for _, s := range p.term.searches {
			s.missed = true
		}
		p.adopt(p.term)
	}
}
