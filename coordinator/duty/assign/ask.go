package assign

import (
	"context"
	"fmt"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
)

// External is the trainer that no worker offers: programs elsewhere ask for the
// trials of its sweeps, one by one.
const External = "external"

// Asking is a program's wish for one trial of a sweep.
type Asking struct {
	Sweep   string
	Name    string // who asks, for people; may be empty
	Request string // the same one gets the same trial again
	Term    time.Duration
	Wait    time.Duration
	// Over says whether the sweep has ended, and gives what is closed when that
	// may have changed; the last one ends the watching.
	Over func() (bool, <-chan struct{}, func())
}

// Ask waits for a trial of a sweep with the external trainer. It returns nil
// without error when there was none in time, or when the sweep has ended.
func (a *Assigner) Ask(ctx context.Context, q Asking) (*atelierv1.Lease, error) {
	name := External // no worker's name has a slash: askers are nobody's incarnation
	if q.Name != "" {
		name += "/" + q.Name
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{})
	var lease *atelierv1.Lease
	var err error
	go func() {
		defer close(answered)
		w := &waiter{request: request{name, External, q.Request}, slot: External, trainers: []string{External}, sweep: q.Sweep, term: q.Term}
		lease, err = a.await(ctx, w, q.Wait)
	}()
	for {
		over, changed, leave := q.Over()
		if over {
			cancel()
		}
		select {
		case <-answered:
			leave()
			if over && lease == nil {
				return nil, nil
			}
			return lease, err
		case <-changed:
		}
		leave()
	}
}

// Renew gives a lease of the external trainer its full term again.
func (a *Assigner) Renew(sweep string, trial int64, token uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.term
	if t == nil {
		return ErrNotLeading
	}
	held := t.leases[token]
	if held == nil {
		held = a.arm(t, a.cfg.View(), sweep, trial, token)
	}
	if held == nil || held.ending {
		return fmt.Errorf("%w: lease %d of trial %d of sweep %s is over", state.ErrConflict, token, trial, sweep)
	}
	held.deadline = a.cfg.Now().Add(held.term)
	return nil
}
