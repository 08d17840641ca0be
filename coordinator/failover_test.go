package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
)

func hash(t *testing.T, n *node) (uint64, string) {
	t.Helper()
	resp, err := n.client().Raw().Cluster.GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{Hash: true}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.AppliedIndex, resp.Msg.StateHash
}

// sameState waits until all nodes stand at one index and compares them.
func (c *testCluster) sameState(nodes ...*node) {
	c.t.Helper()
	until(c.t, "all nodes stand at one index", func() bool {
		first := nodes[0].machine.View().Index()
		for _, n := range nodes {
			if n.machine.View().Index() != first {
				return false
			}
		}
		return true
	})
	index, want := hash(c.t, nodes[0])
	for _, n := range nodes[1:] {
		if at, h := hash(c.t, n); at == index && h != want {
			c.t.Errorf("%s and %s differ at index %d", nodes[0].Config.ID, n.Config.ID, at)
		}
	}
}

func TestFollowersForward(t *testing.T) {
	cl := startCluster(t, 3)
	f := cl.follower()
	c := f.client()
	sw := raw(c).Create(t, spec(6, 3))
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	a.Work(sw.Id)
	if s := raw(c).Sweep(t, sw.Id); s.Counts.Finished != 6 || wire.SweepStatus(s.Status) != trial.SweepFinished {
		t.Errorf("sweep %v", s)
	}
	_, err := c.Raw().Sweeps.GetSweep(background(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: "s-none"}))
	wantCode(t, "an error through a follower", err, connect.CodeNotFound, "s-none")

	// curl's way: JSON in and out.
	resp, err := http.Post("http://"+f.Addresses().API+"/atelier.v1.SweepService/GetSweep", "application/json", strings.NewReader(fmt.Sprintf(`{"id":%q}`, sw.Id)))
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	body.ReadFrom(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || !strings.Contains(body.String(), `SWEEP_STATUS_FINISHED`) {
		t.Errorf("JSON: %d %s", resp.StatusCode, body.String())
	}

	members, err := c.Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members.Msg.Members {
		if m.Suffrage != "voter" || m.ApiAddress == "" || m.GossipAddress == "" || m.Leader != (m.Id == members.Msg.LeaderId) {
			t.Errorf("member %v", m)
		}
	}
	until(t, "gossip sees all members", func() bool {
		m, err := c.Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
		if err != nil || len(m.Msg.Members) != 3 {
			return false
		}
		for _, x := range m.Msg.Members {
			if !x.Alive || x.AppliedIndex == 0 {
				return false
			}
		}
		return true
	})
	cl.sameState(cl.nodes...)
	node, err := c.Raw().Cluster.GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{}))
	if err != nil || node.Msg.Id != f.Config.ID || node.Msg.Role != "follower" || node.Msg.LeaderApi != cl.leader().Addresses().API {
		t.Errorf("node asked: %v, %v", node, err)
	}
}

// The leader is taken away while leases are held: they live on under the next
// leader, with their tokens, and the sweep ends with each trial once.
func TestFailoverOfTheDuties(t *testing.T) {
	cl := startCluster(t, 3, "--lease-ttl", "5s")
	c := cl.client()
	sw := raw(c).Create(t, spec(40, 8))
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	req := a.Request("cpu0", 5*time.Second)
	held := a.Send(req)
	if r := a.Relay(report(held, 1, 0.5)); wire.Outcome(r[0].Outcome) != trial.OutcomeRecorded {
		t.Fatal(r)
	}
	gone := cl.waitLeader()
	began := time.Now()
	gone.crash(t)
	r := a.Relay(report(held, 2, 0.25))
	t.Logf("leader lost to the next acknowledged report: %v", time.Since(began))
	if wire.Outcome(r[0].Outcome) != trial.OutcomeRecorded {
		t.Fatalf("the report after the failover: %v", r)
	}
	if b := a.Beat(held); len(b.Lost) != 0 {
		t.Errorf("the lease did not survive the failover: %v", b)
	}
	if l := a.Send(req); l == nil || l.Token != held.Token {
		t.Errorf("a repeated acquire under the new leader got %v, want token %d", l, held.Token)
	}
	// The lease has its full term again, and ends when nobody renews it.
	time.Sleep(2500 * time.Millisecond)
	if b := a.Beat(held); len(b.Lost) != 0 {
		t.Errorf("less than its term after the election: %v", b)
	}
	a.Relay(ended(held, trial.ExitFinished))

	var wg sync.WaitGroup
	for i := range 3 {
		wg.Add(1)
		b := coordinatortest.NewAgent(t, raw(c), fmt.Sprintf("x%d", i))
		go func() { defer wg.Done(); b.Work(sw.Id) }()
	}
	wg.Wait()
	s := raw(c).Sweep(t, sw.Id)
	if s.Counts.Finished != 40 || s.Counts.Proposed != 40 || s.Counts.Runs != 40 {
		t.Errorf("ended as %v", s.Counts)
	}
	var rest []*node
	for _, n := range cl.nodes {
		if n != gone {
			rest = append(rest, n)
		}
	}
	cl.sameState(rest...)
}

