package state

import (
	"cmp"
	"slices"
	"strings"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// An archived sweep is left out of lists and is otherwise as before. A deleted one
// has ended, is left out of lists and does not run again; GraceMS later the leader
// takes it out of the state for good (PurgeSweep), and workers delete its files.
// Until then it can be taken back with all it had.

// GraceMS is how long a deleted sweep can be taken back, in milliseconds.
const GraceMS = 24 * 60 * 60 * 1000

// purged is what is remembered of a sweep that is gone.
type purged struct {
	id, createRequest string
	createdIndex      uint64
	deletedMS         int64
	purgedIndex       uint64 // of the entry that took it out
}

// PurgeMS is when a deleted sweep goes for good, in Unix milliseconds; 0 for one
// that is not deleted.
func (s *Sweep) PurgeMS() int64 {
	if s.DeletedMS == 0 {
		return 0
	}
	return s.DeletedMS + GraceMS
}

// Purged returns when a sweep that is gone was deleted, in Unix milliseconds;
// false for one of which that is not known.
func (v *View) Purged(id string) (deletedMS int64, ok bool) {
	for i := range v.purged {
		if v.purged[i].id == id {
			return v.purged[i].deletedMS, true
		}
	}
	return 0, false
}

// gone reports whether a sweep was purged.
func (v *View) gone(id string) bool { _, gone := v.Purged(id); return gone }

// PurgedIndex is the index of the last command that took a sweep out; 0 for none.
func (v *View) PurgedIndex() uint64 {
	if n := len(v.purged); n > 0 {
		return v.purged[n-1].purgedIndex
	}
	return 0
}

// shelve archives or deletes a sweep, or takes that back.
func (m *Machine) shelve(now int64, s *Sweep, a trial.Action, force bool, r *Result) {
	now = max(now, 1)
	archived, deleted := s.ArchivedMS, s.DeletedMS
	switch a {
	case trial.ActionArchive:
		if s.DeletedMS != 0 {
			r.Err = conflict("archive sweep %s: it is deleted", s.ID)
			return
		}
		archived = cmp.Or(archived, now)
	case trial.ActionUnarchive:
		archived = 0
	case trial.ActionDelete:
		if !s.Ended() {
			r.Err = conflict("delete sweep %s: it is %s: cancel or stop it first", s.ID, s.Status)
			return
		}
		if names := m.live.AliasesOf(s.ID); len(names) > 0 && !force {
			r.Err = conflict("delete sweep %s: the alias %s names a checkpoint of it: remove or move it first, or force the deletion, which removes it with the sweep", s.ID, strings.Join(names, ", "))
			return
		}
		deleted = cmp.Or(deleted, now)
	case trial.ActionUndelete:
		deleted = 0
	}
	if archived == s.ArchivedMS && deleted == s.DeletedMS {
		r.Outcome = trial.OutcomeAlready
		return
	}
	s, _ = m.sweep(s.ID)
	s.ArchivedMS, s.DeletedMS = archived, deleted
	m.setSweep(now, s, s.Status)
}

// purgeSweep takes a deleted sweep out of the state. What is remembered keeps a
// repeated CreateSweep from making it again, and tells workers that its files may go.
func (m *Machine) purgeSweep(c *logv1.PurgeSweep, r *Result) {
	if _, gone := m.live.Purged(c.GetId()); gone {
		r.Sweep, r.Outcome = c.GetId(), trial.OutcomeAlready
		return
	}
	s := m.find(c.GetId(), r)
	switch {
	case s == nil:
		return
	case s.DeletedMS == 0 || s.DeletedMS != c.GetDeletedMs():
		r.Err = conflict("purge sweep %s: it is not deleted, or was deleted again since", s.ID)
		return
	}
	for t := range s.Trials(1) {
		for i := range t.Checkpoints {
			m.note(Change{Kind: CheckpointDropped, Sweep: s.ID, Trial: t.Number, Worker: t.Checkpoints[i].Worker, Location: t.Checkpoints[i].Location})
		}
	}
	m.live.trials -= s.Len()
	m.removeSweep(s.ID)
	m.dropAliases(s.ID)
	kept := m.live.purged
	if len(kept) >= maxPurged {
		if request := kept[0].createRequest; request != "" {
			delete(m.requests, requestKey("create", request))
		}
		kept = kept[1:]
	}
	m.live.purged = append(slices.Clone(kept), purged{s.ID, s.CreateRequest, s.CreatedIndex, s.DeletedMS, m.live.index})
	m.note(Change{Kind: SweepPurged, Sweep: s.ID, Trial: s.Len()})
}

// removeSweep makes the list of sweeps anew without one.
func (m *Machine) removeSweep(id string) {
	all := m.live.Sweeps()
	m.live.sweeps, m.live.byID, m.shared = vector[*Sweep]{}, make(map[string]int, len(all)), false
	for _, s := range all {
		if s.ID != id {
			m.live.byID[s.ID] = m.live.sweeps.len()
			m.live.sweeps.push(m.gen, s)
		}
	}
}

// purgedRecords is what a snapshot has of the sweeps that are gone; loadPurged is its
// inverse.
func (v *View) purgedRecords() (list []*logv1.PurgedSweep) {
	for _, p := range v.purged {
		list = append(list, &logv1.PurgedSweep{Id: p.id, CreateRequest: p.createRequest, CreatedIndex: p.createdIndex, DeletedMs: p.deletedMS, PurgedIndex: p.purgedIndex})
	}
	return list
}

func (m *Machine) loadPurged(list []*logv1.PurgedSweep) error {
	if len(list) > maxPurged {
		return invalid("header: %d deleted sweeps", len(list))
	}
	seen := make(map[string]bool, len(list))
	for _, p := range list {
		id, request := p.GetId(), p.GetCreateRequest()
		key := requestKey("create", request)
		if _, twice := m.requests[key]; !validID(id) || seen[id] || len(request) > maxName || request != "" && twice {
			return invalid("header: deleted sweep %.80q", id)
		}
		seen[id] = true
		if request != "" {
			m.requests[key] = rememberedResult(p.GetCreatedIndex(), id)
		}
		m.live.purged = append(m.live.purged, purged{id, request, p.GetCreatedIndex(), p.GetDeletedMs(), p.GetPurgedIndex()})
	}
	return nil
}

// clampPurged is clampRequests for the requests that made sweeps which are gone.
func (m *Machine) clampPurged() {
	m.live.purged = slices.Clone(m.live.purged)
	for i := range m.live.purged {
		p := &m.live.purged[i]
		p.purgedIndex = min(p.purgedIndex, m.live.index)
		if p.createdIndex > m.live.index {
			p.createdIndex = m.live.index
			if p.createRequest != "" {
				m.requests[requestKey("create", p.createRequest)] = rememberedResult(p.createdIndex, p.id)
			}
		}
	}
}
