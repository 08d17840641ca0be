// Package member is a coordinator's membership: whose its data folder is, where
// it is reached, how it finds, joins, keeps up with and leaves its cluster.
//
// It refuses to decide who is a member: the leader and raft's configuration do.
// What gossip says is a hint of where to ask.
package member

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"atelier/common/gossip"
	"atelier/common/identity"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// Config of a member. The addresses are those to bind.
type Config struct {
	ID, Data          string
	API, Raft, Gossip string
	Advertise         string // host that others reach this node at; "" = as bound
	Bootstrap         bool   // begin a cluster, unless the folder is of one
	Join              []string
	Invitation        *identity.Invitation // to a closed cluster, in place of Join; nil = none
	Keys              [][]byte             // of gossip, where the cluster is open
	TLS               bool                 // the cluster that Bootstrap begins is closed
	Insecure          bool
	Logger            *slog.Logger
}

// Addresses is where a node is reached, as the address file has it.
type Addresses struct {
	ID     string `json:"id"`
	API    string `json:"api"`
	Raft   string `json:"raft"`
	Gossip string `json:"gossip"`
	PID    int    `json:"pid"`
}

// Leadership is what tells whether a leader is at work, here or elsewhere.
type Leadership interface {
	Ready() bool
	Changed() <-chan struct{}
}

// Member is this node as one of its cluster. Its life: Open (the folder), Listen,
// Find (the cluster), Replica and Serve (raft), Stay and Follow while it runs,
// Leave, Close.
type Member struct {
	cfg       Config
	log       *slog.Logger
	folder    *Folder
	clusterID string          // "" until it is found
	store     *identity.Store // nil where the cluster is open
	addresses Addresses
	raft      net.Listener
	pool      *gossip.Pool
	machine   *state.Machine
	node      *replica.Node
	lead      Leadership
	fresh     bool       // the folder held no cluster
	told      bool       // that this node is a member
	gone      chan error // takes why the node was removed

	pending atomic.Bool // a record is about to be written

	listRefusal atomic.Pointer[func(who, what, why string)]

	mu     sync.Mutex // guards what follows, and node.json
	closed bool
	self   Record
	known  gossip.Meta // what the others were told last
}

// Open takes hold of the data folder and reads whose it is.
func Open(cfg Config) (*Member, error) {
	m := &Member{cfg: cfg, log: cfg.Logger, gone: make(chan error, 1)}
	var err error
	if m.folder, err = OpenFolder(cfg.Data); err != nil {
		return nil, err
	}
	err = m.identify()
	if err == nil {
		err = m.enclose()
	}
	if err != nil {
		m.folder.Close()
		return nil, err
	}
	return m, nil
}

// identify finds out whose folder it is. A folder that holds a cluster belongs to that one,
// whatever the flags say; one that holds none wants to be told which to begin or to join.
func (m *Member) identify() (err error) {
	if m.self, err = m.folder.Record(); err != nil {
		return err
	}
	if m.self.ID != "" && m.self.ID != m.cfg.ID {
		return m.folder.belongs(m.self.ID, m.cfg.ID)
	}
	if m.clusterID, err = m.folder.identify(m.cfg.ID); err != nil {
		return err
	}
	if m.clusterID != "" {
		m.cfg.Bootstrap = false
		return nil
	}
	m.fresh = true
	if !m.cfg.Bootstrap && len(m.cfg.Join) == 0 && m.cfg.Invitation == nil {
		return fmt.Errorf("data folder %s has no cluster: give --bootstrap to begin one, or --join HOST:PORT to join one", m.cfg.Data)
	}
	return nil
}

// Listen binds the API's address.
func (m *Member) Listen() (net.Listener, error) {
	api, err := listen(m.cfg.API, m.self.API)
	if err != nil {
		return nil, fmt.Errorf("--api: %w", err)
	}
	m.addresses.API = reachable(api, m.cfg.API, m.cfg.Advertise)
	if m.store != nil {
		return m.guardAPI(api), nil
	}
	return api, nil
}

