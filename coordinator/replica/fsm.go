package replica

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
)

// fsm hands raft's committed entries to the state machine. Nothing in it blocks:
// no disk, no network, no channel that could be full.
type fsm struct {
	machine  *state.Machine
	feed     *feed
	restores *atomic.Uint64
	observe  func(*logv1.Entry)
	rotten   func(what string, err error) error // ends the node
	ended    bool                               // nothing is applied any more
}

// Apply returns []state.Result; nil once the node is ending. An entry that is not
// what was proposed is never passed over: the others have applied it.
func (f *fsm) Apply(l *raft.Log) any {
	if f.ended {
		return []state.Result(nil)
	}
	var e logv1.Entry
	err := checkData(l)
	if err == nil {
		err = proto.Unmarshal(l.Data, &e)
	}
	if err != nil {
		f.ended = true
		f.rotten(fmt.Sprintf("entry %d of the log", l.Index), err)
		return []state.Result(nil)
	}
	results := f.machine.Apply(l.Index, &e)
	f.observe(&e)
	f.feed.publish(results)
	return results
}

// Snapshot is O(1); Persist runs beside Apply.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.ended {
		return nil, errors.New("an entry of the log was not applied")
	}
	return frozen{f.machine.View()}, nil
}

// Restore takes a leader's snapshot, or the own one at a start. Whoever follows the changes has to
// look at the whole state anew.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.machine.Restore(r); err != nil {
		return err
	}
	f.restores.Add(1)
	f.feed.lose()
	return nil
}

// frozen is a View for raft to write: it never changes, so Apply goes on meanwhile.
type frozen struct{ view *state.View }

// Persist writes the snapshot, or none.
func (s frozen) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(s.view, sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release has nothing to give back.
func (s frozen) Release() {}
