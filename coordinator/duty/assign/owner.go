package assign

import (
	"fmt"
	"slices"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
)

// A worker's name belongs to one data folder at a time: that of the agent which
// is heard of, or whose leases have not run out. Another folder's agent, such as
// that of a cloned machine, is refused while the owner lives, and has the name
// once the owner has been silent for the term of a lease: a machine is replaced
// without anybody's doing. Of one folder the newest start counts.

type claimKey struct{ name, folder string }

// refused says why an agent may not speak for the name it gives; "" where it
// may. final says that waiting would be of no use.
func (a *Assigner) refused(t *term, req *atelierv1.HeartbeatRequest, now time.Time) (why string, final bool) {
	name, incarnation := req.GetWorker().GetName(), req.GetWorker().GetIncarnation()
	w := t.workers[name]
	if w != nil && w.superseded[incarnation] {
		if req.Folder != "" && req.Folder == w.folder {
			return fmt.Sprintf("worker %s was started again at %s from the same data folder, or from a copy of it (id %s); to run both, give the copy another --name and delete folder-id in its data folder",
				name, w.told.GetAddress(), w.folder), true
		}
		return fmt.Sprintf("the name %s has gone to another worker, at %s, data folder %s, while this one was not heard of; start it with another --name", name, w.told.GetAddress(), w.folder), true
	}
	if req.Folder == "" { // from before folders had ids
		return "", false
	}
	k := claimKey{name, req.Folder}
	holder, heard := "", time.Time{}
	switch {
	case w != nil && w.folder == req.Folder:
	case w != nil && w.folder != "" && now.Sub(w.seen) <= a.cfg.TTL && !(req.Admitted && !w.admitted && !a.settled(t)):
		// The exception: who was the cluster's under the leader before goes first
		// where a newcomer was heard of earlier.
		holder = fmt.Sprintf("at %s, data folder %s, heard of %v ago", w.told.GetAddress(), w.folder, now.Sub(w.seen).Round(100*time.Millisecond))
		heard = w.seen
	case w == nil || now.Sub(w.seen) > a.cfg.TTL:
		for _, l := range t.leases {
			if l.worker == name && l.folder != "" && l.folder != req.Folder {
				holder = fmt.Sprintf("data folder %s, which has trials", l.folder)
				break
			}
		}
	}
	if holder == "" {
		delete(t.claims, k)
		return "", false
	}
	since, known := t.claims[k]
	if !known {
		since = now
		t.claims[k] = now
		a.cfg.Logger.Warn("a second worker of a name was refused", "worker", name, "address", req.GetWorker().GetAddress(), "folder", req.Folder, "holder", holder)
	}
	return fmt.Sprintf("the name %s is held by another worker, %s; start this one with another --name, or end that one: the name is free %v after its last word", name, holder, a.cfg.TTL), heard.After(since)
}

// supersede ends all that an earlier agent of a name had: a later start of its
// folder has come, or another folder's, to which the name has gone.
func (a *Assigner) supersede(t *term, w *worker, name, incarnation string) {
	old := w.told.GetIncarnation()
	if old == "" || old == incarnation {
		return
	}
	w.superseded[old] = true
	t.excuse(name)
	t.waiters = slices.DeleteFunc(t.waiters, func(x *waiter) bool {
		gone := x.worker == name && x.incarnation == old
		if gone {
			x.done(nil, nil)
		}
		return gone
	})
}

// foreign reports whether a request for a lease comes from another folder than
// that which has the name.
func (a *Assigner) foreign(t *term, w *waiter) bool {
	k := t.workers[w.worker]
	return k != nil && w.folder != "" && k.folder != "" && k.folder != w.folder && a.cfg.Now().Sub(k.seen) <= a.cfg.TTL
}
