package replica

import (
	"io"
	"log/slog"
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
	log      *slog.Logger
}

// Apply returns []state.Result; nil for an entry that cannot be read, which
// changes nothing, on any node.
func (f *fsm) Apply(l *raft.Log) any {
	var e logv1.Entry
	if err := proto.Unmarshal(l.Data, &e); err != nil {
		f.log.Error("an entry of the log cannot be read and is passed over", "index", l.Index, "error", err)
		return []state.Result(nil)
	}
	results := f.machine.Apply(l.Index, &e)
	f.feed.publish(results)
	return results
}

// Snapshot is O(1); Persist runs beside Apply.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return frozen{f.machine.View()}, nil }

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.machine.Restore(r); err != nil {
		return err
	}
	f.restores.Add(1)
	f.feed.lose()
	return nil
}

type frozen struct{ view *state.View }

func (s frozen) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(s.view, sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s frozen) Release() {}
