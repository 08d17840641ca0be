package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
)

// LogStore names what keeps the log on disk. A folder written by one is not read
// by another. BENCHMARKS.md and DESIGN.md say why RaftWAL is the default.
type LogStore string

const (
	RaftWAL    LogStore = "raft-wal"
	RaftBoltDB LogStore = "raft-boltdb"
)

// durable is what raft needs of a disk, and what this room keeps beside it.
type durable interface {
	raft.LogStore
	raft.StableStore
	io.Closer
	Meta() *metaFile
}

// walStore is raft-wal with its term, vote and segments in a metaFile.
type walStore struct {
	*wal.WAL
	meta *metaFile
}

// Meta is what is kept beside the log.
func (s walStore) Meta() *metaFile { return s.meta }

// boltStore is raft-boltdb with its term and vote in a metaFile.
type boltStore struct {
	*boltdb.BoltStore
	meta *metaFile
}

func (s boltStore) Meta() *metaFile                { return s.meta }
func (s boltStore) Set(key, value []byte) error    { return s.meta.SetStable(key, value) }
func (s boltStore) Get(key []byte) ([]byte, error) { return s.meta.GetStable(key) }
func (s boltStore) Close() error                   { return errors.Join(s.BoltStore.Close(), s.meta.Close()) }

// SetUint64 is raft's for terms; the form is raft-boltdb's, which earlier versions wrote.
func (s boltStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 gives 0 for what was never set, as raft expects of a new folder.
func (s boltStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	switch {
	case err != nil || value == nil:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("%s is %d bytes long, not 8", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// openStore opens or makes the log in a folder. The libraries trust what they read: a panic on
// damage is an error here.
func openStore(kind LogStore, dir string, log *slog.Logger) (store durable, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the libraries trust what they read
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = fmt.Errorf("log in %s: %w", dir, err)
		}
	}()
	if kind == RaftBoltDB {
		bolt, err := boltdb.New(boltdb.Options{Path: filepath.Join(dir, "raft.db")})
		if err != nil {
			return nil, err
		}
		meta, err := openMeta(dir, func(key []byte) ([]byte, error) {
			value, err := bolt.Get(key)
			if errors.Is(err, boltdb.ErrKeyNotFound) {
				return nil, nil
			}
			return value, err
		})
		if err != nil {
			bolt.Close()
			return nil, err
		}
		return boltStore{bolt, meta}, nil
	}
	meta, err := openMeta(dir, nil)
	if err != nil {
		return nil, err
	}
	w, err := wal.Open(dir, wal.WithLogger(raftLogger(log)), wal.WithMetaStore(meta))
	if err != nil {
		meta.Close()
		return nil, err
	}
	return walStore{w, meta}, nil
}

// guard stands between raft and the disk. It notes when an append began, for the
// watchdog, and after the first failed write it fails every further one: the
// kernel drops dirty pages after a failed fsync, so that a retry would lie. It
// puts a checksum on each entry and checks it at each read: guard_read.go.
type guard struct {
	durable
	fatal func(error)

	began    atomic.Int64 // nanoseconds since opened of the append under way, 0 = none
	appended atomic.Int64 // nanoseconds since opened when the last one ended
	opened   time.Time    // the wall clock may be set meanwhile, this is not moved by it
	slowest  atomic.Int64 // nanoseconds of the slowest so far
	appends  atomic.Uint64
	broken   atomic.Pointer[error]

	node, folder string // for words
	checkedFrom  uint64
	tail         *tailNote // nil until inspect
	room         func() Room
	leads        func() bool
	spent        int         // bytes of commands taken on a full disk
	truncated    atomic.Bool // the log's end was deleted, and what takes its place is not there yet
}

// newGuard stands before a store; fatal ends the node.
func newGuard(store durable, fatal func(error)) *guard {
	return &guard{durable: store, fatal: fatal, checkedFrom: 1, opened: time.Now()}
}

// write does what changes the disk, timed for the watchdog. The first failure is the last write
// there is.
func (g *guard) write(what string, do func() error) error {
	if err := g.broken.Load(); err != nil {
		return *err
	}
	start := time.Now()
	g.began.Store(max(1, int64(start.Sub(g.opened))))
	err := do()
	took := time.Since(start)
	g.began.Store(0)
	if err != nil {
		return g.giveUp(fmt.Errorf("%s: %w", what, err))
	}
	g.appended.Store(int64(time.Since(g.opened)))
	g.appends.Add(1)
	if int64(took) > g.slowest.Load() {
		g.slowest.Store(int64(took))
	}
	return nil
}

// StoreLog is StoreLogs for one.
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs puts checksums on entries, writes them and notes the log's end. It refuses commands on
// a disk that is nearly full; raft's own entries always go in.
func (g *guard) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if g.refuses(logs) {
		return errNoRoom
	}
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		var err error
		if sealed[i], err = seal(l); err != nil {
			// Not the disk's fault: a follower asks the leader again.
			return fmt.Errorf("entry %d is not written: %w", l.Index, err)
		}
	}
	last := logs[len(logs)-1]
	return g.write("append to the log", func() error {
		err := g.durable.StoreLogs(sealed)
		g.truncated.Store(false)
		if err == nil && g.tail != nil {
			err = g.tail.set(last.Index, last.Term, false)
		}
		return err
	})
}

// DeleteRange takes the note of the end down first: a crash between the two must not look like lost
// entries.
func (g *guard) DeleteRange(min, max uint64) error {
	return g.write("truncate the log", func() error {
		if err := g.lower(min, max); err != nil {
			return err
		}
		return g.durable.DeleteRange(min, max)
	})
}

// Set stores raft's vote.
func (g *guard) Set(key, value []byte) error {
	return g.write("store the vote", func() error { return g.durable.Set(key, value) })
}

// SetUint64 stores raft's term.
func (g *guard) SetUint64(key []byte, value uint64) error {
	return g.write("store the term", func() error { return g.durable.SetUint64(key, value) })
}

// IsMonotonic reports whether the log may have gaps, as the store below says.
func (g *guard) IsMonotonic() bool {
	m, ok := g.durable.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}
