package replica

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The checks that a data folder passes before raft builds on it.

func (n *Node) logDir() string { return filepath.Join(n.cfg.DataDir, "log") }

func (n *Node) rot(what string, err error) *RotError {
	if what == "" && err != nil {
		what, err = err.Error(), nil
	}
	return &RotError{Node: n.cfg.ID, Folder: n.cfg.DataDir, What: what, Err: err}
}

// inspect opens the snapshots and compares them and the log with what was noted
// of both.
func (n *Node) inspect(logger hclog.Logger) (raft.SnapshotStore, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.DataDir, 2, logger)
	if err != nil {
		return nil, fmt.Errorf("snapshots in %s: %w", n.cfg.DataDir, err)
	}
	n.store.node, n.store.folder = n.cfg.ID, n.cfg.DataDir
	n.snapshots = &checkedSnapshots{SnapshotStore: files, dir: filepath.Join(n.cfg.DataDir, "snapshots"), meta: n.store.Meta(), rot: n.rot, end: n.store.giveUp}
	if forked := n.store.Meta().record().Forked; forked != "" {
		return nil, n.rot(forked, nil)
	}
	first, err := n.store.FirstIndex()
	if err != nil {
		return nil, n.rot("the log's first entry", err)
	}
	newest, err := n.snapshots.inspect(first)
	if err != nil {
		return nil, err
	}
	return n.snapshots, n.store.inspect(n.logDir(), newest)
}

// newRaft is raft.NewRaft, which panics over an entry that it cannot read.
func (n *Node) newRaft(rc *raft.Config, logs raft.LogStore) (r *raft.Raft, err error) {
	defer func() {
		p := recover()
		if broken := n.store.broken.Load(); broken != nil && (p != nil || err != nil) {
			r, err = nil, *broken
		} else if p != nil {
			r, err = nil, fmt.Errorf("start raft: %v", p)
		}
	}()
	machine := &fsm{machine: n.machine, feed: &n.feed, restores: &n.restores, observe: n.observe, rotten: func(what string, err error) error {
		return n.store.giveUp(n.rot(what, err))
	}}
	return raft.NewRaft(rc, machine, logs, n.store, n.snapshots, n.transport)
}

// isRot reports whether an error is damage, and not a disk that cannot be read or written at all, which a
// later start may find in order.
func isRot(err error) bool {
	var errno syscall.Errno
	return !errors.As(err, &errno) || errno == syscall.ENOENT
}
