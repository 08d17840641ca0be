package assign

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

// conflictPause is how long a waiter stands back after its grant was refused,
// so that a disagreement with the state costs time and not the processor.
const conflictPause = 5 * time.Millisecond

// waiter is one Acquire in its long poll.
type waiter struct {
	request
	slot     string
	trainers []string
	labels   map[string]string
	folder   string        // id of the worker's data folder
	sweep    string        // of the external trainer: only trials of this sweep
	term     time.Duration // of the lease; 0 = the cluster's
	late     bool          // its time is over; only a grant on its way is still waited for
	answer   chan struct{} // closed once lease and err are set
	lease    *atelierv1.Lease
	err      error
}

func (w *waiter) done(l *atelierv1.Lease, err error) {
	w.lease, w.err = l, err
	close(w.answer)
}

// Acquire waits for a lease. It returns nil without error when there was
// nothing to do, ErrNotLeading when leadership ended meanwhile. The repeat of a
// request that holds a lease returns that lease.
func (a *Assigner) Acquire(ctx context.Context, req *atelierv1.AcquireRequest) (*atelierv1.Lease, error) {
	if req.Worker == "" || req.Incarnation == "" || req.RequestId == "" || req.Slot == "" {
		return nil, fmt.Errorf("%w: acquire needs request_id, worker, incarnation and slot", state.ErrInvalid)
	}
	w := &waiter{request: request{req.Worker, req.Incarnation, req.RequestId}, slot: req.Slot, trainers: req.Trainers, labels: req.Labels, folder: req.Folder}
	return a.await(ctx, w, time.Duration(max(req.WaitMs, 0))*time.Millisecond)
}

// await puts a waiter into the queue and waits for its lease.
func (a *Assigner) await(ctx context.Context, w *waiter, wait time.Duration) (*atelierv1.Lease, error) {
	t, w, held, err := a.enqueue(w)
	if held != nil || err != nil {
		return held, err
	}

	timer := time.NewTimer(min(wait, maxWait))
	defer timer.Stop()
	select {
	case <-w.answer:
		return w.lease, w.err
	case <-ctx.Done():
		a.forget(t, w)
		return nil, ctx.Err()
	case <-t.ctx.Done():
		return nil, ErrNotLeading
	case <-timer.C:
	}
	if a.forget(t, w) {
		return nil, nil
	}
	// A grant is on its way: it would be a pity to leave just before it.
	select {
	case <-w.answer:
		return w.lease, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.ctx.Done():
		return nil, ErrNotLeading
	}
}

// enqueue puts a waiter into the queue, unless its request holds a lease already;
// where a grant to the same request is under way, that one's waiter is returned.
func (a *Assigner) enqueue(w *waiter) (t *term, waits *waiter, held *atelierv1.Lease, err error) {
	key := w.request
	w.answer = make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock() // after a panic too, from which the server goes on
	t = a.term
	if t == nil {
		return nil, nil, nil, ErrNotLeading
	}
	if k := t.workers[w.worker]; k != nil && k.superseded[w.incarnation] {
		return nil, nil, nil, fmt.Errorf("%w: worker %s was started again since", state.ErrConflict, w.worker)
	}
	if a.foreign(t, w) {
		return nil, nil, nil, fmt.Errorf("%w: the name %s is held by another worker", state.ErrConflict, w.worker)
	}
	if l := t.requests[key]; l != nil {
		view := a.cfg.View()
		if m := a.message(view, l.sweep, l.trial, l.token); m != nil {
			l.deadline = a.cfg.Now().Add(l.term)
			return t, w, m, nil
		}
		t.drop(l.token)
	}
	if under := t.promised[key]; under != nil {
		return t, under, nil, nil
	}
	// The same request may still wait on a connection that broke unnoticed.
	for i, old := range t.waiters {
		if old.request == key {
			t.waiters = slices.Delete(t.waiters, i, i+1)
			old.done(nil, nil)
			break
		}
	}
	t.waiters = append(t.waiters, w)
	a.match(t)
	return t, w, nil, nil
}

