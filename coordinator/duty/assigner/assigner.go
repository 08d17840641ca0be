// Package assigner is the duty that gives trials to workers: it carries out what
// package assign decides, with the clock, the log, and the long polls that wait.
//
// One lock stands round the scheduler, and nothing under it blocks. A step comes
// when something happens (a poll, a heartbeat, a change, an answer of the log) and
// at each tick, which finds the leases that ran out. The package refuses to decide
// anything.
package assigner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/state"
)

const (
	// maxWait bounds one long poll.
	maxWait = 60 * time.Second
	// logTimeout bounds one command; a leader that takes longer is none.
	logTimeout = 10 * time.Second
	// conflictPause is how long a grant that was refused stands back, so that a
	// disagreement with the state costs time and not the processor.
	conflictPause = 5 * time.Millisecond
)

// ErrNotLeading is returned while this node does not lead.
var ErrNotLeading = errors.New("no leader: this coordinator does not lead")

// Log is where grants, changes of groups and ends of leases are made durable.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of a Duty.
type Config struct {
	Log    Log
	View   func() *state.View
	TTL    time.Duration // term of a lease
	Logger *slog.Logger
}

// Duty is the duty.
type Duty struct {
	cfg Config

	mu   sync.Mutex
	term *term // nil while not leading
}

// term is one leadership. What is not ctx is guarded by Duty.mu.
type term struct {
	ctx       context.Context
	cancel    context.CancelFunc
	scheduler *assign.Scheduler
	polls     map[uint64]chan assign.Answer // by waiter, each with room for its answer
	last      uint64                        // waiter
}

// New returns the duty, not started.
func New(cfg Config) *Duty { return &Duty{cfg: cfg} }

// TTL is the term of a lease.
func (d *Duty) TTL() time.Duration { return d.cfg.TTL }

// Start begins a leadership.
func (d *Duty) Start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	d.term = &term{ctx: ctx, cancel: cancel, scheduler: assign.New(d.cfg.TTL, d.cfg.View(), time.Now()), polls: map[uint64]chan assign.Answer{}}
	go d.watch(d.term)
}

// Stop ends it. Whoever waits is told that there is no leader.
func (d *Duty) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term != nil {
		d.term.cancel()
		d.term = nil
	}
}

// watch tells the scheduler of the time, until the leadership ends.
func (d *Duty) watch(t *term) {
	ticker := time.NewTicker(assign.Tick(d.cfg.TTL))
	defer ticker.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
			d.tell(t, assign.Ticked{})
		}
	}
}

// Changed implements duty.Watcher.
func (d *Duty) Changed(changes []state.Change) {
	if slices.ContainsFunc(changes, assign.Matters) {
		d.watched(assign.Changed{Changes: changes})
	}
}

// Resync implements duty.Watcher.
func (d *Duty) Resync() { d.watched(assign.Resynced{}) }

// watched tells the scheduler of what a watcher hears. A panic goes on to where it
// is found out which sweep brought it about.
func (d *Duty) watched(e assign.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == nil {
		return
	}
	if _, fault := d.step(d.term, e); fault != nil {
		panic(fault.Panic)
	}
}

// tell tells the scheduler of an event that nobody waits for. Whatever one sweep
// brings about, the leases of the others are looked after.
func (d *Duty) tell(t *term, e assign.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.ctx.Err() == nil {
		d.step(t, e)
	}
}

// ask tells the scheduler of an event that it replies to.
func (d *Duty) ask(e assign.Event) (answer trial.HeartbeatAnswer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == nil {
		return answer, ErrNotLeading
	}
	reply, fault := d.step(d.term, e)
	if reply == nil {
		return answer, errorOf(fault)
	}
	return reply.Heartbeat, reply.Err
}

// errorOf is a panic for whoever was waiting.
func errorOf(f *assign.Fail) error {
	return fmt.Errorf("a fault of the coordinator, please report it: panic: %v", f.Panic)
}

// step takes one step and has its commands carried out. It holds the lock.
func (d *Duty) step(t *term, e assign.Event) (reply *assign.Reply, fault *assign.Fail) {
	for _, c := range t.scheduler.Step(e, d.cfg.View(), time.Now()) {
		switch c := c.(type) {
		case assign.Grant:
			go d.grant(t, c)
		case assign.Regroup:
			go d.regroup(t, c)
		case assign.End:
			go d.end(t, c)
		case assign.Answer:
			if poll := t.polls[c.Waiter]; poll != nil {
				poll <- c
				delete(t.polls, c.Waiter)
			}
		case assign.Reply:
			reply = &c
		case assign.Say:
			level := slog.LevelInfo
			if c.Warning {
				level = slog.LevelWarn
			}
			d.cfg.Logger.Log(t.ctx, level, c.Text, c.Args...)
		case assign.Fail:
			fault = &c
			d.cfg.Logger.Error("panic in the assignment of trials", "event", fmt.Sprintf("%T", e), "panic", c.Panic, "stack", string(c.Stack))
		}
	}
	return reply, fault
}

// grant writes a grant and tells the scheduler what became of it.
func (d *Duty) grant(t *term, g assign.Grant) {
	res, err := d.propose(t, g.Log)
	d.tell(t, assign.Granted{Grant: g, Result: res, Err: err})
}

// regroup writes a change of a run's members.
func (d *Duty) regroup(t *term, g assign.Regroup) {
	res, err := d.propose(t, g.Log)
	d.tell(t, assign.Regrouped{Regroup: g, Result: res, Err: err})
}

// propose writes a command. A conflict says that the decision was made on an older state than the
// log's; a moment later this node has applied it.
func (d *Duty) propose(t *term, c *logv1.Command) (state.Result, error) {
	ctx, cancel := context.WithTimeout(t.ctx, logTimeout)
	defer cancel()
	res, err := d.cfg.Log.Propose(ctx, c)
	if err == nil {
		err = res.Err
	}
	if errors.Is(err, state.ErrConflict) {
		time.Sleep(conflictPause)
	}
	return res, err
}

// end writes the end of a lease.
func (d *Duty) end(t *term, e assign.End) {
	ctx, cancel := context.WithTimeout(t.ctx, logTimeout)
	defer cancel()
	res, err := d.cfg.Log.Propose(ctx, e.Log)
	d.tell(t, assign.Ended{End: e, Result: res, Err: err})
}

// Heartbeat renews the leases named and ends those of earlier incarnations.
// The caller has made sure that this node leads still.
func (d *Duty) Heartbeat(h trial.Heartbeat) (trial.HeartbeatAnswer, error) {
	return d.ask(assign.Heard{Heartbeat: h})
}

// Renew gives a lease of the external trainer its full term again.
func (d *Duty) Renew(sweep string, number int64, token uint64) error {
	_, err := d.ask(assign.Renewed{Sweep: sweep, Trial: number, Token: token})
	return err
}

// Workers lists the workers heard of under this leader, by name.
func (d *Duty) Workers() ([]trial.Worker, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == nil {
		return nil, ErrNotLeading
	}
	return d.term.scheduler.Workers(d.cfg.View(), time.Now()), nil
}

// Note is, for people, what keeps the sweep's trials from slots: workers without its
// data, and slots that a group lacks; "" where nothing is known to.
func (d *Duty) Note(s *state.Sweep) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == nil {
		return ""
	}
	return d.term.scheduler.Note(s)
}