// Find binds the other addresses, starts gossip, and finds out which cluster this
// node is of, or is to begin. It writes that down before raft begins.
func (m *Member) Find(ctx context.Context) (err error) {
	c := &m.cfg
	fresh := m.fresh
	if c.Bootstrap && len(c.Join) == 0 && m.clusterID == "" {
		m.clusterID = newClusterID() // before the first word to anybody
	}
	if m.raft, err = listen(c.Raft, m.self.Raft); err != nil {
		return fmt.Errorf("--raft: %w", err)
	}
	m.addresses.ID, m.addresses.PID = c.ID, os.Getpid()
	m.addresses.Raft = reachable(m.raft, c.Raft, c.Advertise)
	keys, label := c.Keys, ""
	if m.store != nil {
		m.raft = m.guardRaft(m.raft)
		keys, label = m.store.Gossip(), m.store.Name().Cluster
	}
	m.pool, err = gossip.Start(gossip.Config{
		Name: gossip.RoleCoordinator + "/" + c.ID, Bind: gossipBind(c.Gossip, m.self.Gossip), Advertise: c.Advertise,
		Keys: keys, Label: label, Insecure: c.Insecure, Meta: m.meta(), Join: append(append([]string{}, c.Join...), m.self.Seeds...), Logger: m.log,
	})
	if err != nil {
		return err
	}
	m.addresses.Gossip = m.pool.Addr()
	if c.Advertise != "" {
		_, port, _ := net.SplitHostPort(m.pool.Addr())
		m.addresses.Gossip = net.JoinHostPort(c.Advertise, port)
	}
	switch {
	case c.Bootstrap && m.clusterID == "":
		if err = m.mayBegin(ctx); err == nil {
			m.clusterID = newClusterID()
		}
	case fresh && !c.Bootstrap:
		m.clusterID, err = m.mayJoin(ctx)
	}
	if err != nil {
		return err
	}
	if fresh && c.Bootstrap {
		m.log.Info("begins a new cluster, with nothing in it: --bootstrap, and the data folder was empty", "cluster", m.clusterID, "data", c.Data)
	}
	m.self.ID, m.self.API, m.self.Raft, m.self.Gossip = c.ID, m.addresses.API, m.addresses.Raft, m.addresses.Gossip
	m.self.ClusterID = m.clusterID
	// From here on the others of another cluster are refused.
	m.known = m.meta()
	if err := m.pool.SetMeta(m.known); err != nil {
		m.log.Debug("gossip", "error", err)
	}
	return m.folder.Remember(m.self)
}

// Replica fills in what raft is told of this node.
func (m *Member) Replica(c replica.Config) replica.Config {
	c.ID, c.DataDir, c.ClusterID, c.Bootstrap = m.cfg.ID, m.folder.Raft(), m.clusterID, m.cfg.Bootstrap
	c.Listener, c.Advertise = m.raft, m.addresses.Raft
	c.OnRemoved, c.Locate = m.removed, m.locate
	if m.store != nil {
		c.Dial, c.Claims = m.dialRaft, claims
	}
	return c
}

// Serve says which node and state are this member's, and who leads.
func (m *Member) Serve(node *replica.Node, machine *state.Machine, lead Leadership) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node, m.machine, m.lead = node, machine, lead
}

// Addresses of the node, once Find has returned.
func (m *Member) Addresses() Addresses { return m.addresses }

// Pool is gossip, once Find has returned.
func (m *Member) Pool() *gossip.Pool { return m.pool }

// Gone delivers why this node was taken off its cluster.
func (m *Member) Gone() <-chan error { return m.gone }

// Introduce is the first thing that a leader does. It gives up a restore that the
// leader before left half-way, and writes the leader's own addresses and data
// folder, and the cluster's id where the state has none yet. A closed cluster gets
// its first admin.
func (m *Member) Introduce(ctx context.Context) error {
	var noSpace *replica.NoSpaceError
	if err := m.node.DropStaged(ctx); err != nil && !errors.As(err, &noSpace) {
		return err
	}
	id := m.node.Identity()
	res, err := m.node.Propose(ctx, &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{
		Id: m.cfg.ID, RaftAddress: m.addresses.Raft, ApiAddress: m.addresses.API, GossipAddress: m.addresses.Gossip, ClusterId: id.ClusterID, FolderId: id.FolderID,
	}}})
	if errors.As(err, &noSpace) { // it leads, and serves reads
		m.log.Warn("this node's addresses were not written", "error", err)
		return nil
	}
	if err := errors.Join(err, res.Err); err != nil {
		return err
	}
	return m.firstAdmin(ctx)
}

// removed ends this node for good: it was taken off the cluster.
func (m *Member) removed(why string) {
	if err := replica.MarkRemoved(m.folder.Raft(), why); err != nil {
		m.log.Error("could not record that this node was removed; its next start has to learn it again", "error", err)
	}
	select {
	case m.gone <- &replica.RemovedError{Why: why}:
	default:
	}
}

// Close ends gossip and lets go of the folder. raft must have been shut down; when
// it did not end, running is true and the folder is held until the process ends.
func (m *Member) Close(running bool) {
	if m.pool != nil {
		m.pool.Leave(0)
	}
	if m.raft != nil {
		m.raft.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if !running {
		m.folder.Close()
	}
}

func newClusterID() string { return "c-" + strings.ToLower(rand.Text()[:8]) }
