package assign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// worker is an agent as its heartbeats tell.
type worker struct {
	told       trial.Worker
	seen       time.Time
	superseded map[string]bool // incarnations that ended before the present one
	folder     string          // id of its data folder; empty for an agent from before there were any
	admitted   bool            // when it was first heard of here, an earlier leader had taken it in
}

// States of a worker.
const (
	StateReady    = "ready"
	StateDraining = "draining"
	StateLost     = "lost"
)

// hear renews the leases that a heartbeat names and ends those of earlier
// incarnations. Whoever took the heartbeat has made sure that this node leads
// still: what is renewed here a worker relies on.
func (s *Scheduler) hear(h trial.Heartbeat) (a trial.HeartbeatAnswer, err error) {
	name, incarnation := h.Worker.Name, h.Worker.Incarnation
	if name == "" || incarnation == "" {
		return a, fmt.Errorf("%w: heartbeat needs the worker's name and incarnation", state.ErrInvalid)
	}
	a.TTL, a.Drain = s.ttl, s.view.Drained(name)
	for _, m := range s.view.Members() {
		if m.APIAddress != "" {
			a.Coordinators = append(a.Coordinators, m.APIAddress)
		}
	}
	if a.Refused, a.Final = s.refused(h); a.Refused != "" {
		a.Lost = h.Leases
		return a, nil
	}
	w := s.workers[name]
	if w == nil {
		w = &worker{superseded: map[string]bool{}}
		s.workers[name] = w
	}
	s.supersede(w, name, incarnation)
	if w.told.Incarnation != incarnation {
		w.folder, w.admitted = h.Folder, h.Admitted
	}
	if len(s.grouped) > 0 && (s.now.Sub(w.seen) > s.ttl || w.told.Address != h.Worker.Address || len(w.told.Slots) != len(h.Worker.Slots)) {
		s.free = true // a group may have members there now
	}
	w.told, w.seen = h.Worker, s.now
	a.Dropped = s.files(name)

	s.end(s.held(func(h *holder) bool { return h.worker == name && h.incarnation != incarnation && h.lasting() }), func(*lease) string { return "the agent was started again" })
	for _, ref := range h.Leases {
		var held *holder
		if l := s.arm(ref.Sweep, ref.Trial, ref.Token); l != nil {
			if is := s.current(ref.Sweep, ref.Trial, ref.Token); is != nil {
				s.follow(l, is) // its change may not have been heard of
				held = l.of(ref.Member)
			}
		}
		if held == nil || held.worker != name || held.incarnation != incarnation {
			a.Lost = append(a.Lost, ref)
			continue
		}
		if held.ending || held.losing {
			// Its end is being written; who comes first decides, and a worker told
			// so early loses less.
			a.Lost = append(a.Lost, ref)
			continue
		}
		held.deadline = s.now.Add(held.term)
		if held.leaving {
			a.Leave = append(a.Leave, ref)
		}
		sw, _ := s.view.Sweep(ref.Sweep)
		tr := sw.Trial(ref.Trial)
		if tr.Verdict == trial.VerdictStop || tr.Verdict == trial.VerdictPause {
			a.Verdicts = append(a.Verdicts, trial.LeaseVerdict{Lease: ref, Verdict: tr.Verdict, Reason: tr.StopReason})
		}
	}
	return a, nil
}

// Workers lists the workers heard of under this leader, by name. The slots of
// one that is lost do nothing.
func (s *Scheduler) Workers(view *state.View, now time.Time) []trial.Worker {
	out := make([]trial.Worker, 0, len(s.workers))
	for name, w := range s.workers {
		m := w.told
		m.Slots = slices.Clone(m.Slots)
		unseen := now.Sub(w.seen)
		m.LastSeenMS = now.Add(-unseen).UnixMilli() // by the clock on the wall as it is now
		m.Note = s.lacking(name)
		m.Draining = m.Draining || view.Drained(name)
		switch {
		case unseen > s.ttl:
			m.State = StateLost
			for i := range m.Slots { // what it did last is over
				m.Slots[i].Sweep, m.Slots[i].Trial, m.Slots[i].State = "", 0, ""
			}
		case m.Draining:
			m.State = StateDraining
		default:
			m.State = StateReady
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b trial.Worker) int { return strings.Compare(a.Name, b.Name) })
	return out
}
