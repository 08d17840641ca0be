package api

import (
	"context"
	"sync"
	"time"
)

// verifier makes sure that this node leads, once for all who ask at the same
// time. Who comes while one round is on its way waits for the next: a round
// speaks only for those who asked before it began.
type verifier struct {
	log Log

	mu      sync.Mutex
	next    *round
	running bool
}

// round is one VerifyLeader and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

// do returns once a round that began after the call has ended well.
func (v *verifier) do(ctx context.Context) error {
	v.mu.Lock()
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
	}
	r := v.next
	if !v.running {
		v.running = true
		go v.run()
	}
	v.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run takes one round after the other until nobody waits. A round has a context of its own: the
// first who asked may leave, the others have not.
func (v *verifier) run() {
	for {
		v.mu.Lock()
		r := v.next
		v.next = nil
		if r == nil {
			v.running = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		r.err = v.log.VerifyLeader(ctx)
		cancel()
		close(r.done)
	}
}
