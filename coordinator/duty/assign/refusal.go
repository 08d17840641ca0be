package assign

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

const (
	// maxRefused is how many trials of a sweep a worker may refuse (bad spec) before
	// others are asked first.
	maxRefused = 2
	// A worker that lacks the data of a sweep is asked again after so long, and
	// after twice that each time: the folder may have been mounted meanwhile.
	lackPause = 30 * time.Second
	lackLimit = 30 * time.Minute
)

// refusal is what a worker made of one sweep's trials under this leader.
type refusal struct {
	bad   []uint64 // tokens of runs that it ended with bad spec, the first few
	since uint64   // only later runs count: it was started again
	sound bool     // it has ended one otherwise: it can train them
	lacks string   // what it said when it had not the data; empty: it has, as far as is known
	pause time.Duration
	again time.Time // when it may be asked again, where it lacks the data
	token uint64    // of the latest run that said so
}

type refusalKey struct{ sweep, worker string }

// judge takes the end of a run into account.
func (s *Scheduler) judge(c *state.Change) {
	sw, ok := s.view.Sweep(c.Sweep)
	if !ok || sw.Ended() || sw.Trial(c.Trial) == nil {
		return
	}
	runs := sw.Trial(c.Trial).Runs
	i := slices.IndexFunc(runs, func(r state.Run) bool { return r.Token == c.Token })
	if i < 0 {
		return
	}
	if g := runs[i].Group; g != nil {
		s.judgeMembers(c, &runs[i])
		return
	}
	s.judgeEnd(refusalKey{c.Sweep, c.Worker}, c.Token, runs[i].Exit, runs[i].Message)
}

// judgeMembers takes into account how a member's part ended, or those of all at the
// run's end.
func (s *Scheduler) judgeMembers(c *state.Change, run *state.Run) {
	for _, e := range run.Group.Ended {
		if c.Member == 0 || e.Member == c.Member {
			s.judgeEnd(refusalKey{c.Sweep, e.Worker}, c.Token, e.Exit, e.Message)
		}
	}
	if c.Member == 0 && run.Group.View() != nil {
		for _, m := range run.Group.Members { // they trained it to its end together
			s.judgeEnd(refusalKey{c.Sweep, m.Worker}, c.Token, run.Exit, run.Message)
		}
	}
}

// judgeEnd takes one end into account.
func (s *Scheduler) judgeEnd(k refusalKey, token uint64, exit trial.Exit, message string) {
	switch exit {
	case trial.ExitBadSpec:
		s.refuse(k, token)
	case trial.ExitDataMissing:
		s.miss(k, token, message)
	case trial.ExitFinished, trial.ExitStopped, trial.ExitPaused, trial.ExitDiverged:
		r := s.refusals[k]
		r.sound, r.lacks, r.pause, r.again = true, "", 0, time.Time{}
		s.refusals[k] = r
	}
}

// refuse takes it in that a worker refused a trial of a sweep.
func (s *Scheduler) refuse(k refusalKey, token uint64) {
	r := s.refusals[k]
	if token <= r.since || len(r.bad) >= maxRefused || slices.Contains(r.bad, token) {
		return
	}
	r.bad = append(r.bad, token)
	s.refusals[k] = r
}

// miss takes it in that a worker does not have a sweep's data.
func (s *Scheduler) miss(k refusalKey, token uint64, message string) {
	r := s.refusals[k]
	if token <= r.token || token <= r.since {
		return
	}
	r.token = token
	if !s.now.Before(r.again) { // else of a run that began before it was known
		r.lacks = cmp.Or(message, "no reason given")
		r.pause = min(max(2*r.pause, lackPause), lackLimit)
		r.again = s.now.Add(r.pause)
	}
	s.refusals[k] = r
}

// learn takes in what the state shows of trials that were given back: a change may
// not have been told here yet, and a new leader was told none. A trial that looks for
// another slot does so from now on.
func (s *Scheduler) learn(sw *state.Sweep) {
	for _, n := range sw.WaitingAgain() {
		runs := sw.Trial(n).Runs
		last := &runs[len(runs)-1]
		s.learnEnd(trialKey{sw.ID, n}, last.Worker, last.Token, last.Exit, last.Message)
		if last.Group != nil {
			for _, e := range last.Group.Ended {
				s.learnEnd(trialKey{sw.ID, n}, e.Worker, last.Token, e.Exit, e.Message)
			}
		}
	}
}

// learnEnd is learn of one end, of a run or of a member's part in it.
func (s *Scheduler) learnEnd(k trialKey, worker string, token uint64, exit trial.Exit, message string) {
	switch exit {
	case trial.ExitDataMissing, trial.ExitBadSpec:
		s.judgeEnd(refusalKey{k.sweep, worker}, token, exit, message)
	case trial.ExitDiskFull, trial.ExitDeviceFault:
		if s.faults[k].IsZero() {
			s.faults[k] = s.now
		}
	}
}

