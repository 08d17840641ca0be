package main

import (
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/exit"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/member"
)

// All coordinators come back at other addresses, in any order, each knowing the
// new gossip address of one other.
func TestAllCoordinatorsMove(t *testing.T) {
	dir := t.TempDir()
	a := three(t, dir, "a")
	sw := raw(direct(a["a1"].at.API)).Create(t, spec(2, 1))
	for range rounds(2) {
		for _, p := range a {
			p.kill()
		}
		ids := []string{"a1", "a2", "a3"}
		rand.Shuffle(3, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		ports := freePorts(t, 9)
		began := time.Now()
		for i, id := range ids {
			join := ports[3*((i+1+rand.IntN(2))%3)+2]
			a[id] = startProcess(t, dir, id, append([]string{"--join", join}, at(member.Addresses{API: ports[3*i], Raft: ports[3*i+1], Gossip: ports[3*i+2]})...)...)
		}
		until(t, "a leader", func() bool { return voters(t, a["a1"].at.API) != nil })
		t.Logf("a leader %v after the first was started, order %v", time.Since(began).Round(time.Millisecond), ids)
		until(t, "the new addresses are written down", func() bool {
			resp, err := direct(a["a2"].at.API).Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
			if err != nil {
				return false
			}
			for _, m := range resp.Msg.Members {
				if p := a[m.Id]; p == nil || m.RaftAddress != p.at.Raft || m.ApiAddress != p.at.API || m.GossipAddress != p.at.Gossip {
					return false
				}
			}
			return len(resp.Msg.Members) == 3
		})
		raw(direct(a["a3"].at.API)).Sweep(t, sw.Id)
	}
}

// A node without a leader says whom it cannot reach, and where.
func TestNoLeaderNamesTheMissing(t *testing.T) {
	dir := t.TempDir()
	a := three(t, dir, "a")
	a["a2"].kill()
	a["a3"].kill()
	says := func(text string) bool {
		return strings.Contains(text, "a2 at "+a["a2"].at.Raft+" (connect: connection refused)") && strings.Contains(text, "a3 at "+a["a3"].at.Raft) &&
			strings.Contains(text, "needs 2 of 3") && !strings.Contains(text, "--bootstrap")
	}
	plain := atelierv1connect.NewSweepServiceClient(http.DefaultClient, "http://"+a["a1"].at.API)
	var err error
	until(t, "it names a2 and a3", func() bool {
		_, err = plain.ListSweeps(background(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
		return err != nil && says(err.Error())
	})
	until(t, "healthz says the same", func() bool { // what is tried again meanwhile has no trouble for a moment
		resp, err := http.Get("http://" + a["a1"].at.API + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == http.StatusServiceUnavailable && says(string(b))
	})
}

// The process of a member that is removed is told and ends, and its folder does
// not come back: a running follower, one that is down, and the leader.
func TestRemovedCoordinatorIsTold(t *testing.T) {
	dir := t.TempDir()
	a := three(t, dir, "a")
	seed := func(not string) string {
		for id, p := range a {
			if id != not {
				return p.at.Gossip
			}
		}
		return ""
	}
	api := func(not string) string {
		for id, p := range a {
			if id != not {
				return p.at.API
			}
		}
		return ""
	}
	leader := func() string {
		var id string
		until(t, "a leader", func() bool {
			for _, p := range a {
				resp, err := direct(p.at.API).Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
				if err == nil && a[resp.Msg.LeaderId] != nil {
					id = resp.Msg.LeaderId
					return true
				}
			}
			return false
		})
		return id
	}
	follower := func() string {
		l := leader()
		for _, id := range []string{"a1", "a2", "a3", "a4", "a5"} {
			if a[id] != nil && id != l {
				return id
			}
		}
		return ""
	}
	remove := func(id, at string) {
		t.Helper()
		if _, err := direct(at).Raw().Cluster.RemoveMember(background(t), connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: id})); err != nil {
			t.Fatal(err)
		}
	}
	told := func(id string, p *process) {
		t.Helper()
		if code := p.ends(t, id+" is removed"); code != exit.Removed || strings.Count(p.log.String(), "was removed from cluster") != 1 {
			t.Errorf("%s ended with %d and should say once that it was removed\n%s", id, code, p.log)
		}
		again := launchProcess(t, dir, id, id, "--join", seed(id))
		if code := again.ends(t, id+" is started again"); code != exit.Removed || !strings.Contains(again.log.String(), "was removed from cluster") {
			t.Errorf("%s started again ended with %d\n%s", id, code, again.log)
		}
	}

	gone := follower()
	p := a[gone]
	delete(a, gone)
	remove(gone, api(""))
	told(gone, p)

	a["a4"] = startProcess(t, dir, "a4", "--join", seed(""))
	until(t, "a4 votes", func() bool { return slices.Contains(voters(t, a["a4"].at.API), "a4") })
	gone = leader()
	p = a[gone]
	remove(gone, p.at.API) // through itself
	delete(a, gone)
	told(gone, p)
	until(t, "two are left", func() bool { return len(voters(t, api(""))) == 2 })

	a["a5"] = startProcess(t, dir, "a5", "--join", seed(""))
	until(t, "a5 votes", func() bool { return slices.Contains(voters(t, a["a5"].at.API), "a5") })
	gone = follower()
	a[gone].kill()
	delete(a, gone)
	remove(gone, api(""))
	told(gone, launchProcess(t, dir, gone, gone))
	until(t, "two are left", func() bool { return len(voters(t, api(""))) == 2 })
}

// A folder of before clusters were written down beside the log knows its
// cluster by its own log, not by whoever answers first. testdata/before.tar.gz.gz
// is such a folder; a segment of its log is 64 MiB of zeros, packed twice.
func TestFolderOfBeforeAsksItsOwnLog(t *testing.T) {
	dir := t.TempDir()
	coordinatortest.Unpack(t, "testdata/before.tar.gz.gz", dir)
	b := startProcess(t, dir, "b1", "--bootstrap")
	other := clusterID(t, b.at.API)
	for range 2 {
		p := startProcess(t, dir, "c1", "--join", b.at.Gossip)
		if got := clusterID(t, p.at.API); got == other || got != "c-3nd4bfkd" {
			t.Fatalf("cluster %s; the other is %s", got, other)
		}
		untilVoters(t, p.at.API, "c1")
		untilVoters(t, b.at.API, "b1")
		if s := raw(direct(p.at.API)).Sweep(t, "s-ixdbsq24"); s.Name != "before" {
			t.Errorf("sweep %v", s)
		}
		p.term(t)
	}
}
