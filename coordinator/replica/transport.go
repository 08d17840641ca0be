package replica

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// transport is raft's TCP transport. It listens in on the answers to appends:
// raft itself does not tell how far a follower has come.
type transport struct {
	*raft.NetworkTransport
	stream *stream
	mu     sync.Mutex
	peers  map[raft.ServerID]progress

	own     func() Room            // of this node's disk
	leads   func(term uint64) bool // whether this node leads in that term
	full    atomic.Int32           // followers that said they have no room
	closed  chan struct{}
	closing sync.Once
}

// progress is what a follower last confirmed to this node as leader.
type progress struct {
	match   uint64    // last log index known to be on its disk
	moved   time.Time // when match last grew
	contact time.Time
	room    Room // as it last said; zero while it has room
}

// newTransport speaks over a stream that knows nodes by their ids.
func newTransport(s *stream, logger hclog.Logger, own func() Room, leads func(term uint64) bool) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:          s,
			MaxPool:         3,
			MaxRPCsInFlight: 1, // pipelining can wedge a follower: hashicorp/raft issue 612
			Timeout:         5 * time.Second,
			Logger:          logger,
		}),
		stream: s,
		peers:  map[raft.ServerID]progress{},
		own:    own, leads: leads,
		closed: make(chan struct{}),
	}
	return t
}

// Close ends what waits for room, too.
func (t *transport) Close() error {
	t.closing.Do(func() { close(t.closed) })
	return t.NetworkTransport.Close()
}

// append is AppendEntries, of which the answer is noted: how far the follower is, and whether its
// disk has room.
func (t *transport) append(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.ask(id, target, func(to raft.ServerAddress) error { return t.NetworkTransport.AppendEntries(id, to, args, resp) }); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	p.contact = time.Now()
	if room := readRoom(resp.RPCHeader); room.Full() || p.room.Full() {
		p.room = room
		defer t.countFull()
	}
	if resp.Success && args.PrevLogEntry+uint64(len(args.Entries)) > 0 {
		match := args.PrevLogEntry + uint64(len(args.Entries))
		if match != p.match {
			p.moved = p.contact
		}
		p.match = match
	}
	t.peers[id] = p
	return nil
}

// countFull is for the holder of mu.
func (t *transport) countFull() {
	n := int32(0)
	for _, p := range t.peers {
		if p.room.Full() {
			n++
		}
	}
	t.full.Store(n)
}

// forget drops what a node confirmed that is a member no more.
func (t *transport) forget(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.peers, id)
	t.countFull()
}

// forgetAll drops what was confirmed to an earlier leadership of this node.
func (t *transport) forgetAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.peers)
	t.full.Store(0)
}

// progress is zero for a node that has confirmed nothing yet.
func (t *transport) progress(id raft.ServerID) progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[id]
}

// ask makes a call to a node under its id. raft names the address in its
// configuration, which may be one that the node has left.
func (t *transport) ask(id raft.ServerID, configured raft.ServerAddress, call func(raft.ServerAddress) error) error {
	err := call(t.stream.aim(id, configured))
	var timeout net.Error
	switch {
	case err == nil:
		t.stream.reached(string(id))
	case errors.As(err, &timeout) && timeout.Timeout(): // connected, and no answer
		t.stream.miss(string(id), string(configured), errors.New("no answer"))
	}
	return err
}

// RequestVote, RequestPreVote, InstallSnapshot and TimeoutNow go to the node of that id, wherever
// it is.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.ask(id, target, func(to raft.ServerAddress) error { return t.NetworkTransport.RequestVote(id, to, args, resp) })
}

func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.ask(id, target, func(to raft.ServerAddress) error { return t.NetworkTransport.RequestPreVote(id, to, args, resp) })
}

func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.ask(id, target, func(to raft.ServerAddress) error { return t.NetworkTransport.InstallSnapshot(id, to, args, resp, data) })
}

func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.ask(id, target, func(to raft.ServerAddress) error { return t.NetworkTransport.TimeoutNow(id, to, args, resp) })
}

// AppendEntriesPipeline is off (MaxRPCsInFlight); it may not dial past the
// handshake all the same.
func (t *transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}