// excuse forgets what a worker refused: it was started again, and may have been
// mended. forgive does so for a sweep that has ended.
func (s *Scheduler) excuse(worker string) {
	for k, r := range s.refusals {
		if k.worker == worker {
			since := max(r.since, r.token)
			for _, token := range r.bad {
				since = max(since, token)
			}
			s.refusals[k] = refusal{since: since}
		}
	}
}

// forgive forgets the refusals of a sweep that has ended.
func (s *Scheduler) forgive(sweep string) {
	maps.DeleteFunc(s.refusals, func(k refusalKey, _ refusal) bool { return k.sweep == sweep })
}

// refuses reports whether a worker takes none of a sweep's trials, as far as is
// known.
func (s *Scheduler) refuses(sweep, worker string) bool {
	r := s.refusals[refusalKey{sweep, worker}]
	return len(r.bad) >= maxRefused && !r.sound
}

// lacks reports whether a worker is known not to have a sweep's data.
func (s *Scheduler) lacks(sweep, worker string) bool {
	r := s.refusals[refusalKey{sweep, worker}]
	return r.lacks != "" && s.now.Before(r.again)
}

// others reports whether a worker beside the waiter's could train the sweep's
// trials, now or when it is through with what it does.
func (s *Scheduler) others(sw *state.Sweep, w *waiter) bool { return s.othersBeside(sw, w, nil) }

// othersBeside is others, where more waiters than the one are not counted.
func (s *Scheduler) othersBeside(sw *state.Sweep, w *waiter, more []*waiter) bool {
	if w.Sweep != "" { // programs are known by what they ask for, and have
		asks := func(o *waiter) bool { return o != w && o.Sweep == sw.ID }
		if slices.ContainsFunc(s.waiters, asks) {
			return true
		}
		for _, o := range s.promised {
			if asks(o) {
				return true
			}
		}
		for _, l := range s.leases {
			if l.sweep == sw.ID {
				return true
			}
		}
		return false
	}
	for name, other := range s.workers {
		if name == w.Worker || slices.ContainsFunc(more, func(m *waiter) bool { return m.Worker == name }) || s.now.Sub(other.seen) > s.ttl || other.told.Draining || s.view.Drained(name) || s.refuses(sw.ID, name) || s.lacks(sw.ID, name) {
			continue
		}
		if offers(&other.told, sw) && labelled(other.told.Labels, sw) {
			return true
		}
	}
	return false
}

// settled reports whether every worker has had time to be heard of: a new leader
// knows none, and must not take a worker for the only one. A cluster that never had
// a sweep is new: whoever is there is all there is.
func (s *Scheduler) settled() bool { return s.fresh || s.termPassed() }

// termPassed reports whether this leadership is older than a lease's term: who has not been heard
// of by then is gone.
func (s *Scheduler) termPassed() bool { return s.now.Sub(s.began) >= s.ttl }

// final reports whether what the waiters say of a trial of the sweep is the last
// word on it: no other worker could try.
func (s *Scheduler) final(sw *state.Sweep, ws []*waiter) bool {
	return (s.settled() || ws[0].Sweep != "") && !s.othersBeside(sw, ws[0], ws[1:])
}

// shunned reports whether a waiter's worker gets no more of a sweep for now. One
// that has refused its trials gets none while another has not: a broken worker
// beside healthy ones would otherwise take and give back one trial after the
// other, faster than they train. One that lacks the data gets none either way,
// until it is asked again; save that a sweep of which nothing was ever trained
// ends with the last of those who could.
func (s *Scheduler) shunned(sw *state.Sweep, w *waiter) bool {
	if w.Sweep != "" {
		return false
	}
	if s.lacks(sw.ID, w.Worker) {
		return sw.Counts.Reports > 0 || !s.settled() || s.heldBeside(sw.ID, w.Worker) || s.others(sw, w)
	}
	return s.refuses(sw.ID, w.Worker) && s.others(sw, w)
}

// heldBeside reports whether another worker has a run of the sweep: it will tell.
func (s *Scheduler) heldBeside(sweep, worker string) bool {
	for _, l := range s.leases {
		if l.sweep == sweep && slices.ContainsFunc(l.holders, func(h *holder) bool { return h.worker != worker }) {
			return true
		}
	}
	return false
}

// lacking says which sweeps' data a worker does not have, for people.
func (s *Scheduler) lacking(worker string) string {
	var words []string
	for k, r := range s.refusals {
		if k.worker == worker && r.lacks != "" {
			words = append(words, fmt.Sprintf("lacks the data of %s: %s", k.sweep, r.lacks))
		}
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
}
