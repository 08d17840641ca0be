// Package attend keeps a goroutine for each sweep that a duty looks after, while
// this node leads: begun when a sweep calls for one, woken by changes, gone when
// there is nothing left to do.
//
// Duties say what is done for a sweep and when one calls for it. The package
// refuses to know either, and keeps nothing over a change of leader.
package attend

import (
	"context"
	"sync"
)

// Group is a duty's attendants, one a sweep; T is what the duty makes of each, a
// pointer of its own.
type Group[T any] struct {
	begin func(*Seat) T
	run   func(T)

	mu   sync.Mutex
	term *term[T] // nil while not leading
}

// term is one leadership.
type term[T any] struct {
	ctx    context.Context
	cancel context.CancelFunc
	seats  map[string]*place[T]
}

type place[T any] struct {
	wake chan struct{}
	who  T
}

// New returns a group without a leadership. begin makes the attendant of a
// sweep, under the group's lock; run is its goroutine's work, which ends once the
// seat is left or its context has ended.
func New[T any](begin func(*Seat) T, run func(T)) *Group[T] {
	return &Group[T]{begin: begin, run: run}
}

// Start begins a leadership; adopt calls for the sweeps that are there.
func (g *Group[T]) Start(adopt func(Roll[T])) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	g.term = &term[T]{ctx: ctx, cancel: cancel, seats: map[string]*place[T]{}}
	adopt(Roll[T]{g, g.term})
}

// Stop ends it. Who is deep in thought is not waited for: what comes of it then
// goes nowhere.
func (g *Group[T]) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != nil {
		g.term.cancel()
		g.term = nil
	}
}

// Do calls f with the roll of the present leadership, under the group's lock;
// not at all where there is none.
func (g *Group[T]) Do(f func(Roll[T])) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != nil {
		f(Roll[T]{g, g.term})
	}
}

// Roll is who attends in one leadership. It is good while the group's lock is
// held.
type Roll[T any] struct {
	group *Group[T]
	term  *term[T]
}

// Context ends with the leadership.
func (r Roll[T]) Context() context.Context { return r.term.ctx }

// Find returns a sweep's attendant; false where there is none.
func (r Roll[T]) Find(sweep string) (who T, ok bool) {
	p := r.term.seats[sweep]
	if p == nil {
		return who, false
	}
	return p.who, true
}

// Wake has a sweep's attendant look again; false where there is none.
func (r Roll[T]) Wake(sweep string) (who T, ok bool) {
	p := r.term.seats[sweep]
	if p == nil {
		return who, false
	}
	select {
	case p.wake <- struct{}{}:
	default: // it has a mark already
	}
	return p.who, true
}

// Call is Wake, and begins where there is nobody.
func (r Roll[T]) Call(sweep string) T {
	if r.term.seats[sweep] == nil {
		p := &place[T]{wake: make(chan struct{}, 1)}
		p.who = r.group.begin(&Seat{Sweep: sweep, Context: r.term.ctx, Woken: p.wake, lock: &r.group.mu, leave: func() { delete(r.term.seats, sweep) }})
		r.term.seats[sweep] = p
		go r.group.run(p.who)
	}
	who, _ := r.Wake(sweep)
	return who
}

// Each calls f with every attendant, in no order.
func (r Roll[T]) Each(f func(sweep string, who T)) {
	for sweep, p := range r.term.seats {
		f(sweep, p.who)
	}
}

// Seat is an attendant's side of it.
type Seat struct {
	Sweep   string
	Context context.Context // ends with the leadership
	Woken   <-chan struct{} // holds a mark when there is something new

	lock  *sync.Mutex
	leave func()
}

// Locked calls f under the group's lock.
func (s *Seat) Locked(f func()) {
	s.lock.Lock()
	defer s.lock.Unlock()
	f()
}

// Leave gives the seat up for good, unless it has been woken meanwhile: then it
// is false and the attendant stays. last, when not nil, is called under the
// group's lock.
func (s *Seat) Leave(last func()) bool {
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
