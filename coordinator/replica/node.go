package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// Config says what a node is and where it keeps its memory. Zero durations and
// counts take the defaults named.
type Config struct {
	ID        string         // never changes; a wiped disk is a new id
	DataDir   string         // made when absent
	Listener  net.Listener   // for raft traffic; closed by Shutdown
	Advertise string         // host:port at which others reach Listener; default its address
	Bootstrap bool           // begin a cluster of this node alone, unless DataDir has a state
	ClusterID string         // of the cluster to begin; written by the first leader when the state has none
	Machine   *state.Machine // empty; the node alone applies to it
	Logger    *slog.Logger
	// OnFatal is called once, from any goroutine, when the node cannot go on: a
	// failed or hung disk. It must end the process; default: log and exit with 1.
	OnFatal func(error)

	LogStore          LogStore      // RaftWAL
	HeartbeatTimeout  time.Duration // 400 ms without the leader before a follower asks for votes
	ElectionTimeout   time.Duration // 400 ms for one round of votes
	LeaderLease       time.Duration // HeartbeatTimeout; without a majority for that long a leader steps down
	SnapshotThreshold uint64        // 8,192 log entries since the last snapshot
	SnapshotInterval  time.Duration // 30 s between looks at the threshold
	TrailingLogs      uint64        // 10,240 entries kept behind a snapshot for followers that lag
	DiskTimeout       time.Duration // 5 s that one append may take
	InFlight          int           // 2 entries proposed and not yet committed, at most
}

func (c *Config) fill() error {
	switch {
	case c.ID == "":
		return errors.New("open replica: no node id")
	case c.DataDir == "":
		return errors.New("open replica: no data folder")
	case c.Listener == nil:
		return errors.New("open replica: no listener")
	case c.Machine == nil:
		return errors.New("open replica: no state machine")
	}
	if c.Advertise == "" {
		c.Advertise = c.Listener.Addr().String()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnFatal == nil {
		logger := c.Logger
		c.OnFatal = func(err error) {
			logger.Error("cannot go on", "error", err)
			os.Exit(1)
		}
	}
	setDefault(&c.LogStore, RaftWAL)
	setDefault(&c.HeartbeatTimeout, 400*time.Millisecond)
	setDefault(&c.ElectionTimeout, max(400*time.Millisecond, c.HeartbeatTimeout))
	setDefault(&c.LeaderLease, c.HeartbeatTimeout)
	setDefault(&c.SnapshotThreshold, 8192)
	setDefault(&c.SnapshotInterval, 30*time.Second)
	setDefault(&c.TrailingLogs, 10240)
	setDefault(&c.DiskTimeout, 5*time.Second)
	setDefault(&c.InFlight, 2)
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Node is one coordinator's part in the cluster.
type Node struct {
	cfg       Config
	log       *slog.Logger
	raft      *raft.Raft
	machine   *state.Machine
	folder    *folder
	store     *guard
	transport *transport
	batcher   *batcher
	feed      feed
	hadState  bool

	leaderCh chan bool
	caughtUp atomic.Uint64 // term whose leader has applied all that went before
	restores atomic.Uint64
	fatal    sync.Once
	stop     chan struct{}
	stopped  sync.Once
	loops    sync.WaitGroup
}

// Open starts a node. With a state on disk it goes on from there; without one it
// begins a cluster (Bootstrap) or waits to be added by a leader.
func Open(cfg Config) (*Node, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	folder, err := claim(cfg.DataDir, cfg.ID, cfg.LogStore)
	if err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	n := &Node{cfg: cfg, folder: folder, log: cfg.Logger, machine: cfg.Machine, leaderCh: make(chan bool, 1), stop: make(chan struct{})}
	store, err := openStore(cfg.LogStore, filepath.Join(cfg.DataDir, "log"), cfg.Logger)
	if err != nil {
		folder.release()
		return nil, fmt.Errorf("open replica: %w", err)
	}
	n.store = newGuard(store, n.fail)
	if err := n.start(); err != nil {
		n.store.Close()
		folder.release()
		return nil, fmt.Errorf("open replica: %w", err)
	}
	return n, nil
}

func (n *Node) start() error {
	logs, err := raft.NewLogCache(128, n.store)
	if err != nil {
		return err
	}
	logger := raftLogger(n.log)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.DataDir, 2, logger)
	if err != nil {
		return fmt.Errorf("snapshots in %s: %w", n.cfg.DataDir, err)
	}
	if err := n.finishInstall(n.store, snapshots); err != nil {
		return fmt.Errorf("finish the installation of a snapshot in %s: %w", n.cfg.DataDir, err)
	}
	n.transport = newTransport(n.cfg.Listener, n.cfg.Advertise, logger)

	notify := make(chan bool, 16)
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(n.cfg.ID)
	rc.HeartbeatTimeout = n.cfg.HeartbeatTimeout
	rc.ElectionTimeout = n.cfg.ElectionTimeout
	rc.LeaderLeaseTimeout = n.cfg.LeaderLease
	rc.CommitTimeout = 50 * time.Millisecond
	rc.MaxAppendEntries = 32 // entries carry many commands each
	rc.SnapshotThreshold = n.cfg.SnapshotThreshold
	rc.SnapshotInterval = n.cfg.SnapshotInterval
	rc.TrailingLogs = n.cfg.TrailingLogs
	rc.NotifyCh = notify
	rc.Logger = logger
	rc.NoLegacyTelemetry = true

	n.hadState, err = raft.HasExistingState(logs, n.store, snapshots)
	if err != nil {
		return fmt.Errorf("read the state in %s: %w", n.cfg.DataDir, err)
	}
	if n.cfg.Bootstrap && !n.hadState {
		alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: rc.LocalID, Address: raft.ServerAddress(n.cfg.Advertise)}}}
		if err := raft.BootstrapCluster(rc, logs, n.store, snapshots, n.transport, alone); err != nil {
			return fmt.Errorf("begin a cluster: %w", err)
		}
	}
	n.raft, err = raft.NewRaft(rc, &fsm{machine: n.machine, feed: &n.feed, restores: &n.restores, log: n.log}, logs, n.store, snapshots, n.transport)
	if err != nil {
		n.transport.Close()
		return err
	}
	n.batcher = newBatcher(n.raft, n.cfg.InFlight, n.Leader)
	n.loops.Add(2)
	go n.followLeadership(notify)
	go n.watch()
	return nil
}

// HasState reports whether there was a log or a snapshot when the node opened.
func (n *Node) HasState() bool { return n.hadState }

// fail ends the node for good: once, and not while it is being shut down.
func (n *Node) fail(err error) {
	select {
	case <-n.stop:
		return
	default:
	}
	n.fatal.Do(func() { n.cfg.OnFatal(err) })
}

// Shutdown stops the node. It does not hand leadership over: call Transfer
// first. Proposals under way end with ErrUnknown.
func (n *Node) Shutdown(ctx context.Context) error {
	var err error
	n.stopped.Do(func() {
		close(n.stop)
		n.batcher.close()
		err = await(ctx, n.raft.Shutdown())
		n.transport.Close()
		n.cfg.Listener.Close()
		n.loops.Wait()
		n.feed.close()
		if closeErr := n.store.Close(); err == nil {
			err = closeErr
		}
		n.folder.release()
	})
	if err != nil {
		return fmt.Errorf("shut down replica %s: %w", n.cfg.ID, err)
	}
	return nil
}

// await waits for a future of raft or for the end of ctx.
func await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
