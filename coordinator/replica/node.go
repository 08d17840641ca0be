package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"atelier/common/sparselog"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// Config says what a node is and where it keeps its memory. Zero durations and
// counts take the defaults named.
type Config struct {
	ID        string       // never changes; a wiped disk is a new id
	DataDir   string       // made when absent
	Listener  net.Listener // for raft traffic; closed by Shutdown
	Advertise string       // host:port at which others reach Listener; default its address
	// Dial connects to a member's raft address; default plain TCP. In a closed cluster it and Listener speak TLS.
	Dial func(id, addr string, timeout time.Duration) (net.Conn, error)
	// Claims reports why who is at the other end of a connection may not call itself id; may be nil.
	Claims    func(c net.Conn, id string) error
	Bootstrap bool           // begin a cluster of this node alone, unless DataDir has a state
	ClusterID string         // of the cluster that DataDir belongs to; who is of another is not spoken to
	Machine   *state.Machine // empty; the node alone applies to it
	Logger    *slog.Logger
	// OnFatal is called once, from any goroutine, when the node cannot go on: a
	// failed or hung disk. It must end the process; default: log and exit with 1.
	OnFatal func(error)
	// OnRemoved is called once, from any goroutine, when a member says that this
	// node was taken off the cluster; may be nil.
	OnRemoved func(why string)
	// Locate gives the raft address at which a member was seen last, "" when it
	// was not; may be nil. Members that moved are found by it.
	Locate func(id string) string

	LogStore          LogStore      // RaftWAL
	HeartbeatTimeout  time.Duration // 400 ms without the leader before a follower asks for votes
	ElectionTimeout   time.Duration // 400 ms for one round of votes
	LeaderLease       time.Duration // HeartbeatTimeout; without a majority for that long a leader steps down
	SnapshotThreshold uint64        // 8,192 log entries since the last snapshot
	SnapshotInterval  time.Duration // 30 s between looks at the threshold
	TrailingLogs      uint64        // 10,240 entries kept behind a snapshot for followers that lag
	DiskTimeout       time.Duration // 5 s that one append may take
	MinFree           uint64        // bytes of disk below which no commands are taken; 2 segments and 2 snapshots
	InFlight          int           // 2 entries proposed and not yet committed, at most

	folderID string // of DataDir, see Identity
}

func (c *Config) fill() error {
	switch {
	case c.ID == "":
		return errors.New("open replica: no node id")
	case c.DataDir == "":
		return errors.New("open replica: no data folder")
	case c.Listener == nil:
		return errors.New("open replica: no listener")
	case c.ClusterID == "":
		return errors.New("open replica: no cluster id")
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
			logger.Error("cannot continue", "error", err)
			os.Exit(1)
		}
	}
	if c.Dial == nil {
		c.Dial = func(_, addr string, timeout time.Duration) (net.Conn, error) {
			return net.DialTimeout("tcp", addr, timeout)
		}
	}
	setDefault(&c.LogStore, RaftWAL)
	if c.LogStore != RaftWAL && c.LogStore != RaftBoltDB {
		return fmt.Errorf("open replica: log store %q: it is %s or %s", c.LogStore, RaftWAL, RaftBoltDB)
	}
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

