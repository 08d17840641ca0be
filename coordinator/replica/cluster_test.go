package replica_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// cluster is a few real nodes over loopback TCP, with their logs on disk.
type cluster struct {
	t     *testing.T
	dir   string
	tune  func(*replica.Config)
	nodes map[string]*member

	mu     sync.Mutex
	fatals []error
}

type member struct {
	*replica.Node
	id      string
	machine *state.Machine
	addr    string
}

func newCluster(t *testing.T, size int, tune func(*replica.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), tune: tune, nodes: map[string]*member{}}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			c.stop(m.id)
		}
	})
	c.start("n1", "", true)
	leader := c.leader()
	for i := 2; i <= size; i++ {
		id := fmt.Sprintf("n%d", i)
		m := c.start(id, "", false)
		if err := leader.AddMember(c.ctx(), id, m.addr); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

// start opens a node at addr, "" for a free port.
func (c *cluster) start(id, addr string, bootstrap bool) *member {
	c.t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	c.eventually("listen on "+addr, func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	m := &member{id: id, machine: state.New(), addr: l.Addr().String()}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("REPLICA_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", id)
	}
	cfg := replica.Config{
		ID: id, DataDir: filepath.Join(c.dir, id), Listener: l, Bootstrap: bootstrap, ClusterID: "test", Machine: m.machine, Logger: logger,
		OnFatal: func(err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.fatals = append(c.fatals, fmt.Errorf("%s: %w", id, err))
		},
	}
	if c.tune != nil {
		c.tune(&cfg)
	}
	node, err := replica.Open(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Node = node
	c.nodes[id] = m
	return m
}

// stop ends a node as a crash would: no transfer, no notice to anybody.
func (c *cluster) stop(id string) *member {
	m := c.nodes[id]
	delete(c.nodes, id)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		c.t.Errorf("%v", err)
	}
	return m
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("20 s and not yet: %s", what)
		}
	}
}

func (c *cluster) leader() *member {
	c.t.Helper()
	var found *member
	c.eventually("a leader", func() bool {
		for _, m := range c.nodes {
			if m.IsLeader() && m.VerifyLeader(c.ctx()) == nil {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func (c *cluster) follower() *member {
	leader := c.leader()
	for _, m := range c.nodes {
		if m.id != leader.id {
			return m
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// write proposes through whatever leader there is until it is acknowledged.
func (c *cluster) write(cmd *logv1.Command) state.Result {
	c.t.Helper()
	var r state.Result
	c.eventually("an acknowledged write", func() bool {
		var err error
		r, err = c.leader().Propose(c.ctx(), cmd)
		return err == nil
	})
	return r
}

// agree waits until all nodes have applied the same and compares their hashes.
func (c *cluster) agree() {
	c.t.Helper()
	leader := c.leader()
	if err := leader.Barrier(c.ctx()); err != nil {
		c.t.Fatal(err)
	}
	want := leader.machine.View()
	for _, m := range c.nodes {
		c.eventually(m.id+" applies what the leader has", func() bool { return m.machine.View().Index() >= want.Index() })
		if m.machine.View().Hash() != want.Hash() {
			c.t.Errorf("%s has another state than %s at index %d", m.id, leader.id, want.Index())
		}
	}
}

func createSweep(id string) *logv1.Command {
	return &logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: id, Objective: wire.ToObjective(trial.Objective{Metric: "loss"}),
		BudgetTrials: 1000, Parallelism: 1000, MaxRetries: 3}}}
}

func propose(id string, first int64) *logv1.Command {
	return &logv1.Command{TimeMs: 1, Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: id, First: first, ParamsJson: []string{"{}"}}}}
}

func grantLease(id string, trial int64) *logv1.Command {
	return &logv1.Command{TimeMs: 1, Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: id, Trial: trial, Worker: "w", Incarnation: "i", Slot: "cpu0", Request: fmt.Sprintf("%s-%d", id, trial)}}}
}

func report(id string, trial int64, token uint64, epoch int32) *logv1.Command {
	return &logv1.Command{TimeMs: 1, Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{{SweepId: id, Trial: trial, Token: token,
		Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: epoch, Metrics: []*atelierv1.Metric{{Name: "loss", Value: float64(epoch)}}}}}}}}}
}

func member1(id string) *logv1.Command {
	return &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: id, ApiAddress: "127.0.0.1:1"}}}
}

// isNotLeader reports whether err promises that nothing was written.
func isNotLeader(err error) bool {
	var e *replica.NotLeaderError
	return errors.As(err, &e)
}
