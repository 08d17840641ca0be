package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
)

// NotLeaderError says that this node cannot take a command; nothing was
// written. LeaderID and LeaderRaft name the leader, "" while there is none.
type NotLeaderError struct{ LeaderID, LeaderRaft string }

func (e *NotLeaderError) Error() string {
	if e.LeaderID == "" {
		return "no leader"
	}
	return fmt.Sprintf("not the leader; it is %s at %s", e.LeaderID, e.LeaderRaft)
}

// ErrUnknown says that leadership was lost or time ran out after the command was
// handed to raft: it may or may not be in the log. It is safe to repeat.
var ErrUnknown = errors.New("outcome unknown: the command may or may not have been written")

// Bounds of one log entry. Larger ones delay heartbeats.
const (
	maxBatchCommands = 512
	maxBatchBytes    = 256 << 10
	maxCommandBytes  = 4 << 20
	enqueueTimeout   = 2 * time.Second
)

// Propose writes a command to the log and returns what it did once a majority
// has it on disk and this node has applied it. Concurrent callers share log
// entries; a lone caller waits for nobody. The error is about the writing; what
// the state machine thinks of the command is in Result.Err.
func (n *Node) Propose(ctx context.Context, c *logv1.Command) (state.Result, error) {
	if n.raft.State() != raft.Leader {
		return state.Result{}, n.notLeader()
	}
	if err := n.admit(); err != nil {
		return state.Result{}, err
	}
	c.Rules = state.Rules
	body, err := proto.Marshal(c)
	if err != nil {
		return state.Result{}, fmt.Errorf("propose: %w", err)
	}
	if len(body) > maxCommandBytes {
		return state.Result{}, fmt.Errorf("propose: a command of %d bytes, at most %d: split it", len(body), maxCommandBytes)
	}
	return n.batcher.propose(ctx, body)
}

// notLeader names the leader as far as this node knows it.
func (n *Node) notLeader() error {
	id, addr := n.Leader()
	if id == n.cfg.ID {
		id, addr = "", "" // about to become it, or handing over
	}
	return &NotLeaderError{id, addr}
}

// batcher lets concurrent proposals share log entries. A few carriers each take
// what is queued, write it as one entry and wait for the commit; while all of
// them wait the queue grows, so entries grow exactly as the disk gets slower.
type batcher struct {
	raft   *raft.Raft
	leader func() (id, addr string)

	mu      sync.Mutex
	arrived *sync.Cond
	queue   []*proposal
	closed  bool
	done    chan struct{}

	entries  atomic.Uint64
	commands atomic.Uint64
	inFlight atomic.Int64
}

// proposal is one caller's command. Its fate is decided once: by the carrier
// that takes it, or by the caller that gives up first.
type proposal struct {
	body  []byte
	taken atomic.Bool
	done  chan verdict
}

type verdict struct {
	result state.Result
	err    error
}

// newBatcher begins inFlight carriers: two let the leader's fsync overlap the followers', more only
// make the entries smaller.
func newBatcher(r *raft.Raft, inFlight int, leader func() (string, string)) *batcher {
	b := &batcher{raft: r, leader: leader, done: make(chan struct{})}
	b.arrived = sync.NewCond(&b.mu)
	for range inFlight {
		go b.carry()
	}
	return b
}

// propose queues a command and waits for its fate. Whoever gives up first, caller or carrier, takes
// the proposal: so a caller knows for certain whether it was written when it was not, and says
// unknown only where it may have been.
func (b *batcher) propose(ctx context.Context, body []byte) (state.Result, error) {
	p := &proposal{body: body, done: make(chan verdict, 1)}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return state.Result{}, &NotLeaderError{}
	}
	b.queue = append(b.queue, p)
	b.mu.Unlock()
	b.arrived.Signal()
	select {
	case v := <-p.done:
		return v.result, v.err
	case <-b.done:
		if p.taken.CompareAndSwap(false, true) {
			return state.Result{}, &NotLeaderError{}
		}
		return state.Result{}, fmt.Errorf("%w: the node shuts down", ErrUnknown)
	case <-ctx.Done():
		if p.taken.CompareAndSwap(false, true) {
			return state.Result{}, fmt.Errorf("propose: nothing was written: %w", ctx.Err())
		}
		return state.Result{}, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// take waits for proposals and returns as many as one entry may hold; false when
// the batcher is closed.
func (b *batcher) take(batch []*proposal) ([]*proposal, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		size, i := 0, 0
		for ; i < len(b.queue) && len(batch) < maxBatchCommands; i++ {
			p := b.queue[i]
			if len(batch) > 0 && size+len(p.body) > maxBatchBytes {
				break
			}
			if !p.taken.CompareAndSwap(false, true) {
				continue // its caller gave up
			}
			size += len(p.body) + 8
			batch = append(batch, p)
		}
		rest := copy(b.queue, b.queue[i:])
		clear(b.queue[rest:])
		b.queue = b.queue[:rest]
		if rest > 0 {
			b.arrived.Signal()
		}
		if len(batch) > 0 {
			return batch, true
		}
		if b.closed {
			return nil, false
		}
		b.arrived.Wait()
	}
}

// carry writes one entry after the other, and answers each caller.
func (b *batcher) carry() {
	batch := make([]*proposal, 0, maxBatchCommands)
	for {
		var ok bool
		if batch, ok = b.take(batch[:0]); !ok {
			return
		}
		b.inFlight.Add(1)
		data := entry(batch)
		future := b.raft.ApplyLog(raft.Log{Data: data, Extensions: dataSum(data)}, enqueueTimeout)
		err := b.explain(future.Error())
		b.inFlight.Add(-1)
		b.entries.Add(1)
		b.commands.Add(uint64(len(batch)))
		var results []state.Result
		if err == nil {
			results, _ = future.Response().([]state.Result)
		}
		for i, p := range batch {
			v := verdict{err: err}
			switch {
			case err != nil:
			case i < len(results):
				v.result = results[i]
			default:
				v.err = errors.New("propose: the log entry could not be read back")
			}
			p.done <- v
			batch[i] = nil
		}
	}
}

// entry is the wire form of a logv1.Entry that holds the proposals' commands.
func entry(batch []*proposal) []byte {
	size := 0
	for _, p := range batch {
		size += 1 + binary.MaxVarintLen32 + len(p.body)
	}
	data := make([]byte, 0, size)
	for _, p := range batch {
		data = append(data, 1<<3|2) // field 1, length-delimited
		data = binary.AppendUvarint(data, uint64(len(p.body)))
		data = append(data, p.body...)
	}
	return data
}

// explain sorts raft's errors into "nothing was written" and "unknown".
func (b *batcher) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		id, addr := b.leader()
		return &NotLeaderError{id, addr}
	case errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return &NotLeaderError{}
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// close lets every waiting caller go: those whose command no carrier has taken know that nothing
// was written.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.queue = nil
	b.mu.Unlock()
	close(b.done)
	b.arrived.Broadcast()
}