// refusalEvery is how often a refusal that comes again and again is said.
const refusalEvery = 5 * time.Minute

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
	store     *guard
	transport *transport
	space     *space
	batcher   *batcher
	snapshots *checkedSnapshots
	feed      feed
	marks     marks
	hadState  bool
	sparse    *sparselog.Log
	removed   sync.Once
	opened    atomic.Bool // from then on fail ends the process; before, Open returns the error

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
	if err := claim(cfg.DataDir, cfg.ID, cfg.LogStore); err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	n := &Node{cfg: cfg, sparse: sparselog.New(cfg.Logger, refusalEvery, nil), log: cfg.Logger, machine: cfg.Machine, leaderCh: make(chan bool, 1), stop: make(chan struct{})}
	clean, err := checkClean(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("open replica: %w", n.rot("", err))
	}
	n.log.Debug("the data folder was compared with what it was when the node was stopped", "stopped whole", clean)
	store, err := openStore(cfg.LogStore, n.logDir(), cfg.Logger)
	if err != nil {
		if isRot(err) {
			err = n.rot("", err)
		}
		return nil, fmt.Errorf("open replica: %w", err)
	}
	n.store = newGuard(store, n.fail)
	if err := n.start(); err != nil {
		n.store.Close()
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
	snapshots, err := n.inspect(logger)
	if err != nil {
		return err
	}
	if err := n.finishInstall(n.store, snapshots); err != nil {
		return fmt.Errorf("finish the installation of a snapshot in %s: %w", n.cfg.DataDir, err)
	}
	n.space = newSpace(n.cfg.ID, n.cfg.DataDir, n.cfg.MinFree)
	n.store.room, n.store.leads = n.space.now, func() bool { return n.opened.Load() && n.raft.State() == raft.Leader }

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
		_, nowhere := raft.NewInmemTransport(raft.ServerAddress(n.cfg.Advertise))
		alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: rc.LocalID, Address: raft.ServerAddress(n.cfg.Advertise)}}}
		if err := raft.BootstrapCluster(rc, logs, n.store, snapshots, nowhere, alone); err != nil {
			return fmt.Errorf("begin a cluster: %w", err)
		}
	}
	// After the log of a new cluster has its first entry: should the process end
	// between the two, the folder is one that began a cluster and led it never,
	// and not one that lost its log.
	if err := settleIdentity(&n.cfg); err != nil {
		return err
	}
	n.transport = newTransport(newStream(n, n.cfg.Listener), logger, n.space.now, n.leadsIn)
	n.raft, err = n.newRaft(rc, logs)
	if err != nil {
		n.transport.Close()
		return err
	}
	if found := n.machine.View().ClusterID(); found != "" && found != n.cfg.ClusterID {
		n.raft.Shutdown().Error()
		n.transport.Close()
		return fmt.Errorf("data folder %s is of cluster %s and its snapshot of cluster %s: it was put together from two, or a recover was cut short (then `atelier-coordinator recover` it again)", n.cfg.DataDir, n.cfg.ClusterID, found)
	}
	n.snapshots.started.Store(true)
	n.opened.Store(true)
	if err := n.store.broken.Load(); err != nil { // raft has read something since
		n.fail(*err)
	}
	n.batcher = newBatcher(n.raft, n.cfg.InFlight, n.Leader)
	n.loops.Add(4)
	go n.followMembers(n.Subscribe(64))
	go n.followLeadership(notify)
	go n.watch()
	go n.watchSpace()
	return nil
}

// Identity says whose this node's data folder is.
func (n *Node) Identity() Identity {
	return Identity{ClusterID: n.cfg.ClusterID, FolderID: n.cfg.folderID}
}

// HasState reports whether there was a log or a snapshot when the node opened.
func (n *Node) HasState() bool { return n.hadState }

// fail ends the node for good: once, and not while it is being shut down.
func (n *Node) fail(err error) {
	if !n.opened.Load() {
		return // Open returns it
	}
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
		n.transport.stream.leave()
		err = await(ctx, n.raft.Shutdown())
		n.transport.Close()
		n.cfg.Listener.Close()
		n.loops.Wait()
		n.feed.close()
		if closeErr := n.store.Close(); err == nil {
			err = closeErr
		}
		if err == nil && n.store.broken.Load() == nil {
			err = markClean(n.cfg.DataDir)
		}
	})
	if err != nil {
		return fmt.Errorf("shut down replica %s: %w", n.cfg.ID, err)
	}
	return nil
}

// within is a context that ends after d, or with the node.
func (n *Node) within(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	go func() {
		select {
		case <-n.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
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
