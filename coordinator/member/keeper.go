package member

import (
	"context"
	"slices"
	"time"

	"atelier/common/gossip"
	"atelier/coordinator/state"
)

// meta is what the others are told of this node.
func (m *Member) meta() gossip.Meta {
	meta := gossip.Meta{Role: gossip.RoleCoordinator, ID: m.cfg.ID, API: m.addresses.API, Raft: m.addresses.Raft, Cluster: m.clusterID}
	if m.machine != nil {
		if former := m.machine.View().Former(); len(former) > 0 {
			meta.Was = former[len(former)-1]
		}
	}
	return meta
}

// locate is where gossip sees a member's raft now.
func (m *Member) locate(id string) string {
	if p, ok := (Peers{m.pool}).find(id); ok && p.Alive {
		return p.Meta.Raft
	}
	return ""
}

// Peers is gossip as the API asks it.
type Peers struct{ Pool *gossip.Pool }

// find is the coordinator as gossip last saw it, dead or alive.
func (p Peers) find(id string) (gossip.Peer, bool) {
	for _, q := range p.Pool.Peers() {
		if q.Meta.Role == gossip.RoleCoordinator && q.Meta.ID == id {
			return q, true
		}
	}
	return gossip.Peer{}, false
}

// Alive reports whether gossip sees the coordinator id. It is a hint: a dead node is believed alive
// for some seconds, and a slow one dead.
func (p Peers) Alive(id string) bool { q, ok := p.find(id); return ok && q.Alive }

// API is where the coordinator id says its API is, HOST:PORT; "" where gossip has not heard of it.
// A node that was last seen dead counts: it may be back there.
func (p Peers) API(id string) string { q, _ := p.find(id); return q.Meta.API }

// Follow writes down where the others gossip when that changes, so that
// this node finds them after all coordinators moved at once.
func (m *Member) Follow(ctx context.Context) {
	for {
		changed := m.pool.Changed()
		m.record()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select { // they come in swarms
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// maxSeeds bounds the gossip addresses written down.
const maxSeeds = 32

// seeds are the gossip addresses of the other members, and of whoever else is
// seen: workers stay where they are when the coordinators move.
func (m *Member) seeds() []string {
	var out []string
	add := func(addr string) {
		if addr != "" && addr != m.addresses.Gossip && len(out) < maxSeeds && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	for _, p := range m.pool.Peers() {
		if p.Alive && p.Meta.Role == gossip.RoleCoordinator {
			add(p.Addr)
		}
	}
	for _, b := range m.machine.View().Members() {
		if b.ID != m.cfg.ID {
			add(b.GossipAddress)
		}
	}
	for _, p := range m.pool.Peers() {
		if p.Alive {
			add(p.Addr)
		}
	}
	slices.Sort(out)
	return out
}

// Resync makes a Member a watcher of changes, with Changed: where the others gossip is written down after the
// state was replaced.
func (m *Member) Resync() { m.keep() }

// Changed writes down where the others gossip whenever the members have changed.
func (m *Member) Changed(changes []state.Change) {
	for i := range changes {
		if changes[i].Kind == state.MembersChanged {
			m.keep()
			return
		}
	}
}

// keep writes in the background, one writer at a time, until what is written is
// what is so.
func (m *Member) keep() {
	if m.pending.Swap(true) {
		return
	}
	time.AfterFunc(50*time.Millisecond, func() { // changes come in swarms
		m.pending.Store(false)
		m.record()
	})
}

// record writes down where the others gossip, if that has changed, and tells gossip of this node's
// own.
func (m *Member) record() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return // the folder is no longer ours
	}
	next := m.self
	next.Seeds = m.seeds()
	if meta := m.meta(); meta != m.known {
		if err := m.pool.SetMeta(meta); err != nil {
			m.log.Debug("gossip", "error", err)
		}
		m.known = meta
	}
	if slices.Equal(next.Seeds, m.self.Seeds) {
		return
	}
	if err := m.folder.Remember(next); err != nil {
		m.log.Warn("node.json not written", "error", err)
		return
	}
	m.self = next
}
