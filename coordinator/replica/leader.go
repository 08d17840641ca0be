package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// IsLeader reports whether this node believes that it leads; only VerifyLeader makes sure.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// leadsIn reports whether this node leads in a term. It is called by the transport, which is there before raft is.
func (n *Node) leadsIn(term uint64) bool {
	return n.opened.Load() && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

// Leader returns the leader's id and raft address as this node knows them, ""
// while there is none.
func (n *Node) Leader() (id, raftAddr string) {
	addr, leader := n.raft.LeaderWithID()
	return string(leader), string(addr)
}

// LeaderCh delivers gains (true) and losses (false) of leadership. A reader that
// is late gets only the latest. After a gain, call Barrier before trusting the
// state to hold all that earlier leaders acknowledged.
func (n *Node) LeaderCh() <-chan bool { return n.leaderCh }

// Barrier returns once this leader has applied everything committed before the call.
func (n *Node) Barrier(ctx context.Context) error {
	return n.ask(ctx, "barrier", n.raft.Barrier(enqueueTimeout))
}

// VerifyLeader makes sure that this node is still the leader and that its state
// holds every write acknowledged before the call: a View taken afterwards is a
// linearizable read.
func (n *Node) VerifyLeader(ctx context.Context) error {
	if term := n.raft.CurrentTerm(); n.caughtUp.Load() != term {
		if n.raft.State() != raft.Leader {
			return n.notLeader()
		}
		if err := n.Barrier(ctx); err != nil {
			return err
		}
		if n.raft.CurrentTerm() == term {
			n.caughtUp.Store(term)
		}
	}
	return n.ask(ctx, "verify leader", n.raft.VerifyLeader())
}

// ask waits for a question that only a leader answers.
func (n *Node) ask(ctx context.Context, what string, f raft.Future) error {
	err := await(ctx, f)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrAbortedByRestore), errors.Is(err, raft.ErrRaftShutdown):
		return n.notLeader()
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Transfer hands leadership to a voter, "" for the one that is furthest, and
// returns when this node no longer leads.
func (n *Node) Transfer(ctx context.Context, id string) error {
	if n.raft.State() != raft.Leader {
		return n.notLeader()
	}
	var f raft.Future
	if id == "" {
		f = n.raft.LeadershipTransfer()
	} else {
		server, ok := n.server(id)
		switch {
		case !ok || server.Suffrage != raft.Voter:
			return fmt.Errorf("transfer leadership: %s is not a voting member", id)
		case id == n.cfg.ID:
			return nil
		}
		f = n.raft.LeadershipTransferToServer(server.ID, server.Address)
	}
	if err := await(ctx, f); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	for n.raft.State() == raft.Leader {
		select {
		case <-ctx.Done():
			return fmt.Errorf("transfer leadership: %w", ctx.Err())
		case <-n.stop:
			return nil
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// followLeadership passes raft's notices on and does what a new leader owes the
// cluster: its present address in the configuration.
func (n *Node) followLeadership(notify <-chan bool) {
	defer n.loops.Done()
	for {
		select {
		case <-n.stop:
			return
		case leads := <-notify:
			n.transport.forgetAll()
			select {
			case <-n.leaderCh:
			default:
			}
			n.leaderCh <- leads
			if leads {
				n.loops.Add(1)
				go n.settleIn()
			}
		}
	}
}

func (n *Node) settleIn() {
	defer n.loops.Done()
	ctx, cancel := n.within(10 * time.Second)
	defer cancel()
	if err := n.VerifyLeader(ctx); err != nil {
		return // not for long
	}
	if me, ok := n.server(n.cfg.ID); ok && me.Suffrage == raft.Voter && string(me.Address) != n.cfg.Advertise {
		n.log.Info("moving this node's address", "from", me.Address, "to", n.cfg.Advertise)
		if err := await(ctx, n.raft.AddVoter(me.ID, raft.ServerAddress(n.cfg.Advertise), 0, 0)); err != nil {
			n.log.Warn("this node's new address was not written", "error", err)
		}
	}
}