// Leadership moves again and again while points are proposed: none is lost and
// none comes twice. A grid shows both.
func TestProposalsSurviveTransfers(t *testing.T) {
	cl := startCluster(t, 3)
	c := cl.client()
	sw := raw(c).Create(t, `
name: grid
search_method: grid_search
objective: {metric: loss, direction: minimize}
parallelism: 5
trainer: sim
space:
  a: {type: int, low: 1, high: 8}
  b: {type: categorical, choices: [x, y, z, u, v]}
`)
	if sw.BudgetTrials != 40 {
		t.Fatalf("budget %d", sw.BudgetTrials)
	}
	ctx, stop := context.WithCancel(context.Background())
	moved := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if l := cl.leader(); l != nil {
				if l.node.Transfer(ctx, "") == nil {
					n++
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
		moved <- n
	}()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Add(1)
		a := coordinatortest.NewAgent(t, raw(c), fmt.Sprintf("w%d", i))
		go func() {
			defer wg.Done()
			for {
				l := a.Acquire(200 * time.Millisecond)
				if l == nil {
					if raw(c).Sweep(t, sw.Id).EndedMs != 0 {
						return
					}
					continue
				}
				time.Sleep(30 * time.Millisecond)
				a.Relay(report(l, 1, float64(l.Trial)), ended(l, trial.ExitFinished))
			}
		}()
	}
	wg.Wait()
	stop()
	t.Logf("leadership moved %d times", <-moved)
	page, err := c.Raw().Trials.ListTrials(background(t), connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: sw.Id}))
	if err != nil {
		t.Fatal(err)
	}
	points := map[string]int{}
	for _, tr := range page.Msg.Trials {
		points[tr.ParamsJson]++
		if wire.Status(tr.Status) != trial.Finished || len(tr.Runs) != 1 {
			t.Errorf("trial %v", tr)
		}
	}
	if len(page.Msg.Trials) != 40 || len(points) != 40 {
		t.Errorf("%d trials of %d points", len(page.Msg.Trials), len(points))
	}
}

// All nodes stop and come back, on whatever ports are free.
func TestWholeClusterRestarts(t *testing.T) {
	cl := startCluster(t, 3)
	sw := raw(cl.client()).Create(t, spec(4, 2))
	for _, n := range cl.nodes {
		n.end(t)
	}
	cl.nodes = nil
	for i := range 3 {
		cl.start(fmt.Sprintf("c%d", i+1))
	}
	if got := raw(cl.client()).Sweep(t, sw.Id); got.BudgetTrials != 4 {
		t.Errorf("sweep after the restart %v", got)
	}
}

