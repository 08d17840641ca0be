// Package duty starts what only the leader does, and ends it when leadership
// is lost. The duties themselves are the packages below.
//
// A duty starts after a barrier: by then this node's state holds everything
// that any earlier leader acknowledged. The package refuses to keep a duty's
// memory over a change of leader: what a duty must not forget is in the log.
package duty

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"atelier/coordinator/state"
)

// Duty is one thing that a leader does. Start and Stop are called in turn and
// never at once; neither may block for long.
type Duty interface {
	Start()
	Stop()
}

// Watcher hears what was applied on this node, leader or not, in order.
// Neither method may block.
type Watcher interface {
	Changed([]state.Change)
	// Resync: changes were missed, or the whole state was replaced by a restored one.
	// Nothing that was remembered of it holds: begin anew from a view.
	Resync()
}

// Node is what leadership needs of raft.
type Node interface {
	LeaderCh() <-chan bool
	IsLeader() bool
	Barrier(ctx context.Context) error
}

// Leadership runs duties while this node leads.
type Leadership struct {
	node   Node
	first  func(ctx context.Context) error
	duties []Duty
	logger *slog.Logger

	mu      sync.Mutex
	ready   bool
	changed chan struct{} // closed and replaced when ready changes
}

// NewLeadership prepares the duties, started in this order and stopped in
// reverse. first, when not nil, runs before them, after the barrier; an error
// makes it run again while this node leads.
func NewLeadership(node Node, logger *slog.Logger, first func(ctx context.Context) error, duties ...Duty) *Leadership {
	return &Leadership{node: node, first: first, duties: duties, logger: logger, changed: make(chan struct{})}
}

// Ready reports whether this node leads and its duties run.
func (l *Leadership) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

// Changed is closed when Ready changes next.
func (l *Leadership) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// set wakes whoever waits for a change, if it is one.
func (l *Leadership) set(ready bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ready != ready {
		l.ready = ready
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Run follows leadership until ctx ends; then the duties are stopped.
func (l *Leadership) Run(ctx context.Context) {
	cancel := func() {}
	var gained chan error // answers when the way in is done
	running := false
	stop := func() {
		cancel()
		cancel = func() {}
		gained = nil
		l.set(false)
		if running {
			for i := len(l.duties) - 1; i >= 0; i-- {
				l.duties[i].Stop()
			}
			running = false
			l.logger.Info("leadership lost, duties stopped")
		}
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case leads, open := <-l.node.LeaderCh():
			if !open {
				return
			}
			// Lost and won again between two looks is a loss all the same.
			stop()
			if !leads {
				continue
			}
			term, c := context.WithCancel(ctx)
			cancel = c
			done := make(chan error, 1)
			gained = done
			go func() { done <- l.enter(term) }()
		case err := <-gained:
			gained = nil
			if err != nil {
				continue // leadership went before the duties began
			}
			for _, d := range l.duties {
				d.Start()
			}
			running = true
			l.set(true)
			l.logger.Info("leadership gained, duties started")
		}
	}
}

// enter waits until this node's state is whole and first has succeeded.
func (l *Leadership) enter(ctx context.Context) error {
	for {
		err := l.node.Barrier(ctx)
		if err == nil && l.first != nil {
			err = l.first(ctx)
		}
		if err == nil || ctx.Err() != nil || !l.node.IsLeader() {
			return err
		}
		l.logger.Warn("leadership: not ready yet", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Source is where changes come from.
type Source interface {
	Next(ctx context.Context) (changes []state.Change, lost bool, err error)
}

// Tell hands every change to every watcher until ctx ends. A restore is a Resync;
// what came before it in the same batch is of a state that is gone.
//
// A panic in a watcher does not end the process: it begins anew, and fault hears
// of the sweep whose change brought it about, "" where that is not known.
func Tell(ctx context.Context, from Source, fault func(sweep string, panicked any, stack []byte), to ...Watcher) {
	for {
		changes, lost, err := from.Next(ctx)
		if err != nil {
			return
		}
		for i := len(changes) - 1; i >= 0; i-- {
			if changes[i].Kind == state.Restored {
				changes, lost = changes[i+1:], true
				break
			}
		}
		for _, w := range to {
			tell(w, changes, lost, fault)
		}
	}
}

// tell tells one watcher. A panic in it is of one sweep's change, most likely: it is looked for, so
// that the others' changes are heard.
func tell(w Watcher, changes []state.Change, lost bool, fault func(string, any, []byte)) {
	if lost {
		safely(w.Resync, func(p any, stack []byte) { fault("", p, stack) })
	}
	if len(changes) == 0 || safely(func() { w.Changed(changes) }, func(any, []byte) {}) {
		return
	}
	// Which change was it? What is told twice does no harm after a Resync.
	safely(w.Resync, func(p any, stack []byte) { fault("", p, stack) })
	for i := range changes {
		safely(func() { w.Changed(changes[i : i+1]) }, func(p any, stack []byte) { fault(changes[i].Sweep, p, stack) })
	}
}

// safely calls do and reports whether it returned; a panic in it goes to fault.
func safely(do func(), fault func(panicked any, stack []byte)) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			fault(p, debug.Stack())
		}
	}()
	do()
	return true
}
