package assign

import (
	"slices"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

// A match is a function of who waits, which trials wait and what is known of both:
// first what the state shows is learned, then pairs are made, then all of them are
// granted, beside one another.

// pair is a trial that a waiter is to have.
type pair struct {
	w     *waiter
	sweep *state.Sweep
	trial int64
}

// match grants every trial that a waiter may have.
func (s *Scheduler) match() {
	if len(s.waiters) == 0 {
		return
	}
	open := s.candidates()
	if len(open) == 0 {
		return
	}
	for _, c := range open {
		s.learn(c.sweep)
	}
	pairs, left := s.pairs(open)
	s.waiters = left
	for _, p := range pairs {
		s.granting[trialKey{p.sweep.ID, p.trial}] = p.w
		s.promised[p.w.request()] = p.w
	}
	for _, p := range pairs {
		s.want(Grant{p.sweep.ID, p.trial, &logv1.Command{
			RequestId: p.w.Request,
			TimeMs:    s.now.UnixMilli(),
			Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{
				Id: p.sweep.ID, Trial: p.trial, Worker: p.w.Worker, Incarnation: p.w.Incarnation, Slot: p.w.Name, Request: p.w.Request,
				TermMs: p.w.Term.Milliseconds(), End: endOf(p.sweep, p.sweep.Trial(p.trial)), Final: s.final(p.sweep, p.w), Folder: p.w.Folder,
			}},
		}})
	}
}

// candidate is a sweep with trials to give.
type candidate struct {
	sweep   *state.Sweep
	waiting []int64
	running int64 // running, or about to run
	room    int64 // how many more may run at once
}

// candidates are the sweeps that have a trial to give now. Grants that are on their way to the log
// count as running: the state does not show them yet.
func (s *Scheduler) candidates() []*candidate {
	var out []*candidate
	now := s.now.UnixMilli()
	for _, sw := range s.view.Sweeps() {
		if sw.Status != trial.SweepRunning || sw.Counts.Waiting == 0 || sw.Overdue(now) {
			continue
		}
		c := &candidate{sweep: sw, running: sw.Counts.Running, room: sw.Room()}
		for _, n := range sw.Waiting() {
			if s.granting[trialKey{sw.ID, n}] == nil {
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

// before reports whether the first of two sweeps gets a free slot before the second: the one of higher priority,
// of equals the one with fewer trials running.
func (c *candidate) before(o *candidate) bool {
	if c.sweep.Priority != o.sweep.Priority {
		return c.sweep.Priority > o.sweep.Priority
	}
	return c.running < o.running
}

// take takes the trial at a place, and reports whether there are more to give.
func (c *candidate) take(at int) (number int64, more bool) {
	number = c.waiting[at]
	c.waiting = slices.Delete(c.waiting, at, at+1)
	c.running++
	c.room--
	return number, len(c.waiting) > 0 && c.room > 0
}

// pairs brings waiters and trials together: waiters in order of arrival, each to
// the sweep that comes before all others, the oldest of equals. It returns those
// who got nothing too, in their order. It changes open and nothing else.
func (s *Scheduler) pairs(open []*candidate) (pairs []pair, left []*waiter) {
	for i, w := range s.waiters {
		if len(open) == 0 {
			return pairs, append(left, s.waiters[i:]...)
		}
		var best *candidate
		at := -1
		if !s.view.Drained(w.Worker) {
			for _, c := range open {
				if best != nil && !c.before(best) || !w.fits(c.sweep) || s.shunned(c.sweep, w) {
					continue
				}
				if n := slices.IndexFunc(c.waiting, func(number int64) bool { return s.may(w, c.sweep, number) }); n >= 0 {
					best, at = c, n
				}
			}
		}
		if best == nil {
			left = append(left, w)
			continue
		}
		number, more := best.take(at)
		if !more {
			open = slices.DeleteFunc(open, func(c *candidate) bool { return c == best })
		}
		pairs = append(pairs, pair{w, best.sweep, number})
	}
	return pairs, left
}

// fits reports whether the slot may have trials of a sweep: it offers the trainer
// and carries every label that is required.
func (w *Slot) fits(s *state.Sweep) bool {
	if !slices.Contains(w.Trainers, s.Trainer) || w.Sweep != "" && w.Sweep != s.ID || (w.Sweep == "") == (s.Trainer == External) {
		return false
	}
	if w.Sweep != "" {
		return true // a program is no worker: it has no labels
	}
	return labelled(w.Labels, s)
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

// may reports whether a waiter may have this trial, after how its last run ended.
func (s *Scheduler) may(w *waiter, sw *state.Sweep, number int64) bool {
	runs := sw.Trial(number).Runs
	if len(runs) == 0 {
		return true
	}
	last := &runs[len(runs)-1]
	same := last.Worker == w.Worker && w.Sweep == ""
	switch {
	case last.Exit == trial.ExitBadSpec && same:
		// What one worker refused another tries, if there is one.
		return s.settled() && !s.others(sw, w)
	case last.Exit == trial.ExitDiskFull && same && s.others(sw, w),
		last.Exit == trial.ExitDeviceFault && last.Worker == w.Worker && last.Slot == w.Name:
		return s.now.Sub(s.faults[trialKey{sw.ID, number}]) >= otherSlotFor
	}
	return true
}
