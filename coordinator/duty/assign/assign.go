// Package assign gives waiting trials to waiting workers, and takes them back
// from workers that are no longer heard of.
//
// What counts is in the log: the grant of a lease and its end. Who waits, who
// was heard of when, and when a lease runs out is in the leader's memory and
// begins anew with each leader, every lease with its full term. The package
// refuses to hand out a lease before its grant is durable, and to end one by
// any other way than the log.
package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

const (
	// maxWait bounds one long poll.
	maxWait = 60 * time.Second
	// otherSlotFor is how long a trial that met a device fault waits for
	// another slot than the one it met it on.
	otherSlotFor = 5 * time.Second
	// forgetAfter is how long a silent worker is listed.
	forgetAfter = time.Hour
	// logTimeout bounds one command; a leader that takes longer is none.
	logTimeout = 10 * time.Second
)

// ErrNotLeading is returned while this node does not lead.
var ErrNotLeading = errors.New("no leader: this coordinator does not lead")

// Log is where grants and ends of leases are made durable.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of an Assigner.
type Config struct {
	Log    Log
	View   func() *state.View
	TTL    time.Duration // term of a lease
	Now    func() time.Time
	Logger *slog.Logger
}

// Assigner is the duty.
type Assigner struct {
	cfg  Config
	tick time.Duration

	mu   sync.Mutex
	term *term // nil while not leading
}

// term is what one leadership remembers. All of it is guarded by Assigner.mu.
type term struct {
	ctx    context.Context
	cancel context.CancelFunc

	leases   map[uint64]*lease
	requests map[request]*lease
	granting map[trialKey]*waiter // grants on their way through the log, by trial
	promised map[request]*waiter  // the same, by request
	waiters  []*waiter            // in order of arrival
	workers  map[string]*worker
	faults   map[trialKey]time.Time // trials that look for another slot, since
	dropped  map[string][]string    // by worker: files that nobody needs, until it has been told twice
	told     map[string]int         // by worker: how many of them it was told once
	refusals map[refusalKey]refusal // looked up, and walked to forget
	claims   map[claimKey]time.Time // names refused to a second folder, since
	began    time.Time
	fresh    bool // it began without a sweep: a new cluster, where nobody is missed
}

type trialKey struct {
	sweep string
	trial int64
}

// request names an Acquire, so that its repeat gets the same lease.
type request struct{ worker, incarnation, id string }

type lease struct {
	trialKey
	request
	token    uint64
	folder   string
	deadline time.Time
	term     time.Duration
	ending   bool // its end is on its way through the log
}

// New returns the duty, not started.
func New(cfg Config) *Assigner {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Assigner{cfg: cfg, tick: min(200*time.Millisecond, cfg.TTL/8)}
}

// TTL is the term of a lease.
func (a *Assigner) TTL() time.Duration { return a.cfg.TTL }

// Start begins a leadership: every lease of the state gets its full term.
func (a *Assigner) Start() {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	a.term = &term{
		ctx: ctx, cancel: cancel,
		leases: map[uint64]*lease{}, requests: map[request]*lease{},
		granting: map[trialKey]*waiter{}, promised: map[request]*waiter{},
		workers: map[string]*worker{}, faults: map[trialKey]time.Time{},
		dropped: map[string][]string{}, told: map[string]int{}, refusals: map[refusalKey]refusal{},
		claims: map[claimKey]time.Time{}, began: a.cfg.Now(),
	}
	if len(a.cfg.View().Sweeps()) == 0 {
		a.term.fresh = true
	}
	a.adopt(a.term)
	go a.watch(a.term)
}

// Stop ends it. Whoever waits is told that there is no leader.
func (a *Assigner) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.term != nil {
		a.term.cancel()
		a.term = nil
	}
}

// Changed implements duty.Watcher.
func (a *Assigner) Changed(changes []state.Change) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.term
	if t == nil {
		return
	}
	work := false
	var view *state.View
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case state.LeaseGranted:
			if t.leases[c.Token] == nil {
				if view == nil {
					view = a.cfg.View()
				}
				a.arm(t, view, c.Sweep, c.Trial, c.Token)
			}
		case state.CheckpointDropped:
			t.discard(c)
		case state.LeaseEnded:
			t.drop(c.Token)
			if view == nil {
				view = a.cfg.View()
			}
			t.judge(view, c, a.cfg.Now())
			work = true
		case state.SweepChanged:
			if len(t.refusals) > 0 {
				if s, ok := a.cfg.View().Sweep(c.Sweep); ok && s.Ended() {
					t.forgive(c.Sweep)
				}
			}
			work = true
		case state.SweepCreated, state.TrialsProposed, state.TrialReopened, state.TrialEnded, state.DrainChanged:
			work = true
		}
	}
	if work {
		a.match(t)
	}
}

