package agent

import (
	"sync"

	"atelier/common/trainerproto"
)

// acks tells a member's trainer which reports and checkpoints will not be lost, so
// that another member, if it has to report from here on, need not repeat them. It
// sends the newest word from a goroutine of its own: the relay must not wait for a
// trainer.
type acks struct {
	mu             sync.Mutex
	reported, kept int // epochs
	changed        chan struct{}
}

// passAcks starts to tell the trainer of a group's member; stop ends it.
func (r *run) passAcks() (stop func()) {
	if r.h.group == nil {
		return func() {}
	}
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-over:
				return
			case <-r.acks.changed:
			}
			r.acks.mu.Lock()
			line := trainerproto.Control{Reported: r.acks.reported, Kept: r.acks.kept}
			r.acks.mu.Unlock()
			if err := r.child.SendControl(line); err != nil {
				return // it is gone, or ends
			}
		}
	}()
	return func() { close(over) }
}

// note takes epochs in that were acknowledged; 0 = none.
func (k *acks) note(reported, kept int) {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.reported, k.kept = max(k.reported, reported), max(k.kept, kept)
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default:
	}
}
