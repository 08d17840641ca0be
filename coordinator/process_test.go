package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/member"
)

type process struct {
	cmd   *exec.Cmd
	at    member.Addresses
	log   *syncBuffer
	ended chan struct{} // closed once it has; err is set by then
	err   error
}

// launch starts this program as a process of its own. It alone waits for its end:
// of two calls of exec.Cmd.Wait at once one may never return.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{log: &syncBuffer{}, ended: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), "COORDINATOR_PROCESS=1")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(p.kill)
	return p
}

// wait returns how the process ended.
func (p *process) wait() error { <-p.ended; return p.err }

func (p *process) kill() { p.cmd.Process.Kill(); p.wait() }

// term asks it to end and gives it a minute.
func (p *process) term(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.ends(t, "asked to end")
}

func (p *process) gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// ends waits until it has ended and returns its exit code.
func (p *process) ends(t *testing.T, what string) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(60 * time.Second):
		t.Fatalf("%s: it does not end\n%s", what, p.log)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		t.Fatal(p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// startProcess starts this program as a process of its own and waits for its
// address file.
func startProcess(t *testing.T, dir, id string, flags ...string) *process {
	t.Helper()
	file := filepath.Join(dir, id+".json")
	os.Remove(file)
	p := launch(t, append([]string{"--id", id, "--data", filepath.Join(dir, id), "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0",
		"--gossip", "127.0.0.1:0", "--address-file", file}, flags...)...)
	until(t, id+" writes its address file", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(b, &p.at) == nil
	})
	if p.at.ID != id || p.at.PID != p.cmd.Process.Pid || p.at.API == "" || p.at.Raft == "" || p.at.Gossip == "" {
		t.Fatalf("address file %+v", p.at)
	}
	return p
}

func TestProcessesTermAndKill(t *testing.T) {
	dir := t.TempDir()
	ps := map[string]*process{}
	ps["p1"] = startProcess(t, dir, "p1", "--bootstrap")
	seed := ps["p1"].at.Gossip
	ps["p2"] = startProcess(t, dir, "p2", "--join", seed)
	ps["p3"] = startProcess(t, dir, "p3", "--join", seed)
	c := client.New([]string{ps["p1"].at.API, ps["p2"].at.API, ps["p3"].at.API})
	leader := func() string {
		resp, err := c.Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range resp.Msg.Members {
			if m.Suffrage != "voter" {
				return ""
			}
		}
		if len(resp.Msg.Members) != 3 {
			return ""
		}
		return resp.Msg.LeaderId
	}
	until(t, "three voters", func() bool { return leader() != "" })
	sw := raw(c).Create(t, spec(3, 3))

	// SIGTERM: leadership is handed over, the process ends with 0.
	first := leader()
	if err := ps[first].cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	raw(c).Sweep(t, sw.Id)
	handed := time.Since(began)
	if err := ps[first].wait(); err != nil {
		t.Errorf("SIGTERM ended %s with %v\n%s", first, err, ps[first].log)
	}
	t.Logf("leader asked to end: next answer after %v, gone after %v", handed, time.Since(began))
	if d := time.Since(began); d > 40*time.Second {
		t.Errorf("it took %v to end", d)
	}
	ps[first] = startProcess(t, dir, first)
	until(t, "it is back", func() bool {
		l := leader()
		return l != "" && l != first
	})
	if ps[first].at.PID == 0 {
		t.Fatal("no process")
	}

	// SIGKILL: the others elect; the killed one comes back with its state.
	second := leader()
	ps[second].kill()
	began = time.Now()
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	t.Logf("leader killed: next heartbeat answered after %v", time.Since(began))
	a.Work(sw.Id)
	ps[second] = startProcess(t, dir, second)
	until(t, "all processes have one state", func() bool {
		seen := map[string]bool{}
		for _, p := range ps {
			resp, err := client.New(nil).Raw().Node(p.at.API).GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{Hash: true}))
			if err != nil {
				return false
			}
			seen[fmt.Sprint(resp.Msg.AppliedIndex, resp.Msg.StateHash)] = true
		}
		return len(seen) == 1
	})
	if s := raw(c).Sweep(t, sw.Id); s.Counts.Finished != 3 {
		t.Errorf("sweep %v", s.Counts)
	}
}
