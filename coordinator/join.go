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
	meta := gossip.Meta{Role: gossip.RoleCoordinator, ID: m.Config.ID, API: m.addresses.API, Raft: m.addresses.Raft, Cluster: clusterID}
	if m.machine != nil {
		if former := m.machine.View().Former(); len(former) > 0 {
			meta.Was = former[len(former)-1]
		}
	}
	return meta
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

// leave takes this node off the cluster's list.
func (m *Main) leave(ctx context.Context) error {
	if m.node.IsLeader() {
		if err := m.node.Transfer(ctx, ""); err != nil {
			return err
		}
	}
	err := m.asking(ctx, "leave the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		_, err := c.Cluster.RemoveMember(ctx, connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: m.Config.ID}))
		switch connect.CodeOf(err) {
		case connect.CodeNotFound:
			return true, nil
		case connect.CodeFailedPrecondition:
			return true, err
		}
		return err == nil, err
	})
	if err == nil {
		m.removed(m.Config.ID + " left its cluster for good (--leave-on-term): to take the machine back, empty its --data folder and --join anew")
	}
	return err
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

// keeper writes down where the other members gossip, whenever that changes.
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
	next := m.self
	next.Seeds = m.seeds()
	if meta := m.meta(next.ClusterID); meta != m.known {
		if err := m.pool.SetMeta(meta); err != nil {
			m.logger.Debug("gossip", "error", err)
		}
		m.known = meta
	}
	if slices.Equal(next.Seeds, m.self.Seeds) {
		return
	}
	if err := m.folder.remember(next); err != nil {
		m.logger.Warn("node.json not written", "error", err)
		return
	}
	m.self = next
}
