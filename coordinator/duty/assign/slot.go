package assign

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// External is the trainer that no worker offers: programs elsewhere ask for the
// trials of its sweeps, one by one.
const External = "external"

// Slot is what waits for a trial: a worker's slot, or a program that asks.
type Slot struct {
	Worker, Incarnation string
	Request             string // its repeat gets the same lease
	Name                string // of the slot
	Trainers            []string
	Labels              map[string]string
	Folder              string        // id of the worker's data folder
	Sweep               string        // of the external trainer: only trials of this sweep
	Term                time.Duration // of the lease; 0 = the cluster's
}

// waiter is a Slot in the queue, or with a grant on its way.
type waiter struct {
	Slot
	numbers []uint64 // of the Asked that wait for the answer: the first, and repeats that came while a grant was on its way
	left    []uint64 // those of them whose time is over
}

// request is what a repeated Acquire is known by.
func (w *waiter) request() request { return request{w.Worker, w.Incarnation, w.Request} }

// answer is the last word to all who wait for it.
func (s *Scheduler) answer(w *waiter, l *trial.Lease, err error) {
	for _, n := range w.numbers {
		s.want(Answer{n, l, err})
	}
}

// enqueue puts a waiter into the queue, unless its request holds a lease already;
// where a grant to the same request is under way, it waits for that one.
func (s *Scheduler) enqueue(e Asked) {
	w := &waiter{Slot: e.Slot, numbers: []uint64{e.Waiter}}
	k := s.workers[w.Worker]
	switch {
	case w.Worker == "" || w.Incarnation == "" || w.Request == "" || w.Name == "":
		s.answer(w, nil, fmt.Errorf("%w: acquire needs request_id, worker, incarnation and slot", state.ErrInvalid))
		return
	case k != nil && k.superseded[w.Incarnation]:
		s.answer(w, nil, fmt.Errorf("%w: worker %s was started again since", state.ErrConflict, w.Worker))
		return
	case k != nil && w.Folder != "" && k.folder != "" && k.folder != w.Folder && s.now.Sub(k.seen) <= s.ttl:
		s.answer(w, nil, fmt.Errorf("%w: the name %s is held by another worker", state.ErrConflict, w.Worker))
		return
	}
	key := w.request()
	if l := s.requests[key]; l != nil {
		if m := s.message(l.sweep, l.trial, l.token); m != nil {
			l.deadline = s.now.Add(l.term)
			s.answer(w, m, nil)
			return
		}
		s.drop(l.token)
	}
	if under := s.promised[key]; under != nil {
		under.numbers = append(under.numbers, e.Waiter)
		return
	}
	// The same request may still wait on a connection that broke unnoticed.
	s.dismiss(func(old *waiter) bool { return old.request() == key })
	s.waiters = append(s.waiters, w)
	s.free = true
}

// dismiss takes waiters out of the queue, with nothing.
func (s *Scheduler) dismiss(who func(*waiter) bool) {
	s.waiters = slices.DeleteFunc(s.waiters, func(w *waiter) bool {
		if !who(w) {
			return false
		}
		s.answer(w, nil, nil)
		return true
	})
}

// leave takes a waiter out of the queue. One with a grant on its way would leave just
// before it: it stays for the answer, and is not queued again.
func (s *Scheduler) leave(number uint64) {
	for _, w := range s.promised {
		if slices.Contains(w.numbers, number) {
			w.left = append(w.left, number)
			return
		}
	}
	for i, w := range s.waiters {
		if slices.Contains(w.numbers, number) {
			w.numbers = slices.DeleteFunc(w.numbers, func(n uint64) bool { return n == number })
			s.want(Answer{Waiter: number})
			if len(w.numbers) == 0 {
				s.waiters = slices.Delete(s.waiters, i, i+1)
			}
			return
		}
	}
}

// granted answers the waiter whose grant is durable, or puts it back.
func (s *Scheduler) granted(e Granted) {
	k := trialKey{e.Grant.Sweep, e.Grant.Trial}
	w := s.granting[k]
	delete(s.granting, k)
	delete(s.promised, w.request())
	s.free = true
	switch {
	case e.Err == nil:
		s.free = false
		delete(s.faults, k)
		// A repeat whose first arrival was granted elsewhere names that trial.
		if e.Result.Sweep != "" {
			k = trialKey{e.Result.Sweep, e.Result.Trial}
		}
		s.arm(k.sweep, k.trial, e.Result.Token)
		s.answer(w, s.message(k.sweep, k.trial, e.Result.Token), nil)
	case errors.Is(e.Err, state.ErrConflict) || errors.Is(e.Err, state.ErrNotFound):
		// The state moved on between the look and the grant. First in line again.
		for _, n := range w.left {
			s.want(Answer{Waiter: n})
		}
		w.numbers = slices.DeleteFunc(w.numbers, func(n uint64) bool { return slices.Contains(w.left, n) })
		w.left = nil
		if len(w.numbers) > 0 {
			s.waiters = slices.Insert(s.waiters, 0, w)
		}
	default: // the trial may have to find another waiter
		s.answer(w, nil, fmt.Errorf("grant a lease for trial %d of %s: %w", k.trial, k.sweep, e.Err))
	}
}
