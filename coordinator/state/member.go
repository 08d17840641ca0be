package state

import (
	"cmp"
	"slices"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// setMember writes a coordinator's addresses. An empty address leaves the one
// known; an empty cluster id is that of the cluster.
func (m *Machine) setMember(c *logv1.SetMember, r *Result) {
	switch {
	case c.GetId() == "" || len(c.GetId()) > maxName || len(c.GetRaftAddress()) > maxName || len(c.GetApiAddress()) > maxName || len(c.GetGossipAddress()) > maxName || len(c.GetClusterId()) > maxName || len(c.GetFolderId()) > maxName:
		r.Err = invalid("set member %q: id and addresses must be of 1 to %d bytes", cut(c.GetId()), maxName)
		return
	case c.GetClusterId() != "" && m.live.clusterID != "" && c.GetClusterId() != m.live.clusterID:
		r.Err = conflict("set member %s: it is of cluster %s, this is cluster %s", c.GetId(), c.GetClusterId(), m.live.clusterID)
		return
	case m.live.Removed(c.GetFolderId()):
		r.Err = conflict("set member %s: %s", c.GetId(), removedText(c.GetId(), c.GetFolderId()))
		return
	}
	next := Member{ID: c.GetId()}
	at, found := m.member(c.GetId())
	if !found && len(m.live.members) >= maxMembers {
		r.Err = invalid("set member %s: the cluster has %d members already", c.GetId(), maxMembers)
		return
	}
	if found {
		next = m.live.members[at]
	}
	if next.FolderID != "" && c.GetFolderId() != "" && next.FolderID != c.GetFolderId() {
		r.Err = conflict("set member %s: the member of that id has data folder %s, this one has %s: choose another --id, or, where the member's disk is lost, `atelier cluster remove %s` first",
			c.GetId(), next.FolderID, c.GetFolderId(), c.GetId())
		return
	}
	next.FolderID = cmp.Or(c.GetFolderId(), next.FolderID)
	next.RaftAddress = cmp.Or(c.GetRaftAddress(), next.RaftAddress)
	next.APIAddress = cmp.Or(c.GetApiAddress(), next.APIAddress)
	next.GossipAddress = cmp.Or(c.GetGossipAddress(), next.GossipAddress)
	if found && next == m.live.members[at] && (c.GetClusterId() == "" || m.live.clusterID != "") {
		r.Outcome = trial.OutcomeAlready
		return
	}
	m.live.clusterID = cmp.Or(m.live.clusterID, c.GetClusterId())
	members := slices.Clone(m.live.members)
	if found {
		members[at] = next
	} else {
		members = slices.Insert(members, at, next)
	}
	m.live.members = members
	m.note(Change{Kind: MembersChanged, Worker: next.ID})
}

// dropMember forgets where a member is, and remembers its data folder as removed: it may not come
// back with the votes it gave.
func (m *Machine) dropMember(c *logv1.DropMember, r *Result) {
	at, found := m.member(c.GetId())
	if !found {
		r.Outcome = trial.OutcomeAlready
		return
	}
	m.live.remember(m.live.members[at])
	m.live.members = slices.Delete(slices.Clone(m.live.members), at, at+1)
	m.note(Change{Kind: MembersChanged, Worker: c.GetId()})
}

// member finds a member; they are kept in the order of their ids.
func (m *Machine) member(id string) (int, bool) {
	return slices.BinarySearchFunc(m.live.members, id, func(b Member, id string) int { return cmp.Compare(b.ID, id) })
}

// setDrain keeps the names of drained workers, in order. A worker need not be there: it is drained
// when it comes.
func (m *Machine) setDrain(c *logv1.SetDrain, r *Result) {
	if c.GetWorker() == "" || len(c.GetWorker()) > maxName {
		r.Err = invalid("drain: a worker's name must be of 1 to %d bytes", maxName)
		return
	}
	at, found := slices.BinarySearch(m.live.drained, c.GetWorker())
	if found == c.GetDrain() {
		r.Outcome = trial.OutcomeAlready
		return
	}
	if !found && len(m.live.drained) >= maxDrained {
		r.Err = invalid("drain %s: %d workers are drained already", c.GetWorker(), maxDrained)
		return
	}
	drained := slices.Clone(m.live.drained)
	if found {
		drained = slices.Delete(drained, at, at+1)
	} else {
		drained = slices.Insert(drained, at, c.GetWorker())
	}
	m.live.drained = drained
	m.note(Change{Kind: DrainChanged, Worker: c.GetWorker()})
}
