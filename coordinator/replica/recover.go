package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// Stopped is a node's data folder while no node runs on it: who examines it holds
// the lock that keeps a node from starting.
type Stopped struct {
	dir    string
	id     string
	node   *Node // with its store and snapshots open and no raft
	logger *slog.Logger
	rotten error // what an entry that could not be applied said
}

// Found is what a stopped node's folder holds.
type Found struct {
	ID        string
	ClusterID string // as the state names it; "" = it names none
	Members   []Server
	Term      uint64 // of the last entry
	Index     uint64 // of the last entry: whether it was committed, no node alone can tell
	State     *state.View
}

// Examine takes hold of a stopped node's folder.
func Examine(dir string, logger *slog.Logger) (*Stopped, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	b, err := os.ReadFile(filepath.Join(dir, "node"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no state of a coordinator", dir)
	}
	if err != nil {
		return nil, err
	}
	id, kind, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	s := &Stopped{dir: dir, id: id, logger: logger}
	if err := claim(dir, id, LogStore(kind)); err != nil {
		return nil, err
	}
	s.node = &Node{cfg: Config{ID: id, DataDir: dir, LogStore: LogStore(kind), Logger: logger}, log: logger}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// open checks the folder as a start would.
func (s *Stopped) open() error {
	if _, err := checkClean(s.dir); err != nil {
		return s.node.rot("", err)
	}
	store, err := openStore(s.node.cfg.LogStore, s.node.logDir(), s.logger)
	if err != nil {
		return err
	}
	s.node.store = newGuard(store, func(error) {}) // its errors are returned
	snapshots, err := s.node.inspect(raftLogger(s.logger))
	if err == nil {
		err = s.node.finishInstall(s.node.store, snapshots)
	}
	if err != nil {
		s.node.store.Close()
		return err
	}
	return nil
}

// Close lets go of the folder and notes what its files are now.
func (s *Stopped) Close() error {
	err := s.node.store.Close()
	if err == nil && s.node.store.broken.Load() == nil {
		err = markClean(s.dir)
	}
	return err
}

func (s *Stopped) machine() *fsm {
	return &fsm{machine: state.New(), feed: &feed{}, restores: &atomic.Uint64{}, observe: func(*logv1.Entry) {}, rotten: func(what string, err error) error {
		s.rotten = s.node.store.giveUp(s.node.rot(what, err))
		return s.rotten
	}}
}

// Read plays the snapshot and the log, as a start would.
func (s *Stopped) Read() (Found, error) {
	found := Found{ID: s.id}
	f := s.machine()
	snapshots, store := s.node.snapshots, s.node.store
	list, err := snapshots.List()
	if err != nil {
		return found, err
	}
	var configuration raft.Configuration
	if len(list) > 0 {
		meta, r, err := snapshots.Open(list[0].ID)
		if err != nil {
			return found, err
		}
		if err := f.Restore(r); err != nil {
			return found, fmt.Errorf("snapshot %s: %w", meta.ID, err)
		}
		configuration, found.Index, found.Term = meta.Configuration, meta.Index, meta.Term
	}
	first, err := store.FirstIndex()
	if err != nil {
		return found, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return found, err
	}
	for i := max(first, found.Index+1); i <= last && i > 0; i++ {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			return found, fmt.Errorf("log entry %d: %w", i, err)
		}
		found.Index, found.Term = l.Index, l.Term
		switch l.Type {
		case raft.LogCommand:
			if f.Apply(&l); s.rotten != nil {
				return found, s.rotten
			}
		case raft.LogConfiguration:
			configuration = raft.DecodeConfiguration(l.Data)
		}
	}
	for _, b := range configuration.Servers {
		found.Members = append(found.Members, Server{ID: string(b.ID), Address: string(b.Address), Voter: b.Suffrage == raft.Voter})
	}
	found.State = f.machine.View()
	found.ClusterID = found.State.ClusterID()
	return found, nil
}

// Recover makes the node the only member of a new cluster with all that its
// folder holds, entries included that no majority may have had. The members it
// had are refused from then on: they belong to the cluster that was. Call it
// again when it was cut short.
func (s *Stopped) Recover(clusterID string) error {
	found, err := s.Read()
	if err != nil {
		return err
	}
	var me raft.Server
	for _, b := range found.Members {
		if b.ID == s.id {
			me = raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(b.ID), Address: raft.ServerAddress(b.Address)}
		}
	}
	if me.ID == "" {
		return fmt.Errorf("recover: %s is not a member of the cluster in its own log", s.id)
	}
	identity, err := ReadIdentity(s.dir)
	if err != nil {
		return err
	}
	if identity.FolderID == "" {
		identity.FolderID = newFolderID()
	}
	only, _ := found.State.Member(s.id)
	only.ID, only.FolderID = s.id, identity.FolderID
	rc := raft.DefaultConfig()
	rc.LocalID, rc.Logger, rc.NoLegacyTelemetry = me.ID, raftLogger(s.logger), true
	_, transport := raft.NewInmemTransport(me.Address)
	f := &recovering{fsm: s.machine(), clusterID: clusterID, only: only}
	if err := raft.RecoverCluster(rc, f, s.node.store, s.node.store, s.node.snapshots, transport, raft.Configuration{Servers: []raft.Server{me}}); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	// Last: until then a start is refused, the snapshot being of another cluster
	// than the folder.
	identity.ClusterID, identity.Removed = clusterID, ""
	return WriteIdentity(s.dir, identity)
}

// recovering is the state machine as raft.RecoverCluster plays it: its snapshot
// is already the new cluster's.
type recovering struct {
	*fsm
	clusterID string
	only      state.Member
}

func (r *recovering) Snapshot() (raft.FSMSnapshot, error) {
	if err := r.machine.Recover(r.clusterID, r.only); err != nil {
		return nil, err
	}
	return r.fsm.Snapshot()
}
