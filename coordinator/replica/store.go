package replica

import (
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

// durable is what raft needs of a disk.
type durable interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

func openStore(kind LogStore, dir string, log *slog.Logger) (durable, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	switch kind {
	case RaftWAL:
		store, err := wal.Open(dir, wal.WithLogger(raftLogger(log)))
		if err != nil {
			return nil, fmt.Errorf("log in %s: %w", dir, err)
		}
		return store, nil
	case RaftBoltDB:
		store, err := boltdb.New(boltdb.Options{Path: filepath.Join(dir, "raft.db")})
		if err != nil {
			return nil, fmt.Errorf("log in %s: %w", dir, err)
		}
		return store, nil
	}
	return nil, fmt.Errorf("log store %q: it is %s or %s", kind, RaftWAL, RaftBoltDB)
}

// guard stands between raft and the disk. It notes when an append began, for the
// watchdog, and after the first failed write it fails every further one: the
// kernel drops dirty pages after a failed fsync, so that a retry would lie.
type guard struct {
	durable
	fatal func(error)

	began    atomic.Int64 // Unix nanoseconds of the append under way, 0 = none
	appended atomic.Int64 // Unix nanoseconds when the last one ended
	slowest  atomic.Int64 // nanoseconds of the slowest so far
	appends  atomic.Uint64
	broken   atomic.Pointer[error]
}

func newGuard(store durable, fatal func(error)) *guard { return &guard{durable: store, fatal: fatal} }

func (g *guard) write(what string, do func() error) error {
	if err := g.broken.Load(); err != nil {
		return *err
	}
	start := time.Now()
	g.began.Store(start.UnixNano())
	err := do()
	took := time.Since(start)
	g.began.Store(0)
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		g.broken.CompareAndSwap(nil, &err)
		g.fatal(err)
		return err
	}
	g.appended.Store(time.Now().UnixNano())
	g.appends.Add(1)
	if int64(took) > g.slowest.Load() {
		g.slowest.Store(int64(took))
	}
	return nil
}

func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *guard) StoreLogs(logs []*raft.Log) error {
	return g.write("append to the log", func() error { return g.durable.StoreLogs(logs) })
}

func (g *guard) DeleteRange(min, max uint64) error {
	return g.write("truncate the log", func() error { return g.durable.DeleteRange(min, max) })
}

func (g *guard) Set(key, value []byte) error {
	return g.write("store the vote", func() error { return g.durable.Set(key, value) })
}

func (g *guard) SetUint64(key []byte, value uint64) error {
	return g.write("store the term", func() error { return g.durable.SetUint64(key, value) })
}

// IsMonotonic passes on whether the log may have gaps.
func (g *guard) IsMonotonic() bool {
	m, ok := g.durable.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}
