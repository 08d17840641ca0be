package assign

import (
	"fmt"
	"time"

	"atelier/common/trial"
)

// A worker's name belongs to one data folder at a time: that of the agent which
// is heard of, or whose leases have not run out. Another folder's agent, such as
// that of a cloned machine, is refused while the owner lives, and has the name
// once the owner has been silent for the term of a lease: a machine is replaced
// without anybody's doing. Of one folder the newest start counts.

type claimKey struct{ name, folder string }

// refused says why an agent may not speak for the name it gives; "" where it
// may. final says that waiting would be of no use.
func (s *Scheduler) refused(h trial.Heartbeat) (why string, final bool) {
	name, incarnation := h.Worker.Name, h.Worker.Incarnation
	w := s.workers[name]
	if w != nil && w.superseded[incarnation] {
		if h.Folder != "" && h.Folder == w.folder {
			return fmt.Sprintf("worker %s was started again at %s from the same data folder, or from a copy of it (id %s); to run both, give the copy another --name and delete folder-id in its data folder",
				name, w.told.Address, w.folder), true
		}
		return fmt.Sprintf("the name %s has gone to another worker, at %s, data folder %s, while this one was not heard of; start it with another --name", name, w.told.Address, w.folder), true
	}
	if h.Folder == "" { // from before folders had ids
		return "", false
	}
	k := claimKey{name, h.Folder}
	owner, heard := "", time.Time{}
	switch {
	case w != nil && w.folder == h.Folder:
	case w != nil && w.folder != "" && s.now.Sub(w.seen) <= s.ttl && !(h.Admitted && !w.admitted && !s.termPassed()):
		// The exception: who was the cluster's under the leader before goes first
		// where a newcomer was heard of earlier.
		owner = fmt.Sprintf("at %s, data folder %s, heard of %v ago", w.told.Address, w.folder, s.now.Sub(w.seen).Round(100*time.Millisecond))
		heard = w.seen
	case w == nil || s.now.Sub(w.seen) > s.ttl:
		if held := s.held(func(l *holder) bool { return l.worker == name && l.folder != "" && l.folder != h.Folder }); len(held) > 0 {
			owner = fmt.Sprintf("data folder %s, which has trials", held[0].folder)
		}
	}
	if owner == "" {
		delete(s.claims, k)
		return "", false
	}
	since, known := s.claims[k]
	if !known {
		since = s.now
		s.claims[k] = s.now
		s.want(Say{true, "a second worker of a name was refused", []any{"worker", name, "address", h.Worker.Address, "folder", h.Folder, "holder", owner}})
	}
	return fmt.Sprintf("the name %s is held by another worker, %s; start this one with another --name, or end that one: the name is free %v after its last word", name, owner, s.ttl), heard.After(since)
}

// supersede ends all that an earlier agent of a name had: a later start of its
// folder has come, or another folder's, to which the name has gone.
func (s *Scheduler) supersede(w *worker, name, incarnation string) {
	old := w.told.Incarnation
	if old == "" || old == incarnation {
		return
	}
	w.superseded[old] = true
	s.excuse(name)
	s.dismiss(func(x *waiter) bool { return x.Worker == name && x.Incarnation == old })
}