// forget takes a waiter out of the queue; false if it no longer stands there,
// because a grant is on its way. It will not be queued again.
func (a *Assigner) forget(t *term, w *waiter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.late = true
	i := slices.Index(t.waiters, w)
	if i >= 0 {
		t.waiters = slices.Delete(t.waiters, i, i+1)
	}
	return i >= 0
}

// fits reports whether the waiter may have trials of a sweep: it offers the
// trainer and carries every label that is required.
func (w *waiter) fits(s *state.Sweep) bool {
	if !slices.Contains(w.trainers, s.Trainer) || w.sweep != "" && w.sweep != s.ID || (w.sweep == "") == (s.Trainer == External) {
		return false
	}
	if w.sweep != "" {
		return true // a program is no worker: it has no labels
	}
	return labelled(w.labels, s)
}

// labelled reports whether labels hold all that a sweep requires.
func labelled(labels map[string]string, s *state.Sweep) bool {
	for _, r := range s.Requires {
		if v, ok := labels[r.Key]; !ok || v != r.Value {
			return false
		}
	}
	return true
}

// candidate is a sweep with trials to give.
type candidate struct {
	sweep   *state.Sweep
	waiting []int64
	running int64 // running, or about to run
	room    int64 // how many more may run at once
}

func (a *Assigner) candidates(t *term, view *state.View) []*candidate {
	var out []*candidate
	now := a.cfg.Now().UnixMilli()
	for _, s := range view.Sweeps() {
		if s.Status != trial.SweepRunning || s.Counts.Waiting == 0 || s.Overdue(now) {
			continue
		}
		c := &candidate{sweep: s, running: s.Counts.Running, room: s.Room()}
		for _, n := range s.Waiting() {
			if t.granting[trialKey{s.ID, n}] == nil {
				c.waiting = append(c.waiting, n)
			} else {
				c.running++
				c.room--
			}
		}
		if len(c.waiting) > 0 && c.room > 0 {
			out = append(out, c)
		}
	}
	return out
}

// before says which of two sweeps gets a free slot: the one of higher priority,
// of equals the one with fewer trials running.
func (c *candidate) before(o *candidate) bool {
	if c.sweep.Priority != o.sweep.Priority {
		return c.sweep.Priority > o.sweep.Priority
	}
	return c.running < o.running
}

// match brings waiters and trials together: waiters in order of arrival, each
// to the sweep that comes before all others, the oldest of equals. The grants
// go through the log beside one another.
func (a *Assigner) match(t *term) {
	if len(t.waiters) == 0 {
		return
	}
	view := a.cfg.View()
	open := a.candidates(t, view)
	if len(open) == 0 {
		return
	}
	left := t.waiters[:0]
	for i, w := range t.waiters {
		if len(open) == 0 {
			left = append(left, t.waiters[i:]...)
			break
		}
		if view.Drained(w.worker) {
			left = append(left, w)
			continue
		}
		var best *candidate
		at := -1
		for _, c := range open {
			if best != nil && !c.before(best) || !w.fits(c.sweep) || a.shunned(t, view, c.sweep, w) {
				continue
			}
			if n := a.pick(t, view, c, w); n >= 0 {
				best, at = c, n
			}
		}
		if best == nil {
			left = append(left, w)
			continue
		}
		n := best.waiting[at]
		best.waiting = slices.Delete(best.waiting, at, at+1)
		best.running++
		best.room--
		if len(best.waiting) == 0 || best.room <= 0 {
			open = slices.DeleteFunc(open, func(c *candidate) bool { return c == best })
		}
		a.grant(t, view, w, best.sweep, n)
	}
	clear(t.waiters[len(left):])
	t.waiters = left
}

