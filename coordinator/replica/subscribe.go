package replica

import (
	"sync"
	"sync/atomic"

	"atelier/coordinator/state"
)

// Subscription delivers what the state machine changed, in log order, one slice
// a log entry, on leaders and followers alike.
type Subscription struct {
	C    <-chan []state.Change
	c    chan []state.Change
	lost atomic.Bool
	feed *feed
}

// Lost reports whether changes were left out since the last call: the buffer was
// full, or the state was replaced by a snapshot. The reader must then take a new
// View and treat it as all new; changes that C delivers afterwards may already be
// in it. A nil slice on C only says that Lost is worth asking.
func (s *Subscription) Lost() bool { return s.lost.Swap(false) }

// Close ends the subscription; C is closed.
func (s *Subscription) Close() { s.feed.remove(s) }

// Subscribe begins a subscription with room for buffer undelivered slices.
func (n *Node) Subscribe(buffer int) *Subscription {
	c := make(chan []state.Change, max(buffer, 1))
	s := &Subscription{C: c, c: c, feed: &n.feed}
	n.feed.add(s)
	return s
}

// feed is the list of subscriptions. Its lock is held only for sends that cannot
// block.
type feed struct {
	mu     sync.Mutex
	subs   []*Subscription
	closed bool
}

// add begins to deliver to s what is applied from here on.
func (f *feed) add(s *Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(s.c)
		return
	}
	f.subs = append(f.subs, s)
}

// remove ends a subscription; twice is harmless.
func (f *feed) remove(s *Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, have := range f.subs {
		if have == s {
			f.subs = append(f.subs[:i:i], f.subs[i+1:]...)
			close(s.c)
			return
		}
	}
}

// publish delivers an entry's changes. A subscriber that is too slow loses them, and is told: Apply
// waits for nobody.
func (f *feed) publish(results []state.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subs) == 0 {
		return
	}
	var all []state.Change
	for i := range results {
		if changes := results[i].Changes; len(changes) > 0 {
			if all == nil {
				all = changes // capped: an append makes its own array
			} else {
				all = append(all, changes...)
			}
		}
	}
	if all == nil {
		return
	}
	for _, s := range f.subs {
		select {
		case s.c <- all:
		default:
			s.lost.Store(true)
		}
	}
}

// lose tells every reader to begin anew.
func (f *feed) lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.subs {
		s.lost.Store(true)
		select {
		case s.c <- nil:
		default:
		}
	}
}

// close ends all subscriptions.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, s := range f.subs {
		close(s.c)
	}
	f.subs = nil
}
