package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// Server is a member of raft's configuration.
type Server struct {
	ID, Address string
	Voter       bool
}

// Configuration returns the latest members known to this node, in the order
// they joined.
func (n *Node) Configuration() []Server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var list []Server
	for _, s := range f.Configuration().Servers {
		list = append(list, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return list
}

func (n *Node) server(id string) (raft.Server, bool) {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return raft.Server{}, false
	}
	for _, s := range f.Configuration().Servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// catchUp is how many entries a new member may lack when it gets its vote.
const catchUp = 128

// AddMember makes a node a voting member. A node that is new joins without a
// vote and gets one when it has the log, so that it cannot hold commits up; with
// a vote already, only its address changes. It returns when the node votes. When
// ctx ends first, the node stays without a vote and the call may be repeated.
func (n *Node) AddMember(ctx context.Context, id, raftAddr string) error {
	if id == "" || raftAddr == "" {
		return fmt.Errorf("add member: id %q at %q: both are needed", id, raftAddr)
	}
	if n.raft.State() != raft.Leader {
		return n.notLeader()
	}
	present, known := n.server(id)
	target := raft.ServerAddress(raftAddr)
	if known && present.Suffrage == raft.Voter {
		if present.Address == target {
			return nil
		}
		return n.change(ctx, "move member "+id, n.raft.AddVoter(present.ID, target, 0, 0))
	}
	if !known || present.Address != target {
		if err := n.change(ctx, "add member "+id, n.raft.AddNonvoter(raft.ServerID(id), target, 0, 0)); err != nil {
			return err
		}
	}
	for {
		// What was confirmed by a node of this id that is gone counts for nothing:
		// RemoveMember forgets it.
		have := n.transport.progress(raft.ServerID(id)).match
		if have > 0 && have+catchUp >= n.raft.LastIndex() {
			break
		}
		if n.raft.State() != raft.Leader {
			return n.notLeader()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("add member %s: it has %d of %d log entries and no vote yet: %w", id, have, n.raft.LastIndex(), ctx.Err())
		case <-n.stop:
			return n.notLeader()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return n.change(ctx, "give member "+id+" its vote", n.raft.AddVoter(raft.ServerID(id), target, 0, 0))
}

// RemoveMember takes a node out of the cluster. A leader that removes itself
// steps down and stops.
func (n *Node) RemoveMember(ctx context.Context, id string) error {
	if n.raft.State() != raft.Leader {
		return n.notLeader()
	}
	if _, known := n.server(id); !known {
		return fmt.Errorf("remove member: %q is not a member", id)
	}
	err := n.change(ctx, "remove member "+id, n.raft.RemoveServer(raft.ServerID(id), 0, 0))
	if err == nil {
		n.transport.forget(raft.ServerID(id))
	}
	return err
}

func (n *Node) change(ctx context.Context, what string, f raft.Future) error {
	if err := n.ask(ctx, what, f); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// followMembers cuts off the connections of nodes that are members no more.
func (n *Node) followMembers(sub *Subscription) {
	defer n.loops.Done()
	defer sub.Close()
	for {
		select {
		case <-n.stop:
			return
		case changes := <-sub.C:
			if sub.Lost() || slices.ContainsFunc(changes, func(c state.Change) bool { return c.Kind == state.MembersChanged }) {
				n.transport.stream.recheck()
			}
		}
	}
}

// wasRemoved is what a member said to this node.
func (n *Node) wasRemoved(why string) {
	if n.cfg.OnRemoved != nil {
		n.removed.Do(func() { go n.cfg.OnRemoved(why) })
	}
}
