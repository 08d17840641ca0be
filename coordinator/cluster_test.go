package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/coordinator/coordinatortest"
)

// node is a coordinator in this process: real raft, real HTTP, real gossip, all
// on loopback.
type node struct {
	*Main
	cancel context.CancelFunc
	ended  chan error
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type testCluster struct {
	t     *testing.T
	nodes []*node
	dir   string
	flags []string
}

// startCluster starts n coordinators that find one another by gossip.
func startCluster(t *testing.T, n int, flags ...string) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.TempDir(), flags: flags}
	for i := range n {
		if i == 0 {
			c.start(fmt.Sprintf("c%d", i+1), "--bootstrap")
		} else {
			c.start(fmt.Sprintf("c%d", i+1), "--join", c.nodes[0].Addresses().Gossip)
		}
	}
	c.untilVoters(n)
	return c
}

// untilVoters waits until a leader has n voting members.
func (c *testCluster) untilVoters(n int) {
	c.t.Helper()
	until(c.t, "every node has its vote", func() bool {
		l := c.leader()
		if l == nil {
			return false
		}
		voters := 0
		for _, p := range l.node.Configuration() {
			if p.Voter {
				voters++
			}
		}
		return voters == n
	})
}

// start starts one coordinator on free ports and waits until it serves.
func (c *testCluster) start(id string, flags ...string) *node {
	c.t.Helper()
	n, err := c.launch(id, flags...)
	if err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-n.Serving():
	case err := <-n.ended:
		c.t.Fatalf("%s ended: %v\n%s", id, err, n.log)
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%s does not serve\n%s", id, n.log)
	}
	return n
}

func (c *testCluster) launch(id string, flags ...string) (*node, error) {
	n := &node{log: &syncBuffer{}, ended: make(chan error, 1)}
	n.Main = &Main{Stderr: n.log, OnFatal: func(err error) { fmt.Fprintln(n.log, "FATAL", err) }}
	args := append([]string{"atelier-coordinator", "--id", id, "--data", filepath.Join(c.dir, id), "--api", "127.0.0.1:0",
		"--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0"}, c.flags...)
	if err := n.ParseFlags(append(args, flags...)); err != nil {
		return nil, err
	}
	n.Serving()
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.ended <- n.Run(ctx) }()
	c.nodes = append(c.nodes, n)
	c.t.Cleanup(func() { n.end(c.t) })
	return n, nil
}

// end stops a node as SIGTERM does. Ending it twice is no matter.
func (n *node) end(t *testing.T) {
	n.cancel()
	select {
	case err := <-n.ended:
		if err != nil {
			t.Logf("%s: %v", n.Config.ID, err)
		}
		n.ended <- nil
	case <-time.After(30 * time.Second):
		t.Errorf("%s does not end\n%s", n.Config.ID, n.log)
		n.ended <- nil
	}
}

// crash takes a node away without a word to the others.
func (n *node) crash(t *testing.T) {
	n.http.Close()
	n.pool.Leave(0)
	n.close()
	n.end(t)
}

func (c *testCluster) leader() *node {
	for _, n := range c.nodes {
		select {
		case <-n.Serving():
			if n.lead != nil && n.lead.Ready() && n.node.IsLeader() {
				return n
			}
		default:
		}
	}
	return nil
}

func (c *testCluster) waitLeader() *node {
	c.t.Helper()
	var l *node
	until(c.t, "a leader", func() bool { l = c.leader(); return l != nil })
	return l
}

func (c *testCluster) follower() *node {
	c.t.Helper()
	l := c.waitLeader()
	for _, n := range c.nodes {
		if n != l {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// client speaks to one node only, and to it once.
func (n *node) client() *client.Client {
	return client.New([]string{n.Addresses().API}, client.WithoutFollowing(), client.WithRetryFor(time.Millisecond))
}

// client speaks to all nodes and follows the leader.
func (c *testCluster) client() *client.Client {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.Addresses().API)
	}
	return client.New(addrs, client.WithRetryFor(15*time.Second))
}

// raw are the generated clients of a client that follows the leader.
func raw(c *client.Client) coordinatortest.API {
	return coordinatortest.API{Sweeps: c.Raw().Sweeps, Trials: c.Raw().Trials, Workers: c.Raw().Workers, Cluster: c.Raw().Cluster}
}

// Short names for what these tests do again and again.
var (
	until, background, wantCode = coordinatortest.Until, coordinatortest.Context, coordinatortest.WantCode
	spec                        = coordinatortest.Spec
	report, checkpointed, ended = coordinatortest.Report, coordinatortest.Checkpointed, coordinatortest.Ended
)

// TestMain is the program itself when a test starts this binary as a process.
func TestMain(m *testing.M) {
	if os.Getenv("COORDINATOR_PROCESS") == "1" {
		main()
	}
	os.Unsetenv("ATELIER_ADDR")
	os.Exit(m.Run())
}
