package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/common/gossip"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

const (
	joinPause    = 200 * time.Millisecond
	joinPauseMax = 2 * time.Second
	joinTimeout  = 15 * time.Second
)

func (m *Main) meta(clusterID string) gossip.Meta {
	return gossip.Meta{Role: gossip.RoleCoordinator, ID: m.Config.ID, API: m.addresses.API, Raft: m.addresses.Raft, Cluster: clusterID}
}

// others are the API addresses of the other coordinators, as gossip and the
// state know them.
func (m *Main) others() []string {
	var out []string
	add := func(addr string) {
		if addr != "" && addr != m.addresses.API && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	for _, p := range m.pool.Peers() {
		if p.Meta.Role == gossip.RoleCoordinator && p.Alive {
			add(p.Meta.API)
		}
	}
	if m.machine != nil {
		for _, b := range m.machine.View().Members() {
			if b.ID != m.Config.ID {
				add(b.APIAddress)
			}
		}
	}
	return out
}

// asking repeats a question to the other coordinators until one answers it, the
// question says that it is settled, or ctx ends.
func (m *Main) asking(ctx context.Context, what string, ask func(context.Context, *client.Client) (settled bool, err error)) error {
	pause := joinPause
	said := time.Now()
	for {
		var err error
		addrs := m.others()
		for _, addr := range addrs {
			c := client.New([]string{addr}, client.WithoutFollowing(), client.WithRetryFor(time.Millisecond), client.WithAttemptTimeout(joinTimeout))
			var settled bool
			if settled, err = ask(ctx, c); settled {
				return err
			}
		}
		if len(addrs) == 0 {
			err = errors.New("gossip knows no other coordinator yet")
		}
		if time.Since(said) > 5*time.Second {
			m.logger.Info("still waiting to "+what, "tried", addrs, "error", err)
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %v)", what, ctx.Err(), err)
		case <-m.pool.Changed():
			if len(addrs) > 0 {
				pause = joinPause
			}
		case <-time.After(pause):
			pause = min(2*pause, joinPauseMax)
		}
	}
}

// mayJoin asks the cluster, before raft starts here, whether this node's id is
// free. A member with an empty folder has forgotten its votes and may not act
// under its old name.
func (m *Main) mayJoin(ctx context.Context) error {
	return m.asking(ctx, "ask the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		resp, err := c.Cluster.ListMembers(ctx, connect.NewRequest(&atelierv1.ListMembersRequest{}))
		if err != nil {
			return false, err
		}
		for _, b := range resp.Msg.Members {
			if b.Id == m.Config.ID && b.Suffrage == "voter" {
				return true, fmt.Errorf("the cluster has a member %s already and %s holds no state of it: if its disk was lost, `atelier cluster remove %s` first; else choose another --id", b.Id, m.Config.Data, b.Id)
			}
		}
		return true, nil
	})
}

// join makes the cluster know this node's present addresses. A leader needs
// nobody for that.
func (m *Main) join(ctx context.Context) error {
	settled := make(chan struct{})
	defer close(settled)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // stop asking once this node leads
		for {
			changed := m.lead.Changed()
			if m.lead.Ready() {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-settled:
				return
			}
		}
	}()
	err := m.asking(ctx, "join the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		resp, err := c.Cluster.Join(ctx, connect.NewRequest(&atelierv1.JoinRequest{
			Id: m.Config.ID, RaftAddress: m.addresses.Raft, ApiAddress: m.addresses.API, GossipAddress: m.addresses.Gossip,
			ClusterId: m.machine.View().ClusterID(),
		}))
		switch connect.CodeOf(err) {
		case connect.CodeFailedPrecondition, connect.CodeInvalidArgument:
			return true, fmt.Errorf("refused by the cluster: %w", err)
		}
		if err != nil {
			return false, err
		}
		m.logger.Info("member of the cluster", "cluster", resp.Msg.ClusterId)
		return true, nil
	})
	if m.lead.Ready() {
		return nil
	}
	return err
}

// leave takes this node off the cluster's list.
func (m *Main) leave(ctx context.Context) error {
	if m.node.IsLeader() {
		if err := m.node.Transfer(ctx, ""); err != nil {
			return err
		}
	}
	return m.asking(ctx, "leave the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		_, err := c.Cluster.RemoveMember(ctx, connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: m.Config.ID}))
		switch connect.CodeOf(err) {
		case connect.CodeNotFound:
			return true, nil
		case connect.CodeFailedPrecondition:
			return true, err
		}
		return err == nil, err
	})
}

// peers is gossip as the API asks it.
type peers struct{ pool *gossip.Pool }

func (p peers) find(id string) (gossip.Peer, bool) {
	for _, q := range p.pool.Peers() {
		if q.Meta.Role == gossip.RoleCoordinator && q.Meta.ID == id {
			return q, true
		}
	}
	return gossip.Peer{}, false
}

func (p peers) Alive(id string) bool { q, ok := p.find(id); return ok && q.Alive }

func (p peers) API(id string) string { q, _ := p.find(id); return q.Meta.API }

// source hands a subscription's changes to duty.Tell.
type source struct{ sub *replica.Subscription }

func (s *source) Next(ctx context.Context) ([]state.Change, bool, error) {
	select {
	case changes, open := <-s.sub.C:
		if !open {
			return nil, false, errors.New("the node was shut down")
		}
		return changes, s.sub.Lost(), nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// keeper writes down which cluster the node belongs to and where the others
// gossip, whenever that changes.
type keeper struct {
	m       *Main
	pending atomic.Bool
}

func (k *keeper) Resync() { k.keep() }

func (k *keeper) Changed(changes []state.Change) {
	for i := range changes {
		if changes[i].Kind == state.MembersChanged {
			k.keep()
			return
		}
	}
}

// keep writes in the background, one writer at a time, until what is written is
// what is so.
func (k *keeper) keep() {
	if k.pending.Swap(true) {
		return
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		k.pending.Store(false)
		k.m.record()
	}()
}

func (m *Main) record() {
	m.recording.Lock()
	defer m.recording.Unlock()
	if m.closed {
		return // the folder is no longer ours
	}
	view := m.machine.View()
	next := m.self
	next.ClusterID = view.ClusterID()
	next.Seeds = nil
	for _, b := range view.Members() {
		if b.ID != m.Config.ID && b.GossipAddress != "" {
			next.Seeds = append(next.Seeds, b.GossipAddress)
		}
	}
	if next.ClusterID == m.self.ClusterID && slices.Equal(next.Seeds, m.self.Seeds) {
		return
	}
	if err := m.folder.remember(next); err != nil {
		m.logger.Warn("node.json not written", "error", err)
		return
	}
	if next.ClusterID != m.self.ClusterID {
		if err := m.pool.SetMeta(m.meta(next.ClusterID)); err != nil {
			m.logger.Debug("gossip", "error", err)
		}
	}
	m.self = next
}
