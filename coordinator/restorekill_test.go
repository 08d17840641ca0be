package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// tookPlace asks what became of a restore.
func (x *processes) tookPlace(id string) bool {
	x.t.Helper()
	var err error
	until(x.t, "an answer on restore "+id, func() bool {
		out := x.c.Raw().Cluster.RestoreSnapshot(background(x.t))
		out.Send(&atelierv1.SnapshotChunk{RestoreId: id, Inquire: true})
		_, err = out.CloseAndReceive()
		return err == nil || connect.CodeOf(err) == connect.CodeAborted
	})
	return err == nil
}

func parameter(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: a number from 1", name, text)
	}
	return n
}

// processes is a cluster of processes of their own.
type processes struct {
	t   *testing.T
	dir string
	ps  map[string]*process
	c   *client.Client
}

func startProcesses(t *testing.T, n int) *processes {
	t.Helper()
	x := &processes{t: t, dir: t.TempDir(), ps: map[string]*process{}}
	x.ps["p1"] = startProcess(t, x.dir, "p1", "--bootstrap")
	addrs := []string{x.ps["p1"].at.API}
	for i := 2; i <= n; i++ {
		id := fmt.Sprint("p", i)
		x.ps[id] = startProcess(t, x.dir, id, "--join", x.ps["p1"].at.Gossip)
		addrs = append(addrs, x.ps[id].at.API)
	}
	x.c = client.New(addrs)
	until(t, "every process votes", func() bool { return x.leader() != "" })
	return x
}

// leader returns the leader's id once every process has its vote.
func (x *processes) leader() string {
	resp, err := x.c.Raw().Cluster.ListMembers(background(x.t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
	if err != nil || len(resp.Msg.Members) != len(x.ps) {
		return ""
	}
	for _, m := range resp.Msg.Members {
		if m.Suffrage != "voter" {
			return ""
		}
	}
	return resp.Msg.LeaderId
}

func (x *processes) kill(id string) {
	x.ps[id].kill()
}

func (x *processes) restart(id string) { x.ps[id] = startProcess(x.t, x.dir, id) }

// agree waits until every process has the same state.
func (x *processes) agree() {
	x.t.Helper()
	var seen map[string][]string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		seen = map[string][]string{}
		for id, p := range x.ps {
			resp, err := client.New(nil).Raw().Node(p.at.API).GetNode(background(x.t), connect.NewRequest(&atelierv1.GetNodeRequest{Hash: true}))
			if err != nil {
				seen[err.Error()] = append(seen[err.Error()], id)
				continue
			}
			key := fmt.Sprint(resp.Msg.AppliedIndex, " ", resp.Msg.StateHash)
			seen[key] = append(seen[key], id)
		}
		if len(seen) == 1 && len(seen[""]) == 0 {
			for key := range seen {
				if strings.Contains(key, " ") && key[0] >= '0' && key[0] <= '9' {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the states differ, index and hash: %v", seen)
		}
	}
}

func (x *processes) has(sweep string) bool {
	x.t.Helper()
	var err error
	until(x.t, "an answer on sweep "+sweep, func() bool {
		_, err = x.c.Raw().Sweeps.GetSweep(background(x.t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: sweep}))
		return err == nil || connect.CodeOf(err) == connect.CodeNotFound
	})
	return err == nil
}

// TestKilledInARestore kills the leader, a follower and the single node at random
// moments of a restore. Each time all processes start again with one state, the
// restored one or the one before; what was submitted before is gone only with the
// restored state, and what is submitted afterwards stays. RESTORE_KILLS is how
// many moments, RESTORE_MB how large the state.
func TestKilledInARestore(t *testing.T) {
	kills, megabytes := parameter(t, "RESTORE_KILLS", 2), parameter(t, "RESTORE_MB", 3)
	for victim, size := range map[string]int{"leader": 3, "follower": 3, "single": 1} {
		t.Run(victim, func(t *testing.T) {
			x := startProcesses(t, size)
			filler := strings.Repeat("# nothing but bytes, as of a state that has grown\n", 18_000)
			var kept []string
			for at := 0; at < megabytes*1_000_000; at += len(filler) {
				kept = append(kept, raw(x.c).Create(t, spec(2, 1)+filler).Id)
			}
			file := raw(x.c).SaveState(t)
			if len(file) < megabytes*1_000_000 {
				t.Fatalf("the state has %d bytes", len(file))
			}
			began := time.Now()
			if _, err := raw(x.c).RestoreState(t, file); err != nil {
				t.Fatal(err)
			}
			whole := time.Since(began)
			t.Logf("a restore of %.1f MB takes %v", float64(len(file))/1e6, whole.Round(time.Millisecond))
			outcomes := map[string]int{}
			for i := range kills {
				before := raw(x.c).Create(t, spec(2, 1)).Id
				leader := ""
				until(t, "a leader", func() bool { leader = x.leader(); return leader != "" })
				target := leader
				for id := range x.ps {
					if victim == "follower" && id != leader {
						target = id
					}
				}
				answered, name := make(chan error, 1), fmt.Sprint("moment-", i)
				go func() {
					_, err := raw(x.c).RestoreNamed(t, file, name)
					answered <- err
				}()
				delay := time.Duration(rand.Int64N(int64(whole * 5 / 4)))
				var err error
				over := false
				if i == 0 {
					// The moment at which a restore that is not in the log is on the leader's disk.
					over, err = x.awaitSnapshot(target, answered)
				} else {
					time.Sleep(delay)
				}
				x.kill(target)
				x.restart(target)
				if !over {
					err = <-answered
				}
				x.agree()
				restored := !x.has(before)
				if took := x.tookPlace(name); took != restored {
					t.Errorf("moment %d, %v: restored %v, and asked for the outcome the answer is %v", i, delay, restored, took)
				}
				switch {
				case err == nil && !restored:
					t.Errorf("moment %d, %v: it was said to have taken place, and did not", i, delay)
				case connect.CodeOf(err) == connect.CodeAborted && restored:
					t.Errorf("moment %d, %v: it took place, and was said not to have: %v", i, delay, err)
				}
				answer := "ok"
				if err != nil {
					answer = connect.CodeOf(err).String()
				}
				outcomes[fmt.Sprintf("restored %v, answer %s", restored, answer)]++
				for _, id := range kept {
					if !x.has(id) {
						t.Errorf("moment %d, %v: sweep %s is in both states, and is gone", i, delay, id)
					}
				}
				after := raw(x.c).Create(t, spec(2, 1)).Id
				x.agree()
				if !x.has(after) {
					t.Errorf("moment %d, %v: sweep %s was acknowledged, and is gone", i, delay, after)
				}
				if t.Failed() {
					for id, p := range x.ps {
						t.Logf("%s:\n%s", id, p.log)
					}
					return
				}
			}
			t.Log(outcomes)
		})
	}
}

// awaitSnapshot returns when a process has a new snapshot on its disk, or when
// the restore was answered.
func (x *processes) awaitSnapshot(id string, answered chan error) (over bool, err error) {
	dir := filepath.Join(x.dir, id, "raft", "snapshots")
	names := func() string {
		entries, _ := os.ReadDir(dir)
		var all []string
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".tmp") {
				all = append(all, e.Name())
			}
		}
		return strings.Join(all, " ")
	}
	first := names()
	for {
		select {
		case err := <-answered:
			return true, err
		default:
		}
		if names() != first {
			return false, nil
		}
		time.Sleep(time.Millisecond)
	}
}
