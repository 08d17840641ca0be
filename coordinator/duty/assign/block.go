package assign

import (
	"maps"
	"math"
	"slices"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// block is slots that a gang left at the same time, or is about to: they go to the
// next gang of the highest priority that waits, before smaller trials whose turn it
// may be, up to inRow times. Else the slots would be emptied again for each gang.
type block struct {
	size  int
	inRow int       // of the gang that gets them
	until time.Time // when they are no longer kept together
}

// gather makes a block of the slots that a run leaves at its end.
func (s *Scheduler) gather(l *lease) {
	switch {
	case l == nil || !l.group:
	case l.block != nil: // the last members come now
		l.block.until = s.now.Add(gatherFor)
	case len(l.holders) > 1 && l.inRow < inRow:
		l.block = &block{len(l.holders), l.inRow + 1, s.now.Add(gatherFor)}
		s.blocks = append(s.blocks, l.block)
	}
}

// spend takes a block off: its slots went to a gang.
func (s *Scheduler) spend(b *block) {
	s.blocks = slices.DeleteFunc(s.blocks, func(o *block) bool { return o == b })
}

// promote gives each block to a sweep: of those of the highest priority the one whose
// gang is the largest that it has room for, of equals the first in order. Not while a
// larger gang has waited too long, which needs these slots and more.
func (m *matching) promote(open []*candidate) {
	top := int32(math.MinInt32)
	for _, c := range open {
		if len(c.waiting) > 0 && c.room > 0 {
			top = max(top, c.sweep.Priority)
		}
	}
	for _, b := range slices.Clone(m.blocks) {
		if m.now.After(b.until) {
			m.spend(b)
			continue
		}
		var best *candidate
		waitsLarger := false
		for _, c := range open {
			size := int(c.sweep.Members.Min)
			switch {
			case len(c.waiting) == 0 || c.room <= 0 || c.sweep.Priority < top || c.block != nil:
			case size > b.size:
				waitsLarger = waitsLarger || !c.since.IsZero()
			case best == nil || size > int(best.sweep.Members.Min) || size == int(best.sweep.Members.Min) && c.before(best):
				best = c
			}
		}
		if best != nil && best.sweep.Members.Min > 1 && !waitsLarger {
			best.block = b
		}
	}
}

// memberChanged takes it in that the members of a run are others.
func (s *Scheduler) memberChanged(c *state.Change) {
	s.free = true
	l, is := s.leases[c.Token], s.current(c.Sweep, c.Trial, c.Token)
	if c.Kind == state.MemberGone {
		if is == nil { // with the run, of which more is to come
			s.gather(l)
			return
		}
		if sw, ok := s.view.Sweep(c.Sweep); ok && l != nil {
			runs := sw.Trial(c.Trial).Runs
			for _, e := range runs[len(runs)-1].Group.Ended {
				if e.Member == c.Member && (e.Exit == trial.ExitFinished || e.Exit == trial.ExitStopped || e.Exit == trial.ExitPaused) {
					s.gather(l)
				}
			}
		}
		s.judge(c)
	}
	if l = s.arm(c.Sweep, c.Trial, c.Token); l != nil && is != nil {
		s.follow(l, is)
	}
}

// expect takes it that a slot whose run is over asks for the next one soon: no member
// has to leave for a trial that can have it.
func (s *Scheduler) expect(h *holder) {
	if len(s.grouped) > 0 {
		s.coming[place{h.worker, h.slot}] = s.now.Add(gatherFor)
	}
}

// idleSlot is since when a slot has waited, and until when its poll did.
type idleSlot struct{ since, until time.Time }

// pollGap is how long after the end of a poll the next one of its slot comes.
const pollGap = 2 * time.Second

// remember keeps it that a slot waited whose poll is over.
func (s *Scheduler) remember(w *waiter) {
	if len(s.grouped) > 0 {
		s.idle[w.place()] = idleSlot{w.since, s.now}
	}
}

// idleSince is since when a slot that asks has waited.
func (s *Scheduler) idleSince(w *waiter) time.Time {
	before, known := s.idle[w.place()]
	delete(s.idle, w.place())
	if known && s.now.Sub(before.until) <= pollGap {
		return before.since
	}
	return s.now
}

// forgetIdle forgets slots that no longer ask.
func (s *Scheduler) forgetIdle() {
	maps.DeleteFunc(s.coming, func(_ place, until time.Time) bool { return s.now.After(until) })
	for k, i := range s.idle {
		if s.now.Sub(i.until) > pollGap {
			delete(s.idle, k)
		}
	}
}
