// Package persweep keeps a goroutine, the actor, for each sweep that a duty looks after, while
// this node leads: begun when a sweep calls for one, woken by changes, gone when
// there is nothing left to do.
//
// Duties say what is done for a sweep and when one calls for it. The package
// refuses to know either, and keeps nothing over a change of leader, nor over a
// restore of the state: an actor looks at the state through its handle, which
// shows it no other past than the one it began in. A panic of an actor fails
// its sweep, not the process.
package persweep

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"atelier/coordinator/state"
)

// failPause is how long it takes until the end of a sweep whose actor
// panicked is tried to be written again.
const failPause = 200 * time.Millisecond

// Config says what a group is for; T is what the duty makes of each actor, a
// pointer of its own.
type Config[T any] struct {
	View func() *state.View
	// Begin makes the actor of a sweep, under the group's lock.
	Begin func(*Handle) T
	// Run is its goroutine's work, which ends once the handle is left, its context has
	// ended or its handle shows no state any more.
	Run func(T)
	// Fail ends a sweep with a reason, through the log.
	Fail   func(ctx context.Context, sweep, reason string) error
	Logger *slog.Logger
}

// Group is a duty's actors, one a sweep.
type Group[T any] struct {
	cfg Config[T]

	mu   sync.Mutex
	term *term[T] // nil while not leading
}

// term is one leadership.
type term[T any] struct {
	ctx     context.Context
	cancel  context.CancelFunc
	entries map[string]*entry[T]
}

type entry[T any] struct {
	wake  chan struct{}
	actor T
}

// New returns a group without a leadership.
func New[T any](cfg Config[T]) *Group[T] { return &Group[T]{cfg: cfg} }

// Start begins a leadership; adopt calls for the sweeps that are there.
func (g *Group[T]) Start(adopt func(Registry[T])) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begin(adopt)
}

// begin is for the holder of mu.
func (g *Group[T]) begin(adopt func(Registry[T])) {
	ctx, cancel := context.WithCancel(context.Background())
	g.term = &term[T]{ctx: ctx, cancel: cancel, entries: map[string]*entry[T]{}}
	adopt(Registry[T]{g, g.term})
}

// Restart has all actors go and begins anew, as with a new leadership: what
// they remember may be of no state there is. Nothing happens without a
// leadership.
func (g *Group[T]) Restart(adopt func(Registry[T])) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != nil {
		g.term.cancel()
		g.begin(adopt)
	}
}

// Stop ends it. Work still running is not waited for: its result
// is dropped.
func (g *Group[T]) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != nil {
		g.term.cancel()
		g.term = nil
	}
}

// Do calls f with the registry of the present leadership, under the group's lock;
// not at all where there is none.
func (g *Group[T]) Do(f func(Registry[T])) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != nil {
		f(Registry[T]{g, g.term})
	}
}

// Registry holds the actors of one leadership. It is valid while the group's lock is
// held.
type Registry[T any] struct {
	group *Group[T]
	term  *term[T]
}

// Context ends with the leadership.
func (r Registry[T]) Context() context.Context { return r.term.ctx }

// Find returns a sweep's actor; false where there is none.
func (r Registry[T]) Find(sweep string) (actor T, ok bool) {
	p := r.term.entries[sweep]
	if p == nil {
		return actor, false
	}
	return p.actor, true
}

// Wake has a sweep's actor look again; false where there is none.
func (r Registry[T]) Wake(sweep string) (actor T, ok bool) {
	p := r.term.entries[sweep]
	if p == nil {
		return actor, false
	}
	select {
	case p.wake <- struct{}{}:
	default: // it has a mark already
	}
	return p.actor, true
}

// Ensure is Wake, and begins an actor where there is none.
func (r Registry[T]) Ensure(sweep string) T {
	if r.term.entries[sweep] == nil {
		p := &entry[T]{wake: make(chan struct{}, 1)}
		_, restored := r.group.cfg.View().Restored()
		handle := &Handle{Sweep: sweep, Context: r.term.ctx, Woken: p.wake, view: r.group.cfg.View, restored: restored, lock: &r.group.mu, leave: func() {
			if r.term.entries[sweep] == p {
				delete(r.term.entries, sweep)
			}
		}}
		p.actor = r.group.cfg.Begin(handle)
		r.term.entries[sweep] = p
		go r.group.attend(handle, p.actor)
	}
	actor, _ := r.Wake(sweep)
	return actor
}

// attend is the goroutine of one actor.
func (g *Group[T]) attend(handle *Handle, actor T) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		g.cfg.Logger.Error("panic in the work for a sweep: it fails", "sweep", handle.Sweep, "panic", fault, "stack", string(debug.Stack()))
		g.giveUp(handle, fmt.Sprintf("a fault of the coordinator, please report it: panic: %v", fault))
	}()
	g.cfg.Run(actor)
}

// giveUp fails the sweep of an actor that panicked, and frees its handle only
// then: the next one would meet the same.
func (g *Group[T]) giveUp(handle *Handle, reason string) {
	for {
		if _, ok := handle.View(); !ok || handle.Context.Err() != nil {
			return // what it met may be of a state that is gone
		}
		err := g.cfg.Fail(handle.Context, handle.Sweep, reason)
		if err == nil {
			handle.Locked(handle.leave)
			return
		}
		g.cfg.Logger.Warn("failed sweep not recorded", "sweep", handle.Sweep, "error", err)
		select {
		case <-handle.Context.Done():
		case <-time.After(failPause):
		}
	}
}

// Each calls f with every actor, in no order.
func (r Registry[T]) Each(f func(sweep string, actor T)) {
	for sweep, p := range r.term.entries {
		f(sweep, p.actor)
	}
}

// Handle is an actor's side of it.
type Handle struct {
	Sweep   string
	Context context.Context // ends with the leadership
	Woken   <-chan struct{} // holds a mark when there is something new

	view     func() *state.View
	restored uint64 // index of the restore after which it began
	lock     *sync.Mutex
	leave    func()
}

// View returns the state. It is false once the state has been replaced by a
// restored one: then nothing that the actor remembers holds, and it goes.
func (s *Handle) View() (*state.View, bool) {
	v := s.view()
	if _, restored := v.Restored(); restored != s.restored {
		return nil, false
	}
	return v, true
}

// Locked calls f under the group's lock.
func (s *Handle) Locked(f func()) {
	s.lock.Lock()
	defer s.lock.Unlock()
	f()
}

// Leave gives the handle up for good, unless it has been woken meanwhile: then it
// is false and the actor stays. last, when not nil, is called under the
// group's lock.
func (s *Handle) Leave(last func()) bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	if len(s.Woken) > 0 {
		return false
	}
	s.leave()
	if last != nil {
		last()
	}
	return true
}
