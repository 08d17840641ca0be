package api

import (
	"sync"

	"atelier/coordinator/state"
)

// hub wakes those who wait for a sweep to change. A channel a sweep, closed at its next change, serves any number of
// waiters at the price of one, and nobody has to keep up with a queue: who wakes looks at the newest state.
type hub struct {
	mu    sync.Mutex
	waits map[string]*wait
}

// wait is what the waiters of one sweep share until its next change.
type wait struct {
	ch    chan struct{} // closed at the next change
	users int
}

func newHub() *hub { return &hub{waits: map[string]*wait{}} }

// watch returns a channel that is closed at the sweep's next change, and a
// function that must be called in the end. Look at the sweep after the call.
func (h *hub) watch(sweep string) (<-chan struct{}, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.waits[sweep]
	if w == nil {
		w = &wait{ch: make(chan struct{})}
		h.waits[sweep] = w
	}
	w.users++
	return w.ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if w.users--; w.users == 0 && h.waits[sweep] == w {
			delete(h.waits, sweep)
		}
	}
}

// changed runs on the way of every applied entry, so it is nothing where nobody waits.
func (h *hub) changed(changes []state.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waits) == 0 {
		return
	}
	for i := range changes {
		if w := h.waits[changes[i].Sweep]; w != nil {
			close(w.ch)
			delete(h.waits, changes[i].Sweep)
		}
	}
}

// all wakes everybody.
func (h *hub) all() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, w := range h.waits {
		close(w.ch)
		delete(h.waits, id)
	}
}
