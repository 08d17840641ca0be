package assigner

import (
	"context"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/duty/assign"
)

// Acquire waits for a lease, as long as a long poll does. It returns nil without error when there was
// nothing to do, ErrNotLeading when leadership ended meanwhile. The repeat of a
// request that holds a lease returns that lease.
func (d *Duty) Acquire(ctx context.Context, slot assign.Slot, wait time.Duration) (*trial.Lease, error) {
	t, waiter, answer, err := d.enqueue(slot)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(min(wait, maxWait))
	defer timer.Stop()
	for {
		select {
		case a := <-answer:
			return a.Lease, a.Err
		case <-ctx.Done():
			d.tell(t, assign.Left{Waiter: waiter})
			return nil, ctx.Err()
		case <-t.ctx.Done():
			return nil, ErrNotLeading
		case <-timer.C: // the answer comes at once, or after a grant that is on its way
			d.tell(t, assign.Left{Waiter: waiter})
		}
	}
}

// enqueue makes a place for the answer before the scheduler hears of the slot, for it may answer
// within the step.
func (d *Duty) enqueue(slot assign.Slot) (t *term, waiter uint64, answer chan assign.Answer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t = d.term
	if t == nil {
		return nil, 0, nil, ErrNotLeading
	}
	t.last++
	answer = make(chan assign.Answer, 1)
	t.polls[t.last] = answer
	waiter = t.last
	if _, fault := d.step(t, assign.Asked{Waiter: waiter, Slot: slot}); fault != nil {
		d.step(t, assign.Left{Waiter: waiter})
		return nil, 0, nil, errorOf(fault)
	}
	return t, waiter, answer, nil
}

// Asking is a program's wish for one trial of a sweep.
type Asking struct {
	Sweep   string
	Name    string // who asks, for people; may be empty
	Request string // the same one gets the same trial again
	Term    time.Duration
	Wait    time.Duration
	// Credential is the SHA-256 of a secret that is to speak for this trial alone; nil = none.
	Credential []byte
	// Over reports whether the sweep has ended, and gives what is closed when that
	// may have changed; the last one ends the watching.
	Over func() (bool, <-chan struct{}, func())
}

// Ask waits for a trial of a sweep with the external trainer. It returns nil
// without error when there was none in time, or when the sweep has ended.
func (d *Duty) Ask(ctx context.Context, q Asking) (*trial.Lease, error) {
	name := assign.External // no worker's name has a slash: askers are nobody's incarnation
	if q.Name != "" {
		name += "/" + q.Name
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{})
	var lease *trial.Lease
	var err error
	go func() {
		defer close(answered)
		lease, err = d.Acquire(ctx, assign.Slot{
			Worker: name, Incarnation: assign.External, Request: q.Request, Name: assign.External, Trainers: []string{assign.External}, Sweep: q.Sweep, Term: q.Term, Credential: q.Credential,
		}, q.Wait)
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
