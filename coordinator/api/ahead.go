package api

import (
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/state"
)

// A slot fetches its next lease while its run is still going, so that it does not
// stand idle in between. The state has such a trial as running, for nobody else may
// take it; to people it waits until its run begins, or more trials would run than
// there are slots.

// place is where one run at a time is carried out.
type place struct{ worker, incarnation, slot string }

// placesOf are those that carry a lease's run out: of a group all its members'.
func placesOf(l *state.Lease) []place {
	if l.Members == nil {
		return []place{{l.Worker, l.Incarnation, l.Slot}}
	}
	all := make([]place, len(l.Members))
	for i := range l.Members {
		m := &l.Members[i]
		all[i] = place{m.Worker, m.Incarnation, m.Slot}
	}
	return all
}

// leasedAhead are the trials of a sweep whose slot still carries out a run that it
// was given before, of whichever sweep.
func leasedAhead(view *state.View, of *state.Sweep) map[int64]bool {
	if of.Counts.Running == 0 || of.Trainer == assign.External {
		return nil
	}
	type holder struct {
		token uint64 // the first one's
		sweep string
		trial int64
	}
	first := map[place]holder{}
	var here []holder // of the sweep, with the places of each in at
	var at [][]place
	for _, sw := range view.Sweeps() {
		if sw.Counts.Running == 0 || sw.Trainer == assign.External {
			continue
		}
		for _, n := range sw.Open() {
			l := sw.Trial(n).Lease
			if l == nil {
				continue
			}
			places, h := placesOf(l), holder{l.Token, sw.ID, n}
			for _, p := range places {
				if f, ok := first[p]; !ok || h.token < f.token {
					first[p] = h
				}
			}
			if sw.ID == of.ID {
				here, at = append(here, h), append(at, places)
			}
		}
	}
	var ahead map[int64]bool
	for i, h := range here {
		if slices.ContainsFunc(at[i], func(p place) bool { return first[p] != h }) {
			if ahead == nil {
				ahead = map[int64]bool{}
			}
			ahead[h.trial] = true
		}
	}
	return ahead
}

// told is a sweep as people are to see it: with what the leader's memory adds, and
// with trials that are only leased ahead among those that wait.
func (s *Server) told(view *state.View, sw *state.Sweep) *atelierv1.Sweep {
	m := sw.Proto(s.now())
	m.Note = s.cfg.Assign.Note(sw)
	n := int64(len(leasedAhead(view, sw)))
	m.Counts.Running -= n
	m.Counts.Waiting += n
	return m
}

// statusOf is a trial's state as people are to see it.
func statusOf(t *state.Trial, ahead map[int64]bool) trial.Status {
	if ahead[t.Number] {
		return trial.Waiting
	}
	return t.Status
}

// toldTrial is a trial as people are to see it.
func toldTrial(t *state.Trial, sw *state.Sweep, ahead map[int64]bool) *atelierv1.Trial {
	m := t.Proto(sw)
	if ahead[t.Number] {
		m.Status = wire.ToStatus(trial.Waiting)
		if len(m.Runs) == 1 {
			m.StartedMs = 0 // the lease's: its run has not begun
		}
	}
	return m
}
