package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/common/gossip"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/replica"
)

// exitRemoved is the exit code of a coordinator that was taken off its cluster:
// starting it again changes nothing.
const exitRemoved = 3

// seedPatience bounds how long a node that is to begin a cluster listens for one
// that is there already.
const seedPatience = 10 * time.Second

func (m *Main) raftDir() string { return filepath.Join(m.Config.Data, "raft") }

// identify reads which cluster the data folder belongs to, "" for none. Folders
// of earlier versions do not name it beside the log: their own log is asked, and
// nobody else.
func (m *Main) identify() (string, error) {
	dir := m.raftDir()
	id, err := replica.ReadIdentity(dir)
	if err != nil {
		return "", err
	}
	if id.Removed != "" {
		return "", &replica.RemovedError{Why: id.Removed}
	}
	if id.ClusterID != "" {
		return id.ClusterID, nil
	}
	if _, err := os.Stat(filepath.Join(dir, "node")); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	found, err := examine(dir)
	switch {
	case err != nil:
		return "", err
	case found.ID != m.Config.ID:
		return "", fmt.Errorf("data folder %s belongs to coordinator %s, not %s: give each its own --data", m.Config.Data, found.ID, m.Config.ID)
	case found.ClusterID != "":
		return found.ClusterID, nil
	case len(found.Members) == 1 && found.Members[0].ID == found.ID:
		return newClusterID(), nil // it began a cluster and has not led it yet
	}
	return "", nil
}

func examine(dir string) (replica.Found, error) {
	s, err := replica.Examine(dir, nil)
	if err != nil {
		return replica.Found{}, err
	}
	defer s.Close()
	return s.Read()
}

func newClusterID() string { return "c-" + randomName() }

// mayBegin refuses to begin a cluster where --join leads to one: that would make
// a second cluster of machines that are meant to be one.
func (m *Main) mayBegin(ctx context.Context) error {
	if len(m.Config.Join) == 0 {
		return nil
	}
	select {
	case <-m.pool.Tried():
	case <-time.After(seedPatience):
	case <-ctx.Done():
		return ctx.Err()
	}
	for id, addrs := range m.pool.Clusters() {
		return fmt.Errorf("--bootstrap would begin a second cluster: --join leads to cluster %s (API %s): leave --bootstrap out to join it, or --join to begin one beside it", id, strings.Join(addrs, ", "))
	}
	return nil
}

// mayJoin finds out, before raft starts here, which cluster there is to join and
// whether this node's id is free in it. A member with an empty folder has
// forgotten its votes and may not act under its old name.
func (m *Main) mayJoin(ctx context.Context) (clusterID string, err error) {
	select {
	case <-m.pool.Tried():
	case <-time.After(seedPatience):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	err = m.asking(ctx, "ask the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		if seen := m.pool.Clusters(); len(seen) > 1 {
			return true, &gossip.ErrTwoClusters{Clusters: seen}
		}
		resp, err := c.Cluster.ListMembers(ctx, connect.NewRequest(&atelierv1.ListMembersRequest{}))
		if err != nil {
			return false, err
		}
		clusterID = resp.Msg.ClusterId
		if clusterID == "" {
			return true, errors.New("the cluster does not say its id: its coordinators run an earlier version; stop them all and start them in this one first")
		}
		for _, b := range resp.Msg.Members {
			if b.Id == m.Config.ID && b.Suffrage == "voter" {
				return true, fmt.Errorf("the cluster has a member %s already and %s holds no state of it: if its disk was lost, `atelier cluster remove %s` first; else choose another --id", b.Id, m.Config.Data, b.Id)
			}
		}
		return true, nil
	})
	return clusterID, err
}

// removed ends this node for good: it was taken off the cluster.
func (m *Main) removed(why string) {
	if err := replica.MarkRemoved(m.raftDir(), why); err != nil {
		m.logger.Error("that this node was removed is not written down; its next start will have to be told again", "error", err)
	}
	select {
	case m.gone <- &replica.RemovedError{Why: why}:
	default:
	}
}

// stay makes the cluster know this node's present addresses, now and whenever no
// leader was heard of for a while: this node may have been removed meanwhile, or
// all others have moved.
func (m *Main) stay(ctx context.Context) error {
	if err := m.join(ctx, m.lead.Ready); err != nil {
		return err
	}
	const silence = 2 * time.Second
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	heard := time.Now()
	led := func() bool { id, _ := m.node.Leader(); return id != "" }
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if led() {
			heard = time.Now()
		}
		if time.Since(heard) < silence {
			continue
		}
		if err := m.join(ctx, led); err != nil {
			return err
		}
		heard = time.Now()
	}
}

// join tells the cluster where this node is, until a leader has taken it in or
// needless says that nobody has to.
func (m *Main) join(ctx context.Context, needless func() bool) error {
	ask, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for ask.Err() == nil && !needless() {
			select {
			case <-ask.Done():
			case <-m.lead.Changed():
			case <-time.After(250 * time.Millisecond):
			}
		}
		cancel()
	}()
	err := m.asking(ask, "find the leader", func(ctx context.Context, c *client.Client) (bool, error) {
		resp, err := c.Cluster.Join(ctx, connect.NewRequest(&atelierv1.JoinRequest{
			Id: m.Config.ID, RaftAddress: m.addresses.Raft, ApiAddress: m.addresses.API, GossipAddress: m.addresses.Gossip,
			ClusterId: m.node.Identity().ClusterID, FolderId: m.node.Identity().FolderID, HasState: m.node.HasState(),
		}))
		if refusal := client.RefusalOf(err); refusal.Cluster != "" && refusal.Cluster == m.node.Identity().ClusterID && connect.CodeOf(err) == connect.CodeFailedPrecondition {
			if refusal.Reason == client.ReasonRemoved {
				m.removed(client.Message(err))
				return true, &replica.RemovedError{Why: client.Message(err)}
			}
			return true, fmt.Errorf("refused by the cluster: %w", err)
		}
		if err != nil {
			return false, err
		}
		if !m.told {
			m.told = true
			m.logger.Info("member of the cluster", "cluster", resp.Msg.ClusterId)
		}
		return true, nil
	})
	if ctx.Err() != nil || ask.Err() != nil && needless() {
		return nil
	}
	return err
}

// locate is where gossip sees a member's raft now.
func (m *Main) locate(id string) string {
	if p, ok := (peers{m.pool}).find(id); ok && p.Alive {
		return p.Meta.Raft
	}
	return ""
}

// followPeers writes down where the others gossip when that changes, so that
// this node finds them after all coordinators moved at once.
func (m *Main) followPeers(ctx context.Context) {
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
func (m *Main) seeds() []string {
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
		if b.ID != m.Config.ID {
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
