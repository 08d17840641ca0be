package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// checkedSnapshots are raft's snapshot files, of which the newest is never passed
// over: raft, when it cannot read that one, silently begins with an older one,
// and with what the log then has. The CRC64 that raft keeps is of state.bin alone;
// the newest meta.json, with the members in it, is checked here.
type checkedSnapshots struct {
	raft.SnapshotStore
	dir  string // DATA/snapshots
	meta *metaFile
	rot  func(what string, err error) *RotError
	end  func(error) error

	started atomic.Bool
}

type snapshotDir struct {
	ID          string
	Index, Term uint64
	sum         uint32
}

func snapshotMeta(dir, name string) (snapshotDir, error) {
	b, err := os.ReadFile(filepath.Join(dir, name, "meta.json"))
	if err != nil {
		return snapshotDir{}, err
	}
	var d snapshotDir
	if err := json.Unmarshal(b, &d); err != nil {
		return d, err
	}
	if d.ID != name {
		return d, fmt.Errorf("it names itself %q", d.ID)
	}
	d.sum = crc32.Checksum(b, castagnoli)
	return d, nil
}

// inspect finds the newest snapshot and compares it with the note. logFirst is
// the log's first index, 0 when the log is empty.
func (s *checkedSnapshots) inspect(logFirst uint64) (newest uint64, err error) {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, err
	}
	var best snapshotDir
	var bad []string
	var badErr error
	var badIndex uint64
	for _, e := range list {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		d, err := snapshotMeta(s.dir, e.Name())
		if err != nil {
			var term, index, ms uint64
			fmt.Sscanf(e.Name(), "%d-%d-%d", &term, &index, &ms)
			bad, badErr, badIndex = append(bad, e.Name()), err, max(badIndex, index)
			continue
		}
		if d.Term > best.Term || d.Term == best.Term && (d.Index > best.Index || d.Index == best.Index && d.ID > best.ID) {
			best = d
		}
	}
	noted := s.meta.record().Snapshot
	older := best.Term < noted.Term || best.Term == noted.Term && best.Index < noted.Index
	switch {
	case len(bad) > 0 && badIndex >= best.Index:
		return 0, s.rot("snapshot "+strings.Join(bad, ", ")+" cannot be read", errors.Join(badErr, s.hint(best, logFirst)))
	case best.ID == noted.ID && best.sum != noted.MetaSum:
		return 0, s.rot("snapshot "+best.ID+", meta.json", errors.New("its CRC32C is not the one it was written with"))
	case older && (logFirst == 0 || logFirst > best.Index+1):
		return 0, s.rot("snapshot "+noted.ID+" is gone, and the log does not reach back to an older one", nil)
	}
	// One newer than the note: none was noted yet, or the node ended between the two.
	if best.ID != "" && best.ID != noted.ID {
		if err := s.note(best); err != nil {
			return 0, err
		}
	}
	return best.Index, nil
}

// hint says when there is a way without the snapshot.
func (s *checkedSnapshots) hint(older snapshotDir, logFirst uint64) error {
	if logFirst == 0 || logFirst > older.Index+1 {
		return nil
	}
	return errors.New("the log has everything since the snapshot before it: with that folder moved away the node can start")
}

// note keeps which snapshot is the newest, with the sum of its meta.json, where rot is told from an
// older snapshot.
func (s *checkedSnapshots) note(d snapshotDir) error {
	return s.meta.change(func(r *metaRecord) {
		r.Snapshot = snapshotNote{ID: d.ID, Index: d.Index, Term: d.Term, MetaSum: d.sum}
	})
}

// List gives raft the newest alone while it starts.
func (s *checkedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.SnapshotStore.List()
	if !s.started.Load() && len(list) > 1 {
		list = list[:1]
	}
	return list, err
}

// Open reads a snapshot; one that cannot be read ends the node, for raft would go on with an older
// one.
func (s *checkedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err != nil && (!s.started.Load() || !errors.Is(err, os.ErrNotExist)) { // a newer one may have taken its place
		err = s.end(s.rot("snapshot "+id, err))
	}
	return meta, r, err
}

// Create begins a snapshot, which counts once it is noted.
func (s *checkedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &notedSink{SnapshotSink: sink, store: s}, nil
}

// notedSink notes a snapshot once it is finished.
type notedSink struct {
	raft.SnapshotSink
	store *checkedSnapshots
	done  bool
}

// Close finishes the snapshot and notes it.
func (s *notedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil || s.done {
		return err
	}
	s.done = true
	d, err := snapshotMeta(s.store.dir, s.ID())
	if err != nil {
		return fmt.Errorf("snapshot %s was written and cannot be read: %w", s.ID(), err)
	}
	return s.store.note(d)
}

// Cancel gives it up; a Close that follows notes nothing.
func (s *notedSink) Cancel() error {
	s.done = true
	return s.SnapshotSink.Cancel()
}
