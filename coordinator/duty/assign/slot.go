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
	GroupTrainers       []string // those of them that can carry out a run with others
	Labels              map[string]string
	Folder              string        // id of the worker's data folder
	Sweep               string        // of the external trainer: only trials of this sweep
	Term                time.Duration // of the lease; 0 = the cluster's
	Credential          []byte        // SHA-256 of the secret that is to speak for the run alone; nil = none
}

// waiter is a Slot in the queue, or with a grant on its way.
type waiter struct {
	Slot
	numbers []uint64  // of the Asked that wait for the answer: the first, and repeats that came while a grant was on its way
	left    []uint64  // those of them whose time is over
	since   time.Time // when its slot began to wait
	use     use       // in the match under way
	keeper  string    // the sweep that it is kept for, where it is
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
	if s.given(w) {
		return
	}
	if under := s.promised[key]; under != nil {
		under.numbers = append(under.numbers, e.Waiter)
		return
	}
	// The same request may still wait on a connection that broke unnoticed.
	s.dismiss(func(old *waiter) bool { return old.request() == key })
	w.since = s.idleSince(w)
	delete(s.coming, w.place())
	s.waiters = append(s.waiters, w)
	s.free = true
}

// given answers a waiter whose request has a lease already, and reports whether it
// has.
func (s *Scheduler) given(w *waiter) bool {
	h := s.requests[w.request()]
	if h == nil {
		return false
	}
	m := s.message(h.sweep, h.trial, h.token, h.member)
	if m == nil {
		if h.group {
			s.release(h)
		} else {
			s.drop(h.token)
		}
		return false
	}
	h.deadline = s.now.Add(h.term)
	s.answer(w, m, nil)
	return true
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
				s.remember(w)
			}
			return
		}
	}
}

// granted answers those whose grant is durable, or puts them back.
func (s *Scheduler) granted(e Granted) {
	k, g := trialKey{e.Grant.Sweep, e.Grant.Trial}, e.Grant.Log.GetGrantLease()
	var ws []*waiter
	if len(g.Members) == 0 {
		ws = s.promises(ws, request{g.Worker, g.Incarnation, g.Request})
	}
	for _, m := range g.Members {
		ws = s.promises(ws, request{m.Worker, m.Incarnation, m.Request})
	}
	switch {
	case e.Err == nil:
		delete(s.faults, k)
		at := k
		// A repeat whose first arrival was granted elsewhere names that trial.
		if e.Result.Sweep != "" {
			at = trialKey{e.Result.Sweep, e.Result.Trial}
		}
		s.arm(at.sweep, at.trial, e.Result.Token)
		delete(s.granting, k)
		s.free = len(g.Members) > 0 && at != k
		s.deliver(ws, at, e.Result.Token)
	default:
		delete(s.granting, k)
		s.free = true
		s.undo(ws, fmt.Sprintf("grant a lease for trial %d of %s", k.trial, k.sweep), e.Err)
	}
}

// promises takes the waiter of a request off those with a grant on its way.
func (s *Scheduler) promises(ws []*waiter, r request) []*waiter {
	w := s.promised[r]
	if w == nil {
		return ws
	}
	delete(s.promised, r)
	return append(ws, w)
}

// deliver answers waiters with their parts in a lease; those who have none in it
// wait again, first in line.
func (s *Scheduler) deliver(ws []*waiter, at trialKey, token uint64) {
	held := s.leases[token]
	var again []*waiter
	for _, w := range ws {
		var mine *holder
		if held != nil {
			for _, h := range held.holders {
				if h.request == w.request() {
					mine = h
				}
			}
		}
		switch {
		case mine != nil:
			s.answer(w, s.message(at.sweep, at.trial, token, mine.member), nil)
		case len(ws) == 1: // the run is over already
			s.answer(w, nil, nil)
		default:
			again = append(again, w)
		}
	}
	s.requeue(again)
}

// undo puts waiters back whose lease the log refused: the state moved on between the
// look and the command. After another error their trial may have to find others.
func (s *Scheduler) undo(ws []*waiter, what string, err error) {
	if errors.Is(err, state.ErrConflict) || errors.Is(err, state.ErrNotFound) {
		s.requeue(ws)
		return
	}
	for _, w := range ws {
		s.answer(w, nil, fmt.Errorf("%s: %w", what, err))
	}
}

// requeue makes waiters first in line again, but for those whose time is over or
// whose request got a lease meanwhile.
func (s *Scheduler) requeue(ws []*waiter) {
	for _, w := range slices.Backward(ws) {
		for _, n := range w.left {
			s.want(Answer{Waiter: n})
		}
		w.numbers = slices.DeleteFunc(w.numbers, func(n uint64) bool { return slices.Contains(w.left, n) })
		w.left = nil
		if len(w.numbers) > 0 && !s.given(w) {
			s.waiters = slices.Insert(s.waiters, 0, w)
			s.free = true
		}
	}
}