// Resync implements duty.Watcher.
func (a *Assigner) Resync() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.term; t != nil {
		// Which files nobody needs, which worker refused what: of a state that may be
		// gone. A file that was to be deleted may be needed again.
		t.faults, t.refusals = map[trialKey]time.Time{}, map[refusalKey]refusal{}
		t.dropped, t.told = map[string][]string{}, map[string]int{}
		a.adopt(t)
		a.match(t)
	}
}

// adopt makes the table of leases that of the state. Leases known already keep
// their deadlines.
func (a *Assigner) adopt(t *term) {
	view := a.cfg.View()
	live := map[uint64]bool{}
	for _, s := range view.Sweeps() {
		if s.Counts.Running == 0 {
			continue
		}
		for _, n := range s.Open() {
			if l := s.Trial(n).Lease; l != nil {
				live[l.Token] = true
				if t.leases[l.Token] == nil {
					a.arm(t, view, s.ID, n, l.Token)
				}
			}
		}
	}
	for token := range t.leases {
		if !live[token] {
			t.drop(token)
		}
	}
}

// arm gives a lease its full term from now, if the view holds it.
func (a *Assigner) arm(t *term, view *state.View, sweep string, trial int64, token uint64) *lease {
	l := current(view, sweep, trial, token)
	if l == nil {
		return nil
	}
	held := &lease{
		trialKey: trialKey{sweep, trial}, request: request{l.Worker, l.Incarnation, l.Request},
		token: token, folder: l.Folder, deadline: a.cfg.Now().Add(a.span(l)), term: a.span(l),
	}
	t.leases[token] = held
	t.requests[held.request] = held
	return held
}

func (t *term) drop(token uint64) {
	if l := t.leases[token]; l != nil {
		delete(t.leases, token)
		if t.requests[l.request] == l {
			delete(t.requests, l.request)
		}
	}
}

// current returns a trial's lease if it has this token.
func current(view *state.View, sweep string, trial int64, token uint64) *state.Lease {
	s, ok := view.Sweep(sweep)
	if !ok {
		return nil
	}
	t := s.Trial(trial)
	if t == nil || t.Lease == nil || t.Lease.Token != token {
		return nil
	}
	return t.Lease
}

// watch ends leases that ran out, until the leadership ends.
func (a *Assigner) watch(t *term) {
	ticker := time.NewTicker(a.tick)
	defer ticker.Stop()
	last := a.cfg.Now()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
		}
		now := a.cfg.Now()
		a.look(t, now, now.Sub(last))
		last = now
	}
}

// look ends what ran out by now; gap is the time since the last look.
func (a *Assigner) look(t *term, now time.Time, gap time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { // whatever one sweep brings about, the leases of the others are looked after
		if fault := recover(); fault != nil {
			a.cfg.Logger.Error("panic in the look at leases", "panic", fault, "stack", string(debug.Stack()))
		}
	}()
	// A process that stood still (stopped, swapped, a slow machine) has heard
	// nobody in that time: it is not the workers that were silent.
	if gap > 10*a.tick {
		for _, l := range t.leases {
			l.deadline = l.deadline.Add(gap)
		}
		for _, w := range t.workers {
			w.seen = w.seen.Add(gap)
		}
		for k, since := range t.claims {
			t.claims[k] = since.Add(gap)
		}
		t.began = t.began.Add(gap)
	}
	for _, l := range t.leases {
		if !l.ending && now.After(l.deadline) {
			a.end(t, l, fmt.Sprintf("nothing was heard of it for %v", l.term))
		}
	}
	for name, w := range t.workers {
		if now.Sub(w.seen) > forgetAfter {
			delete(t.workers, name)
		}
	}
	for k, since := range t.faults {
		if now.Sub(since) > 10*otherSlotFor {
			delete(t.faults, k)
		}
	}
	for k, since := range t.claims {
		if now.Sub(since) > forgetAfter {
			delete(t.claims, k)
		}
	}
	if len(t.faults)+len(t.refusals) > 0 {
		a.match(t)
	}
}

// end ends a lease through the log. Should that fail, the next tick tries
// again.
func (a *Assigner) end(t *term, l *lease, cause string) {
	l.ending = true
	go func() {
		ctx, cancel := context.WithTimeout(t.ctx, logTimeout)
		defer cancel()
		res, err := a.cfg.Log.Propose(ctx, &logv1.Command{
			TimeMs: a.cfg.Now().UnixMilli(),
			Op: &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{
				Id: l.sweep, Trial: l.trial, Token: l.token, Cause: cause,
			}},
		})
		a.mu.Lock()
		defer a.mu.Unlock()
		if err != nil {
			l.ending = false
			return
		}
		t.drop(l.token)
		if res.Err == nil && res.Outcome != trial.OutcomeAlready {
			a.cfg.Logger.Info("lease ended", "sweep", l.sweep, "trial", l.trial, "token", l.token, "worker", l.worker, "cause", cause)
		}
	}()
}
