package assign

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

const (
	// patience is how many trials of a sweep a worker may refuse (bad spec) before
	// others are asked first.
	patience = 2
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
func (t *term) judge(view *state.View, c *state.Change, now time.Time) {
	s, ok := view.Sweep(c.Sweep)
	if !ok || s.Ended() || s.Trial(c.Trial) == nil {
		return
	}
	runs := s.Trial(c.Trial).Runs
	i := slices.IndexFunc(runs, func(r state.Run) bool { return r.Token == c.Token })
	if i < 0 {
		return
	}
	k := refusalKey{c.Sweep, c.Worker}
	r := t.refusals[k]
	switch runs[i].Exit {
	case trial.ExitBadSpec:
		t.refuse(k, c.Token)
		return
	case trial.ExitDataMissing:
		t.miss(k, &runs[i], now)
		return
	case trial.ExitFinished, trial.ExitStopped, trial.ExitPaused, trial.ExitDiverged:
		r.sound, r.lacks, r.pause, r.again = true, "", 0, time.Time{}
	default:
		return
	}
	t.refusals[k] = r
}

// refuse takes it in that a worker refused a trial of a sweep.
func (t *term) refuse(k refusalKey, token uint64) {
	r := t.refusals[k]
	if token <= r.since || len(r.bad) >= patience || slices.Contains(r.bad, token) {
		return
	}
	r.bad = append(r.bad, token)
	t.refusals[k] = r
}

// miss takes it in that a worker does not have a sweep's data.
func (t *term) miss(k refusalKey, run *state.Run, now time.Time) {
	r := t.refusals[k]
	if run.Token <= r.token || run.Token <= r.since {
		return
	}
	r.token = run.Token
	if !now.Before(r.again) { // else of a run that began before it was known
		r.lacks = cmp.Or(run.Message, "it does not say what")
		r.pause = min(max(2*r.pause, lackPause), lackLimit)
		r.again = now.Add(r.pause)
	}
	t.refusals[k] = r
}

// learn takes in what the state shows of trials that a worker gave back: a change may not have been told here yet, and a new leader was told
// none.
func (t *term) learn(s *state.Sweep, worker string, now time.Time) {
	for _, n := range s.WaitingAgain() {
		runs := s.Trial(n).Runs
		last := &runs[len(runs)-1]
		switch {
		case last.Worker != worker:
		case last.Exit == trial.ExitDataMissing:
			t.miss(refusalKey{s.ID, worker}, last, now)
		case last.Exit == trial.ExitBadSpec:
			t.refuse(refusalKey{s.ID, worker}, last.Token)
		}
	}
}

// excuse forgets what a worker refused: it was started again, and may have been
// mended. forgive does so for a sweep that has ended.
func (t *term) excuse(worker string) {
	for k, r := range t.refusals {
		if k.worker == worker {
			since := max(r.since, r.token)
			for _, token := range r.bad {
				since = max(since, token)
			}
			t.refusals[k] = refusal{since: since}
		}
	}
}

func (t *term) forgive(sweep string) {
	for k := range t.refusals {
		if k.sweep == sweep {
			delete(t.refusals, k)
		}
	}
}

// refuses reports whether a worker takes none of a sweep's trials, as far as is
// known.
func (t *term) refuses(sweep, worker string) bool {
	r := t.refusals[refusalKey{sweep, worker}]
	return len(r.bad) >= patience && !r.sound
}

// lacks reports whether a worker is known not to have a sweep's data.
func (t *term) lacks(sweep, worker string, now time.Time) bool {
	r := t.refusals[refusalKey{sweep, worker}]
	return r.lacks != "" && now.Before(r.again)
}

// others reports whether a worker beside the waiter's could train the sweep's
// trials, now or when it is through with what it does.
func (a *Assigner) others(t *term, view *state.View, s *state.Sweep, w *waiter) bool {
	if w.sweep != "" { // programs are known by what they ask for, and have
		asks := func(o *waiter) bool { return o != w && o.sweep == s.ID }
		if slices.ContainsFunc(t.waiters, asks) {
			return true
		}
		for _, o := range t.granting {
			if asks(o) {
				return true
			}
		}
		for _, l := range t.leases {
			if l.sweep == s.ID {
				return true
			}
		}
		return false
	}
	now := a.cfg.Now()
	for name, other := range t.workers {
		if name == w.worker || now.Sub(other.seen) > a.cfg.TTL || other.told.GetDraining() || view.Drained(name) || t.refuses(s.ID, name) || t.lacks(s.ID, name, now) {
			continue
		}
		if slices.Contains(other.told.GetTrainers(), s.Trainer) && labelled(other.told.GetLabels(), s) {
			return true
		}
	}
	return false
}

// settled reports whether every worker has had time to be heard of: a new leader
// knows none, and must not take a worker for the only one. A cluster that never had
// a sweep is new: whoever is there is all there is.
func (a *Assigner) settled(t *term) bool { return a.cfg.Now().Sub(t.began) >= a.cfg.TTL }

// final reports whether what the waiter says of a trial of the sweep is the last
// word on it: no other worker could try.
func (a *Assigner) final(t *term, view *state.View, s *state.Sweep, w *waiter) bool {
	return (t.fresh || a.settled(t) || w.sweep != "") && !a.others(t, view, s, w)
}

// shunned reports whether a waiter's worker gets no more of a sweep for now. One
// that has refused its trials gets none while another has not: a broken worker
// beside healthy ones would otherwise take and give back one trial after the
// other, faster than they train. One that lacks the data gets none either way,
// until it is asked again; save that a sweep of which nothing was ever trained
// ends with the last of those who could.
func (a *Assigner) shunned(t *term, view *state.View, s *state.Sweep, w *waiter) bool {
	if w.sweep != "" {
		return false
	}
	now := a.cfg.Now()
	t.learn(s, w.worker, now)
	if t.lacks(s.ID, w.worker, now) {
		return s.Counts.Reports > 0 || !t.fresh && !a.settled(t) || t.heldBeside(s.ID, w.worker) || a.others(t, view, s, w)
	}
	return t.refuses(s.ID, w.worker) && a.others(t, view, s, w)
}

// heldBeside reports whether another worker has a run of the sweep: it will tell.
func (t *term) heldBeside(sweep, worker string) bool {
	for _, l := range t.leases {
		if l.sweep == sweep && l.worker != worker {
			return true
		}
	}
	return false
}

// lacking says which sweeps' data a worker does not have, for people.
func (t *term) lacking(worker string) string {
	var words []string
	for k, r := range t.refusals {
		if k.worker == worker && r.lacks != "" {
			words = append(words, fmt.Sprintf("lacks the data of %s: %s", k.sweep, r.lacks))
		}
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
}

// Note says, for people, which workers do not have the data of a sweep; "" where
// none is known.
func (a *Assigner) Note(s *state.Sweep) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.term
	if t == nil || s.Ended() {
		return ""
	}
	var names []string
	for k, r := range t.refusals {
		if k.sweep == s.ID && r.lacks != "" {
			names = append(names, k.worker)
		}
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("worker %s does not have its data and leaves its trials to others: %s", names[0], t.refusals[refusalKey{s.ID, names[0]}].lacks)
	}
	return fmt.Sprintf("workers %s do not have its data and leave its trials to others: %s", strings.Join(names, ", "), t.refusals[refusalKey{s.ID, names[0]}].lacks)
}
