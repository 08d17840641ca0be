package replica

import (
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Stats is how a node does. Durations are since the node opened.
type Stats struct {
	ID, Role      string // leader | follower | candidate | shutdown
	LeaderID      string
	Term          uint64
	LastLogIndex  uint64
	CommitIndex   uint64
	AppliedIndex  uint64 // of raft; state.View.Index is that of the last command
	SnapshotIndex uint64 // of the newest snapshot on disk
	Commands      uint64 // proposed through this node
	Entries       uint64 // log entries they went into
	InFlight      int64
	Appends       uint64 // writes to the log's disk
	SlowestWrite  time.Duration
	Restores      uint64 // snapshots that replaced the state
	Room          Room   // of this node's disk
	Refusing      string // why a leader takes no commands now, "" = it does
	Peers         []PeerStats
}

// PeerStats is what a leader knows of a member; Match and Contact are zero on a
// follower and for the leader itself. Trouble says why the member is not
// reached from here, "" when it is or was not tried, and At where it was tried.
type PeerStats struct {
	Server
	Match       uint64
	Contact     time.Time
	Trouble, At string
	Room        Room // zero while it has room
}

// Stats returns the present figures.
func (n *Node) Stats() Stats {
	leader, _ := n.Leader()
	s := Stats{
		ID: n.cfg.ID, Role: strings.ToLower(n.raft.State().String()), LeaderID: leader,
		Term: n.raft.CurrentTerm(), LastLogIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.raft.AppliedIndex(),
		Commands: n.batcher.commands.Load(), Entries: n.batcher.entries.Load(), InFlight: n.batcher.inFlight.Load(),
		Appends: n.store.appends.Load(), SlowestWrite: time.Duration(n.store.slowest.Load()), Restores: n.restores.Load(),
		Room: n.space.now(),
	}
	s.SnapshotIndex, _ = strconv.ParseUint(n.raft.Stats()["last_snapshot_index"], 10, 64)
	if s.Role == "leader" {
		if err := n.admit(); err != nil {
			s.Refusing = err.Error()
		}
	}
	for _, server := range n.Configuration() {
		p := PeerStats{Server: server}
		if s.Role == "leader" && server.ID != n.cfg.ID {
			seen := n.transport.progress(raft.ServerID(server.ID))
			p.Match, p.Contact, p.Room = seen.match, seen.contact, seen.room
		}
		if lost := n.transport.stream.trouble(server.ID); server.ID != n.cfg.ID {
			p.Trouble, p.At = lost.why, lost.addr
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}
