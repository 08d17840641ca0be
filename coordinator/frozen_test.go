package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// three starts a cluster of three processes and waits until all of them vote.
func threeProcesses(t *testing.T, flags ...string) (ps []*process, addrs []string) {
	t.Helper()
	dir := t.TempDir()
	ps = []*process{startProcess(t, dir, "p1", append(flags, "--bootstrap")...)}
	for _, id := range []string{"p2", "p3"} {
		ps = append(ps, startProcess(t, dir, id, append(flags, "--join", ps[0].at.Gossip)...))
	}
	for _, p := range ps {
		addrs = append(addrs, p.at.API)
	}
	c := client.New(addrs)
	until(t, "three voters", func() bool {
		resp, err := c.Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
		n := 0
		if err == nil {
			for _, m := range resp.Msg.Members {
				if m.Suffrage == "voter" {
					n++
				}
			}
		}
		return n == 3
	})
	return ps, addrs
}

func freeze(t *testing.T, p *process) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Signal(syscall.SIGCONT) })
}

func leads(t *testing.T, addr string) string {
	resp, err := client.New(nil).Raw().Node(addr).GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.LeaderId
}

// first puts the address of the process for which want holds before the others.
func first(t *testing.T, ps []*process, want func(id string) bool) (chosen *process, addrs []string) {
	for _, p := range ps {
		if chosen == nil && want(p.at.ID) {
			chosen = p
			addrs = append([]string{p.at.API}, addrs...)
			continue
		}
		addrs = append(addrs, p.at.API)
	}
	return chosen, addrs
}

// A coordinator that is frozen and named first costs a call a second or two, not
// the call; whether it leads or not, and whether the call waits or not. (Before,
// each attempt at it took the whole time that commands look for a leader.)
func TestFrozenCoordinatorNamedFirst(t *testing.T) {
	ps, addrs := threeProcesses(t)
	sw := raw(client.New(addrs)).Create(t, spec(3, 3))
	leader := leads(t, addrs[0])
	follower, order := first(t, ps, func(id string) bool { return id != leader })
	freeze(t, follower)
	ask := func(what string, addrs []string, wait int64) {
		t.Helper()
		// The limit is generous for slow machines; the command's default is 5 s.
		c := client.New(addrs, client.WithRetryFor(15*time.Second), client.WithAttemptTimeout(time.Minute))
		defer c.Close()
		began := time.Now()
		resp, err := c.Raw().Sweeps.WaitSweep(background(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, WaitMs: wait}))
		if err != nil || resp.Msg.Sweep.Id != sw.Id {
			t.Fatalf("%s: %v", what, err)
		}
		took := time.Since(began)
		t.Logf("%s: answered after %v", what, took)
		if took > 12*time.Second+time.Duration(wait)*time.Millisecond {
			t.Errorf("%s took %v", what, took)
		}
	}
	ask("a follower is frozen", order, 0)
	ask("a follower is frozen and the call waits", order, 300)
	// A stream goes to another as well.
	c := client.New(order, client.WithRetryFor(15*time.Second))
	var snapshot bytes.Buffer
	if n, err := c.SaveSnapshot(background(t), &snapshot); err != nil || n == 0 {
		t.Errorf("snapshot: %d, %v", n, err)
	}
	follower.cmd.Process.Signal(syscall.SIGCONT)

	// The leader: a client that speaks to a follower waits for the election
	// alone, although the follower has handed the call on already.
	until(t, "all follow one leader", func() bool {
		l := leads(t, addrs[0])
		return l != "" && l == leads(t, addrs[1]) && l == leads(t, addrs[2])
	})
	leader = leads(t, addrs[0])
	frozen, order := first(t, ps, func(id string) bool { return id == leader })
	freeze(t, frozen)
	ask("the leader is frozen, a follower is asked", order[1:], 0)
	ask("the leader is frozen and named first", order, 0)
}

// A long answer of a healthy node is waited for, at that node.
func TestSlowAnswerIsNotAskedTwice(t *testing.T) {
	_, addrs := threeProcesses(t)
	c := client.New(addrs, client.WithRetryFor(time.Minute))
	sw := raw(c).Create(t, spec(3, 3))
	resp, err := c.Raw().Sweeps.WaitSweep(background(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id}))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := c.Raw().Sweeps.WaitSweep(background(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id, AfterIndex: resp.Msg.Index + 1000, WaitMs: 4000})); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("a wait of 4 s took %v: it was given up and begun anew, or never begun", took)
	}
}

// Streams with the first of several addresses dead, or without a leader.
func TestSnapshotAndRestoreGoRound(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, dir, "p1", "--bootstrap")
	sw := raw(client.New([]string{p.at.API})).Create(t, spec(3, 3))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	// Silent: it takes connections and never answers.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, before := range map[string]string{"dead": dead, "silent": listener.Addr().String()} {
		c := client.New([]string{before, p.at.API}, client.WithRetryFor(20*time.Second))
		file := filepath.Join(dir, name+".snap")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.SaveSnapshot(background(t), f); err != nil {
			t.Fatalf("%s: snapshot: %v", name, err)
		}
		f.Seek(0, io.SeekStart)
		c = client.New([]string{before, p.at.API}, client.WithRetryFor(20*time.Second))
		if r, err := c.RestoreSnapshot(background(t), "r-"+name, f, nil); err != nil || r.Sweeps != 1 {
			t.Fatalf("%s: restore: %v, %v", name, r, err)
		}
		f.Close()
	}
	raw(client.New([]string{p.at.API})).Sweep(t, sw.Id)

	_, err = client.New([]string{dead}, client.WithRetryFor(100*time.Millisecond)).RestoreSnapshot(background(t), "r-x", strings.NewReader("x"), nil)
	if client.ExitCode(err) != client.ExitNoLeader || !strings.Contains(err.Error(), "nothing listens at "+dead) {
		t.Errorf("nobody there: exit %d, %v", client.ExitCode(err), err)
	}
	// What is no snapshot is refused by the node, and not carried elsewhere.
	_, err = client.New([]string{p.at.API, p.at.API}).RestoreSnapshot(background(t), "r-y", strings.NewReader("no snapshot"), nil)
	if err == nil || client.ExitCode(err) == client.ExitNoLeader {
		t.Errorf("no snapshot: %v", err)
	}
}

// The words tell what each address does.
func TestWordsForEachAddress(t *testing.T) {
	ps, addrs := threeProcesses(t)
	// p1 alone answers, and has no leader: p2 is gone, p3 is frozen.
	ps[1].kill()
	freeze(t, ps[2])
	until(t, "p1 has no leader", func() bool { return leads(t, addrs[0]) == "" })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := client.New([]string{addrs[2], addrs[1], addrs[0]}, client.WithRetryFor(8*time.Second))
	_, err := c.Raw().Sweeps.ListSweeps(ctx, connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	if client.ExitCode(err) != client.ExitNoLeader {
		t.Errorf("exit code %d", client.ExitCode(err))
	}
	text := client.Message(err)
	for _, want := range []string{"no leader: 1 of 3 coordinators is up (p1 up; p2: connection refused; p3: connects, does not answer); 2 are needed"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in: %s", want, text)
		}
	}
	if strings.Contains(text, "bootstrap") || strings.Contains(text, "no coordinator answers") {
		t.Errorf("it takes the cluster for none: %s", text)
	}
}
