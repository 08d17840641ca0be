package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
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
	until(t, "every node has its vote", func() bool {
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
	return c
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

func until(t *testing.T, what string, want func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !want(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func background(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const randomSpec = `
name: test
search_method: random
seed: 7
objective: {metric: loss, direction: minimize}
budget: {trials: %d}
parallelism: %d
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0, log: true}
  depth: {type: int, low: 1, high: 5}
training: {epochs: 2}
`

func spec(trials, parallelism int) string { return fmt.Sprintf(randomSpec, trials, parallelism) }

func create(t *testing.T, c *client.Client, text string) *atelierv1.Sweep {
	t.Helper()
	resp, err := c.Sweeps.CreateSweep(background(t), connect.NewRequest(&atelierv1.CreateSweepRequest{
		RequestId: "create-" + t.Name() + fmt.Sprint(time.Now().UnixNano()), SpecYaml: text, SpecName: "test.yaml", BaseDir: "/data",
	}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.Sweep
}

// agent is a worker as the API sees one.
type agent struct {
	t           *testing.T
	c           *client.Client
	name        string
	incarnation string
	asked       int
	labels      map[string]string
}

func newAgent(t *testing.T, c *client.Client, name string) *agent {
	a := &agent{t: t, c: c, name: name, incarnation: name + "-1"}
	a.beat()
	return a
}

func (a *agent) beat(leases ...*atelierv1.Lease) *atelierv1.HeartbeatResponse {
	a.t.Helper()
	req := &atelierv1.HeartbeatRequest{Worker: &atelierv1.Worker{
		Name: a.name, Incarnation: a.incarnation, Trainers: []string{"sim"}, Labels: a.labels, Slots: []*atelierv1.Slot{{Name: "cpu0", Kind: "cpu"}},
	}}
	for _, l := range leases {
		req.Leases = append(req.Leases, &atelierv1.LeaseRef{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token})
	}
	resp, err := a.c.Workers.Heartbeat(background(a.t), connect.NewRequest(req))
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.Msg
}

func (a *agent) request(slot string, wait time.Duration) *atelierv1.AcquireRequest {
	a.asked++
	return &atelierv1.AcquireRequest{
		RequestId: fmt.Sprintf("%s-%d", a.incarnation, a.asked), Worker: a.name, Incarnation: a.incarnation, Slot: slot,
		Trainers: []string{"sim"}, WaitMs: wait.Milliseconds(), Labels: a.labels,
	}
}

func (a *agent) send(req *atelierv1.AcquireRequest) *atelierv1.Lease {
	a.t.Helper()
	resp, err := a.c.Workers.Acquire(background(a.t), connect.NewRequest(req))
	if err != nil {
		a.t.Fatalf("acquire: %v", err)
	}
	return resp.Msg.Lease
}

func (a *agent) acquire(wait time.Duration) *atelierv1.Lease {
	a.t.Helper()
	return a.send(a.request("cpu0", wait))
}

func (a *agent) relay(events ...*atelierv1.RunEvent) []*atelierv1.EventResult {
	a.t.Helper()
	resp, err := a.c.Workers.Relay(background(a.t), connect.NewRequest(&atelierv1.RelayRequest{Worker: a.name, Incarnation: a.incarnation, Events: events}))
	if err != nil {
		a.t.Fatalf("relay: %v", err)
	}
	return resp.Msg.Results
}

func report(l *atelierv1.Lease, epoch int32, value float64) *atelierv1.RunEvent {
	return &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Report{
		Report: &atelierv1.Report{Epoch: epoch, TimeMs: 1000 + int64(epoch), Metrics: []*atelierv1.Metric{{Name: "loss", Value: value}}},
	}}
}

func checkpointed(l *atelierv1.Lease, epoch int32, value float64) *atelierv1.RunEvent {
	return &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Checkpoint{
		Checkpoint: &atelierv1.Checkpoint{
			SweepId: l.SweepId, Trial: l.Trial, Epoch: epoch, Metric: value, HasMetric: true, Size: 10,
			Sha256: strings.Repeat("ab", 32), Location: fmt.Sprintf("shared:%s/%d/%d", l.SweepId, l.Trial, epoch), Worker: "w", Token: l.Token, CreatedMs: 5,
		},
	}}
}

func ended(l *atelierv1.Lease, class trial.Exit) *atelierv1.RunEvent {
	return &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Ended{
		Ended: &atelierv1.RunEnded{Exit: wire.ToExit(class), TimeMs: 2000},
	}}
}

// work carries leases out until the sweep has ended: one report, one
// checkpoint, done.
func (a *agent) work(sweep string) {
	for {
		l := a.acquire(200 * time.Millisecond)
		if l != nil {
			v := 1 / float64(l.Trial)
			for i, r := range a.relay(report(l, 1, v), checkpointed(l, 1, v), ended(l, trial.ExitFinished)) {
				if wire.Outcome(r.Outcome) != trial.OutcomeRecorded && wire.Outcome(r.Outcome) != trial.OutcomeAlready {
					a.t.Errorf("event %d of trial %d: %v %s", i, l.Trial, r.Outcome, r.Message)
				}
			}
			continue
		}
		if s := get(a.t, a.c, sweep); s.EndedMs != 0 {
			return
		}
	}
}

func get(t *testing.T, c *client.Client, id string) *atelierv1.Sweep {
	t.Helper()
	resp, err := c.Sweeps.GetSweep(background(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: id}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.Sweep
}

func getTrial(t *testing.T, c *client.Client, id string, n int64) *atelierv1.Trial {
	t.Helper()
	resp, err := c.Trials.GetTrial(background(t), connect.NewRequest(&atelierv1.GetTrialRequest{SweepId: id, Trial: n}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.Trial
}

func wantCode(t *testing.T, what string, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want code %v and %q", what, err, code, text)
	}
}

// TestMain is the program itself when a test starts this binary as a process.
func TestMain(m *testing.M) {
	if os.Getenv("COORDINATOR_PROCESS") == "1" {
		main()
	}
	os.Unsetenv("ATELIER_ADDR")
	os.Exit(m.Run())
}
