package state

import (
	"fmt"
	"slices"
)

const (
	// maxRemoved bounds the members remembered as removed; the oldest go first.
	maxRemoved = 1024
	// maxFormer bounds the ids of clusters that this one was recovered from.
	maxFormer = 16
	// recoverLift lifts tokens beyond all that the lost members may have granted
	// behind the last entry that is left: the indexes there are given out again, and
	// workers of then still hold leases.
	recoverLift = 1 << 30
)

// removed is a member that was taken off the cluster. Its folder holds votes
// and a log that count no more, so it may never come back.
type removed struct{ id, folder string }

func removedText(id, folder string) string {
	return fmt.Sprintf("data folder %s of %s was removed from the cluster: to take the machine back, empty its --data folder and join again", folder, id)
}

// Removed reports whether the member with that data folder was taken off.
func (v *View) Removed(folder string) bool {
	return folder != "" && slices.ContainsFunc(v.removed, func(r removed) bool { return r.folder == folder })
}

// Member returns a coordinator by id.
func (v *View) Member(id string) (Member, bool) {
	for _, m := range v.members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Former returns the ids of the clusters that this one was recovered from,
// oldest first.
func (v *View) Former() []string { return slices.Clone(v.former) }

// remember notes that a member was taken off.
func (v *View) remember(m Member) {
	if m.FolderID == "" || v.Removed(m.FolderID) {
		return
	}
	kept := v.removed[max(0, len(v.removed)+1-maxRemoved):]
	v.removed = append(slices.Clone(kept), removed{m.ID, m.FolderID})
}

// Recover makes a new cluster of the state, with one member: every other is
// taken off. It is not a command: the majority that would commit one is lost.
func (m *Machine) Recover(clusterID string, only Member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if clusterID == "" || clusterID == m.live.clusterID || len(clusterID) > maxName || only.ID == "" {
		return invalid("recover: a new cluster needs an id of its own, not %q, and a member", clusterID)
	}
	m.published.Store(nil)
	if m.live.clusterID != "" {
		kept := m.live.former[max(0, len(m.live.former)+1-maxFormer):]
		m.live.former = append(slices.Clone(kept), m.live.clusterID)
	}
	m.live.clusterID = clusterID
	m.live.tokenOffset = min(m.live.tokenOffset+recoverLift, maxIndex)
	for _, b := range m.live.members {
		if b.ID != only.ID {
			m.live.remember(b)
		}
	}
	m.live.members = []Member{only}
	return nil
}