func TestMembersJoinLeaveAndAreRefused(t *testing.T) {
	cl := startCluster(t, 3)
	c := cl.client()
	seed := cl.nodes[0].Addresses().Gossip

	_, err := cl.launch("c2", "--join", seed)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-cl.nodes[3].ended; err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second start on one folder: %v", err)
	} else {
		cl.nodes[3].ended <- nil
	}
	n, _ := cl.launch("c2", "--join", seed, "--data", filepath.Join(cl.dir, "wiped"))
	if err := <-n.ended; err == nil || !strings.Contains(err.Error(), "has a member c2 already") {
		t.Errorf("a member with an empty disk: %v", err)
	}
	n.ended <- nil
	n, _ = cl.launch("c9", "--join", seed, "--data", filepath.Join(cl.dir, "c2-copy"))
	<-n.Serving()
	until(t, "c9 votes", func() bool { return len(cl.waitLeader().node.Configuration()) == 4 })
	n.end(t)
	cl.nodes = cl.nodes[:3]

	// Another cluster's node is turned away.
	other := &testCluster{t: t, dir: t.TempDir()}
	x := other.start("z1", "--bootstrap")
	until(t, "z1 leads", func() bool { return x.lead.Ready() })
	id := x.machine.View().ClusterID()
	_, err = c.Raw().Cluster.Join(background(t), connect.NewRequest(&atelierv1.JoinRequest{Id: "z1", RaftAddress: "127.0.0.1:1", ApiAddress: "127.0.0.1:2", ClusterId: id}))
	wantCode(t, "join of another cluster's node", err, connect.CodeFailedPrecondition, id)

	if _, err := c.Raw().Cluster.RemoveMember(background(t), connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: "c9"})); err != nil {
		t.Fatal(err)
	}
	to := cl.follower()
	moved, err := c.Raw().Cluster.TransferLeadership(background(t), connect.NewRequest(&atelierv1.TransferLeadershipRequest{Id: to.Config.ID}))
	if err != nil || moved.Msg.LeaderId != to.Config.ID {
		t.Errorf("transfer to %s: %v, %v", to.Config.ID, moved, err)
	}
	until(t, "the members are as before", func() bool {
		l := cl.leader()
		return l != nil && len(l.node.Configuration()) == 3 && len(l.machine.View().Members()) == 3
	})
	// A node that leaves for good is off the list; the leader can, too.
	leader := cl.waitLeader()
	leader.Config.LeaveOnTerm = true
	leader.end(t)
	until(t, "two members are left", func() bool {
		l := cl.leader()
		return l != nil && l != leader && len(l.node.Configuration()) == 2 && len(l.machine.View().Members()) == 2
	})
}

func TestSnapshotIsSavedAndRestored(t *testing.T) {
	cl := startCluster(t, 3)
	c := cl.follower().client() // through a follower: streams are handed on too
	sw := raw(c).Create(t, spec(5, 2))
	coordinatortest.NewAgent(t, raw(c), "w1").Work(sw.Id)
	in, err := c.Raw().Cluster.SaveSnapshot(background(t), connect.NewRequest(&atelierv1.SaveSnapshotRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	for in.Receive() {
		saved.Write(in.Msg().Data)
	}
	if err := in.Err(); err != nil || saved.Len() == 0 {
		t.Fatalf("%d bytes, %v", saved.Len(), err)
	}
	later := raw(c).Create(t, spec(5, 2))
	restore := func(b []byte) (*atelierv1.RestoreSnapshotResponse, error) {
		out := c.Raw().Cluster.RestoreSnapshot(background(t))
		for at := 0; at < len(b); at += 1000 {
			if err := out.Send(&atelierv1.SnapshotChunk{Data: b[at:min(at+1000, len(b))]}); err != nil {
				break
			}
		}
		resp, err := out.CloseAndReceive()
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	_, err = restore(saved.Bytes()[:saved.Len()/2])
	wantCode(t, "half a snapshot", err, connect.CodeInvalidArgument, "cut short")
	if _, err := c.Raw().Sweeps.GetSweep(background(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: later.Id})); err != nil {
		t.Errorf("half a snapshot changed something: %v", err)
	}
	resp, err := restore(saved.Bytes())
	if err != nil || resp.Sweeps != 1 || resp.Trials != 5 {
		t.Fatalf("restored %v, %v", resp, err)
	}
	_, err = c.Raw().Sweeps.GetSweep(background(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: later.Id}))
	wantCode(t, "a sweep later than the snapshot", err, connect.CodeNotFound, later.Id)
	if s := raw(c).Sweep(t, sw.Id); s.Counts.Finished != 5 {
		t.Errorf("the sweep in the snapshot: %v", s)
	}
	again := raw(c).Create(t, spec(3, 2))
	coordinatortest.NewAgent(t, raw(c), "w2").Work(again.Id)
	cl.sameState(cl.nodes...)
}