// pick returns the place in c.waiting of the first trial that w may have; -1 if
// there is none.
func (a *Assigner) pick(t *term, view *state.View, c *candidate, w *waiter) int {
	for i, n := range c.waiting {
		runs := c.sweep.Trial(n).Runs
		if len(runs) == 0 {
			return i
		}
		last := &runs[len(runs)-1]
		same := last.Worker == w.worker && w.sweep == ""
		if last.Exit == trial.ExitDataMissing {
			t.miss(refusalKey{c.sweep.ID, last.Worker}, last, a.cfg.Now())
		}
		switch {
		case last.Exit == trial.ExitBadSpec && same:
			// What one worker refused another tries, if there is one.
			if (t.fresh || a.settled(t)) && !a.others(t, view, c.sweep, w) {
				return i
			}
			continue
		case last.Exit == trial.ExitDiskFull && same && a.others(t, view, c.sweep, w):
		case last.Exit == trial.ExitDeviceFault && last.Worker == w.worker && last.Slot == w.slot:
		default:
			return i
		}
		k := trialKey{c.sweep.ID, n}
		since, known := t.faults[k]
		if !known {
			since = a.cfg.Now()
			t.faults[k] = since
		}
		if a.cfg.Now().Sub(since) >= otherSlotFor {
			return i
		}
	}
	return -1
}

// grant puts a grant through the log and answers the waiter.
func (a *Assigner) grant(t *term, view *state.View, w *waiter, s *state.Sweep, trial int64) {
	k := trialKey{s.ID, trial}
	end, final := endOf(s, s.Trial(trial)), a.final(t, view, s, w)
	t.granting[k] = w
	t.promised[w.request] = w
	go func() {
		ctx, cancel := context.WithTimeout(t.ctx, logTimeout)
		defer cancel()
		res, err := a.cfg.Log.Propose(ctx, &logv1.Command{
			RequestId: w.request.id,
			TimeMs:    a.cfg.Now().UnixMilli(),
			Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{
				Id: k.sweep, Trial: k.trial, Worker: w.worker, Incarnation: w.incarnation, Slot: w.slot, Request: w.request.id,
				TermMs: w.term.Milliseconds(), End: end, Final: final, Folder: w.folder,
			}},
		})
		if err == nil {
			err = res.Err
		}
		if errors.Is(err, state.ErrConflict) {
			time.Sleep(conflictPause)
		}

		a.mu.Lock()
		defer a.mu.Unlock()
		defer func() {
			if fault := recover(); fault != nil {
				a.cfg.Logger.Error("panic after a grant", "sweep", k.sweep, "trial", k.trial, "panic", fault, "stack", string(debug.Stack()))
			}
		}()
		delete(t.granting, k)
		delete(t.promised, w.request)
		if err == nil {
			delete(t.faults, k)
			// A repeat whose first arrival was granted elsewhere names that trial.
			sweep, trial := k.sweep, k.trial
			if res.Sweep != "" {
				sweep, trial = res.Sweep, res.Trial
			}
			view := a.cfg.View()
			if t.leases[res.Token] == nil {
				a.arm(t, view, sweep, trial, res.Token)
			}
			w.done(a.message(view, sweep, trial, res.Token), nil)
			return
		}
		if errors.Is(err, state.ErrConflict) || errors.Is(err, state.ErrNotFound) {
			// The state moved on between the look and the grant. First in line again.
			if w.late || t.ctx.Err() != nil {
				w.done(nil, nil)
			} else {
				t.waiters = slices.Insert(t.waiters, 0, w)
				a.match(t)
			}
			return
		}
		w.done(nil, fmt.Errorf("grant a lease for trial %d of %s: %w", k.trial, k.sweep, err))
		if t.ctx.Err() == nil {
			a.match(t) // the trial may have to find another waiter
		}
	}()
}

// TrialSeed is the seed of a trial's training: the sweep's seed and the
// trial's number through SplitMix64 (Steele, Lea and Flood, 2014).
func TrialSeed(seed uint64, trial int64) uint64 {
	z := seed + uint64(trial)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
