package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// TestStopUnderLoad: a leader, and then a follower, that is asked to end does so
// at once, though workers wait for leases, people wait for a sweep to change, and
// clients hold connections to spare. The leader hands leadership over first, and
// the others answer.
func TestStopUnderLoad(t *testing.T) {
	dir := t.TempDir()
	ps := map[string]*process{"p1": startProcess(t, dir, "p1", "--bootstrap")}
	for _, id := range []string{"p2", "p3"} {
		ps[id] = startProcess(t, dir, id, "--join", ps["p1"].at.Gossip)
	}
	all := []string{ps["p1"].at.API, ps["p2"].at.API, ps["p3"].at.API}
	c := client.New(all)
	until(t, "three voters", func() bool { return voterCount(t, c) == 3 })
	sw := raw(c).Create(t, spec(3, 3))
	role := func(leads bool) (found string) {
		until(t, "a leader", func() bool {
			resp, err := c.Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
			if err != nil || ps[resp.Msg.LeaderId] == nil {
				return false
			}
			for id := range ps {
				if leads == (id == resp.Msg.LeaderId) {
					found = id
				}
			}
			return true
		})
		return found
	}

	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	for _, leads := range []bool{true, false} {
		id := role(leads)
		asked := ps[id]
		delete(ps, id)
		for i := range 8 {
			load.Add(2)
			one := client.New(append([]string{asked.at.API}, all...))
			go func() { // a worker of another trainer: nothing is there for it
				defer load.Done()
				name := fmt.Sprintf("idle-%s-%d", id, i)
				for n := 0; ctx.Err() == nil; n++ {
					one.Raw().Workers.Heartbeat(ctx, connect.NewRequest(&atelierv1.HeartbeatRequest{Worker: &atelierv1.Worker{
						Name: name, Incarnation: name, Trainers: []string{"none"}, Slots: []*atelierv1.Slot{{Name: "cpu0", Kind: "cpu"}}}}))
					one.Raw().Workers.Acquire(ctx, connect.NewRequest(&atelierv1.AcquireRequest{RequestId: fmt.Sprint(n), Worker: name, Incarnation: name,
						Slot: "cpu0", Trainers: []string{"none"}, WaitMs: 20_000}))
				}
			}()
			go func() {
				defer load.Done()
				for ctx.Err() == nil {
					one.Raw().Sweeps.WaitSweep(ctx, connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, AfterIndex: 1 << 40, WaitMs: 20_000}))
				}
			}()
		}
		time.Sleep(500 * time.Millisecond)
		spare, err := net.Dial("tcp", asked.at.API)
		if err != nil {
			t.Fatal(err)
		}
		defer spare.Close()

		began := time.Now()
		if err := asked.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := asked.wait(); err != nil {
			t.Errorf("it ended with %v\n%s", err, asked.log)
		}
		took := time.Since(began)
		t.Logf("leader %v: gone after %v", leads, took)
		// Requests are waited for 5 s: what takes that long was not ended but cut off.
		if took > 4500*time.Millisecond {
			t.Errorf("leader %v: it took %v to end", leads, took)
		}
		ps[id] = startProcess(t, dir, id)
		until(t, "it is back", func() bool { return voterCount(t, c) == 3 })
	}
	if s := raw(c).Sweep(t, sw.Id); s.Id != sw.Id {
		t.Errorf("read %v", s)
	}
}
