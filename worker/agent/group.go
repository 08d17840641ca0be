package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/wire"
)

// group is what the members of one run that are here share. There is one from the
// first lease of the run to the end of the last.
type group struct {
	token     uint64
	retention *retention // of the files that any of them wrote; for the relay's goroutine

	mu      sync.Mutex
	members map[int32]*holding // that are here
	view    *trial.View        // newest that one of them reported; nil = none yet

	fetching sync.Mutex // below it: the checkpoint that all of them begin with
	fetched  bool
	resume   string // "" = from scratch
	epoch    int
}

// joinGroup takes a member in: it finds what is shared, and a seat for its links.
// To be called once a holding, before others can find it.
func (a *Agent) joinGroup(h *holding) error {
	l := h.lease
	seat, err := a.cfg.Wire.Seat(l.Token, a.peer(memberOf(l)))
	if err != nil {
		return err
	}
	a.groupsMu.Lock()
	defer a.groupsMu.Unlock()
	g := a.groups[l.Token]
	if g == nil {
		g = &group{token: l.Token, retention: newRetention(a.cfg.Store, l, a.log), members: map[int32]*holding{}}
		a.groups[l.Token] = g
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[l.Member] = h
	h.group, h.seat = g, seat
	return nil
}

// leaveGroup undoes joinGroup, once the member's trainer is gone. Where it is the
// last one here the copy of the checkpoint goes.
func (a *Agent) leaveGroup(h *holding) {
	g := h.group
	if g == nil {
		return
	}
	h.seat.Close()
	a.groupsMu.Lock()
	g.mu.Lock()
	delete(g.members, h.lease.Member)
	last := len(g.members) == 0
	g.mu.Unlock()
	if last {
		delete(a.groups, g.token)
	}
	a.groupsMu.Unlock()
	if last && g.resume != "" {
		a.cfg.Store.DropCopy(g.resume)
	}
}

// memberOf is the member that a lease is of.
func memberOf(l *trial.Lease) trial.GroupMember {
	if i := slices.IndexFunc(l.Group.Members, func(m trial.GroupMember) bool { return m.ID == l.Group.Member }); i >= 0 {
		return l.Group.Members[i]
	}
	return trial.GroupMember{ID: l.Group.Member} // checkGroup refuses such a lease
}

// checkGroup reports what is wrong with the group of a lease that is to be this
// slot's.
func (s *slot) checkGroup(l *trial.Lease) error {
	g := l.Group
	if g == nil {
		if l.Member != 0 {
			return fmt.Errorf("lease %d is of member %d of no group", l.Token, l.Member)
		}
		return nil
	}
	for i, m := range g.Members {
		if m.ID < 1 || i > 0 && m.ID <= g.Members[i-1].ID {
			return fmt.Errorf("lease %d: its members are not in order", l.Token)
		}
	}
	if m := memberOf(l); g.Member < 1 || l.Member != g.Member || m.Worker != s.a.cfg.Name || m.Slot != s.spec.Name {
		return fmt.Errorf("lease %d: member %d (%s/%s) is not slot %s of this worker", l.Token, l.Member, m.Worker, m.Slot, s.spec.Name)
	}
	return nil
}

// peer is a member as links are made to it.
func (a *Agent) peer(m trial.GroupMember) wire.Peer {
	return wire.Peer{ID: int(m.ID), Name: m.Name(), Worker: m.Worker, Address: m.Address, Here: m.Worker == a.cfg.Name}
}

// link has the links of a member made, whose trainer is there, and waits until they
// are, until one cannot be, or something is asked of the run. The job is given
// afterwards: members wait for each other for a limited time only, and the trainer of
// another one may need minutes until it begins.
func (r *run) link(ctx context.Context) error {
	h := r.h
	if h.group == nil {
		return nil
	}
	var peers []wire.Peer
	for _, m := range h.lease.Group.Members {
		peers = append(peers, r.s.a.peer(m))
	}
	h.seat.Open(r.child.Links(), peers)
	select {
	case <-h.seat.Settled():
	case <-h.signal:
		h.notify() // for who watches the run
	case <-ctx.Done():
		return ctx.Err()
	case <-r.child.Exited():
	}
	if why := h.seat.Trouble(); why != "" {
		return &unreachable{why}
	}
	return nil
}

// unreachable is of a member that has no link to another one. It names the workers.
type unreachable struct{ why string }

func (e *unreachable) Error() string { return e.why }

// noGroups is of a trainer that does not know the protocol between members.
type noGroups struct {
	trainer, worker string
	version         int // of its own
}

func (e *noGroups) Error() string {
	if e.version == 0 {
		return fmt.Sprintf("trainer %q of worker %s knows no groups: it cannot train over several slots; give members: 1, or another trainer", e.trainer, e.worker)
	}
	return fmt.Sprintf("trainer %q of worker %s knows version %d of the protocol between members, this worker version %d: install the same release everywhere",
		e.trainer, e.worker, e.version, trainerproto.GroupVersion)
}

// jobGroup is a member's part as its trainer gets it.
func jobGroup(l *trial.Lease) *trainerproto.Group {
	if l.Group == nil {
		return nil
	}
	g := &trainerproto.Group{Token: l.Token, Member: int(l.Group.Member), Join: l.Group.Join, Shards: int(l.Group.Shards)}
	for _, m := range l.Group.Members {
		g.Members = append(g.Members, trainerproto.Fellow{Member: int(m.ID), Name: m.Name()})
	}
	return g
}

// once fetches what all members here begin with, for all of them.
func (g *group) once(fetch func() (file string, epoch int, err error)) (string, int, error) {
	g.fetching.Lock()
	defer g.fetching.Unlock()
	if !g.fetched {
		file, epoch, err := fetch()
		if err != nil {
			return "", 0, err // of this member: it lost its lease meanwhile
		}
		g.resume, g.epoch, g.fetched = file, epoch, true
	}
	return g.resume, g.epoch, nil
}

// setView notes a view that a member here reported. fresh: it is the first that tells
// of it; each member does, and again after its first step.
func (g *group) setView(v *trial.View) (fresh bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fresh = g.view == nil || v.Number > g.view.Number
	if g.view == nil || v.Number >= g.view.Number {
		g.view = v
	}
	for _, h := range g.members {
		h.notify() // it may be another thing now to leave
	}
	return fresh
}

// reports reports whether a member is the one that reports: the first of the newest
// view known here; before there is one the first of those that the run began with.
func (g *group) reports(l *trial.Lease) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.view != nil {
		return len(g.view.Members) > 0 && g.view.Members[0] == l.Member
	}
	return !l.Group.Join && l.Group.Members[0].ID == l.Member
}

// allHere reports whether all members of the run are on this agent, as far as is
// known: if they left, no one would be left to continue.
func (g *group) allHere(l *trial.Lease) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []int32
	if g.view != nil {
		ids = g.view.Members
	} else {
		for _, m := range l.Group.Members {
			ids = append(ids, m.ID)
		}
	}
	return !slices.ContainsFunc(ids, func(id int32) bool { return g.members[id] == nil })
}

// firstHere reports whether a member has the lowest id of those that its lease names
// on this worker: its log is the run's here.
func firstHere(l *trial.Lease) bool {
	worker := memberOf(l).Worker
	i := slices.IndexFunc(l.Group.Members, func(m trial.GroupMember) bool { return m.Worker == worker })
	return l.Group.Members[i].ID == l.Member
}
