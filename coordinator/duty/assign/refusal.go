package assign

import (
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
)

// patience is how many trials of a sweep a worker may refuse (bad spec) before
// others are asked first.
const patience = 2

// refusal is what a worker made of one sweep's trials under this leader.
type refusal struct {
	count int  // runs that it ended with bad spec
	sound bool // it has ended one otherwise: it can train them
}

type refusalKey struct{ sweep, worker string }

// judge takes the end of a run into account.
func (t *term) judge(view *state.View, c *state.Change) {
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
	case atelierv1.ExitClass_EXIT_CLASS_BAD_SPEC:
		r.count++
	case atelierv1.ExitClass_EXIT_CLASS_FINISHED, atelierv1.ExitClass_EXIT_CLASS_STOPPED, atelierv1.ExitClass_EXIT_CLASS_PAUSED, atelierv1.ExitClass_EXIT_CLASS_DIVERGED:
		r.sound = true
	default:
		return
	}
	t.refusals[k] = r
}

// excuse forgets what a worker refused: it was started again, and may have been
// mended. forgive does so for a sweep that has ended.
func (t *term) excuse(worker string) {
	for k := range t.refusals {
		if k.worker == worker {
			delete(t.refusals, k)
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
	return r.count >= patience && !r.sound
}

// shunned reports whether a waiter's worker has refused the sweep's trials and
// there is another that has not: a broken worker beside healthy ones would
// otherwise take and fail one trial after the other, faster than they train.
func (a *Assigner) shunned(t *term, view *state.View, s *state.Sweep, w *waiter) bool {
	if w.sweep != "" || !t.refuses(s.ID, w.worker) {
		return false
	}
	now := a.cfg.Now()
	for name, other := range t.workers {
		if name == w.worker || now.Sub(other.seen) > a.cfg.TTL || other.told.GetDraining() || view.Drained(name) || t.refuses(s.ID, name) {
			continue
		}
		if slices.Contains(other.told.GetTrainers(), s.Trainer) && labelled(other.told.GetLabels(), s) {
			return true
		}
	}
	return false
}
