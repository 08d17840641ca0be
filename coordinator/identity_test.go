package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/common/exit"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/member"
)

// launchProcess starts a coordinator process and does not wait for anything.
func launchProcess(t *testing.T, dir, id, folder string, flags ...string) *process {
	t.Helper()
	return launch(t, append([]string{"--id", id, "--data", filepath.Join(dir, folder),
		"--api", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0"}, flags...)...)
}

// direct speaks to one coordinator alone.
func direct(api string) *client.Client {
	return client.New([]string{api}, client.WithoutFollowing(), client.WithRetryFor(time.Millisecond))
}

// voters are the ids of the voting members as the coordinator at api has them
// from its leader; nil while it has none.
func voters(t *testing.T, api string) []string {
	resp, err := direct(api).Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range resp.Msg.Members {
		if m.Suffrage == "voter" {
			out = append(out, m.Id)
		}
	}
	slices.Sort(out)
	return out
}

func untilVoters(t *testing.T, api string, ids ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%s says that %v vote", api, ids), func() bool { return slices.Equal(voters(t, api), ids) })
}

func clusterID(t *testing.T, api string) string {
	t.Helper()
	var id string
	until(t, "the cluster's id", func() bool {
		resp, err := direct(api).Raw().Cluster.GetStatus(background(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
		if err == nil {
			id = resp.Msg.ClusterId
		}
		return id != ""
	})
	return id
}

func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	var open []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, l)
		out = append(out, l.Addr().String())
	}
	for _, l := range open {
		l.Close()
	}
	return out
}

func at(p member.Addresses) []string {
	return []string{"--api", p.API, "--raft", p.Raft, "--gossip", p.Gossip}
}

// three starts a cluster of three processes under a prefix.
func three(t *testing.T, dir, prefix string) map[string]*process {
	t.Helper()
	ps := map[string]*process{}
	first := prefix + "1"
	ps[first] = startProcess(t, dir, first, "--bootstrap")
	untilVoters(t, ps[first].at.API, first)
	for _, n := range []string{"2", "3"} {
		ps[prefix+n] = startProcess(t, dir, prefix+n, "--join", ps[first].at.Gossip)
	}
	untilVoters(t, ps[first].at.API, prefix+"1", prefix+"2", prefix+"3")
	return ps
}

// rounds is how often something random is tried; ATELIER_ROUNDS says otherwise.
func rounds(few int) int {
	if n, err := strconv.Atoi(os.Getenv("ATELIER_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return few
}

// Two clusters know one another's gossip addresses. Whoever is started again,
// and in whatever order, stays in its own.
func TestRestartedCoordinatorsStayInTheirCluster(t *testing.T) {
	dir := t.TempDir()
	clusters := []map[string]*process{three(t, dir, "a"), three(t, dir, "b")}
	var ids, sweeps, seeds []string
	for _, c := range clusters {
		var api string
		for _, id := range slices.Sorted(keys(c)) {
			seeds = append(seeds, c[id].at.Gossip)
			api = c[id].at.API
		}
		ids = append(ids, clusterID(t, api))
		sweeps = append(sweeps, raw(direct(api)).Create(t, spec(2, 1)).Id)
	}
	for range rounds(2) {
		all := []string{"a1", "a2", "a3", "b1", "b2", "b3"}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, id := range all {
			c := clusters[id[0]-'a']
			c[id].kill()
			c[id] = startProcess(t, dir, id, "--join", strings.Join(seeds, ","))
		}
		for i, c := range clusters {
			prefix := string(rune('a' + i))
			for id, p := range c {
				untilVoters(t, p.at.API, prefix+"1", prefix+"2", prefix+"3")
				if got := clusterID(t, p.at.API); got != ids[i] {
					t.Fatalf("%s is in cluster %s, was in %s\n%s", id, got, ids[i], p.log)
				}
				if got := raw(direct(p.at.API)).Sweep(t, sweeps[i]); got.Id != sweeps[i] {
					t.Fatalf("%s has lost %s", id, sweeps[i])
				}
			}
		}
	}
	said := 0
	for _, c := range clusters {
		for _, p := range c {
			said += strings.Count(p.log.String(), "another cluster was refused")
		}
	}
	if said == 0 || said > 6*6 {
		t.Errorf("%d lines say that the other cluster's nodes were refused, want one a pair at most, and some", said)
	}
}

func keys(m map[string]*process) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// A new cluster is begun at the addresses of a member that is gone: under its
// id, and under another. The old cluster leaves it alone, and is left alone.
func TestNewClusterAtADeadMembersAddresses(t *testing.T) {
	for _, id := range []string{"a3", "x1"} {
		t.Run(id, func(t *testing.T) {
			dir := t.TempDir()
			a := three(t, dir, "a")
			sw := raw(direct(a["a1"].at.API)).Create(t, spec(2, 1))
			before := clusterID(t, a["a1"].at.API)
			a["a3"].kill()
			os.Mkdir(filepath.Join(dir, "new"), 0o755)
			x := startProcess(t, filepath.Join(dir, "new"), id, append([]string{"--bootstrap"}, at(a["a3"].at)...)...)
			other := clusterID(t, x.at.API)
			mine := raw(direct(x.at.API)).Create(t, spec(3, 1))
			until(t, "both clusters notice one another", func() bool {
				said := a["a1"].log.String() + a["a2"].log.String()
				return strings.Contains(said, "another cluster was refused") && strings.Contains(said, "a coordinator was not reached") && strings.Contains(x.log.String(), "a coordinator was refused") &&
					strings.Contains(x.log.String(), "in place of one that lost its data, stop it")
			})
			if got := clusterID(t, x.at.API); got != other || got == before {
				t.Errorf("the new cluster %s became %s; the old one is %s", other, got, before)
			}
			if v := voters(t, x.at.API); !slices.Equal(v, []string{id}) {
				t.Errorf("voters of the new cluster: %v", v)
			}
			// On a loaded machine the two that are left may have an election just now.
			until(t, "the old cluster has its three voters", func() bool {
				return slices.Equal(voters(t, a["a1"].at.API), []string{"a1", "a2", "a3"})
			})
			raw(direct(x.at.API)).Sweep(t, mine.Id)
			raw(direct(a["a2"].at.API)).Sweep(t, sw.Id)
			for name, p := range map[string]*process{"a1": a["a1"], "a2": a["a2"], "new": x} {
				if n := strings.Count(p.log.String(), "\n"); n > 80 {
					t.Errorf("%s wrote %d lines: a refusal is said once\n%s", name, n, p.log)
				}
			}
			// The member comes back elsewhere and is one again.
			back := startProcess(t, dir, "a3", append([]string{"--join", a["a1"].at.Gossip}, at(member.Addresses{API: freePorts(t, 1)[0], Raft: freePorts(t, 1)[0], Gossip: freePorts(t, 1)[0]})...)...)
			untilVoters(t, back.at.API, "a1", "a2", "a3")
		})
	}
}

// An id whose votes are elsewhere is not taken over by an empty folder.
func TestWipedFolderIsAnotherNode(t *testing.T) {
	dir := t.TempDir()
	a := three(t, dir, "a")
	seed := a["a1"].at.Gossip
	a["a3"].kill()
	p := launchProcess(t, dir, "a3", "wiped", "--bootstrap", "--join", seed)
	if code := p.ends(t, "--bootstrap beside a cluster"); code != 1 || !strings.Contains(p.log.String(), "would begin a second cluster") {
		t.Errorf("--bootstrap with --join: exit %d\n%s", code, p.log)
	}
	p = launchProcess(t, dir, "a3", "wiped", "--join", seed)
	if code := p.ends(t, "a wiped folder"); code != 1 || !strings.Contains(p.log.String(), "has a member a3 already") {
		t.Errorf("a wiped folder: exit %d\n%s", code, p.log)
	}
	// Once it is removed its name is free, for another folder only.
	c := client.New([]string{a["a1"].at.API, a["a2"].at.API})
	if _, err := c.Raw().Cluster.RemoveMember(background(t), connect.NewRequest(&atelierv1.RemoveMemberRequest{Id: "a3"})); err != nil {
		t.Fatal(err)
	}
	launchProcess(t, dir, "a3", "wiped", "--join", seed)
	untilVoters(t, a["a1"].at.API, "a1", "a2", "a3")
	p = launchProcess(t, dir, "a3", "a3", "--join", seed)
	if code := p.ends(t, "the old folder"); code != exit.Removed || !strings.Contains(p.log.String(), "was removed from cluster") {
		t.Errorf("the old folder: exit %d\n%s", code, p.log)
	}
	untilVoters(t, a["a1"].at.API, "a1", "a2", "a3")
}

// Two new coordinators of one name, started at once: one joins, one is told.
func TestTwoNewCoordinatorsOfOneName(t *testing.T) {
	dir := t.TempDir()
	a := startProcess(t, dir, "a1", "--bootstrap")
	untilVoters(t, a.at.API, "a1")
	twins := []*process{launchProcess(t, dir, "a2", "x", "--join", a.at.Gossip), launchProcess(t, dir, "a2", "y", "--join", a.at.Gossip)}
	gone := make(chan *process, 2)
	for _, p := range twins {
		go func() { p.wait(); gone <- p }()
	}
	var lost *process
	select {
	case lost = <-gone:
	case <-time.After(60 * time.Second):
		t.Fatalf("both run\n%s\n%s", twins[0].log, twins[1].log)
	}
	if code := lost.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(lost.log.String(), "choose another --id") {
		t.Errorf("exit %d\n%s", code, lost.log)
	}
	untilVoters(t, a.at.API, "a1", "a2")
	select {
	case <-gone:
		t.Errorf("the other one ended too\n%s\n%s", twins[0].log, twins[1].log)
	case <-time.After(2 * time.Second):
	}
	if n := strings.Count(a.log.String(), "\n"); n > 60 {
		t.Errorf("a1 wrote %d lines about it\n%s", n, a.log)
	}
}

// A node that belongs nowhere yet and is led to two clusters joins neither.
func TestNewNodeThatSeesTwoClustersStops(t *testing.T) {
	dir := t.TempDir()
	a, b := startProcess(t, dir, "a1", "--bootstrap"), startProcess(t, dir, "b1", "--bootstrap")
	ids := []string{clusterID(t, a.at.API), clusterID(t, b.at.API)}
	p := launchProcess(t, dir, "n1", "n1", "--join", a.at.Gossip+","+b.at.Gossip)
	if code := p.ends(t, "a node that sees two clusters"); code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, want := range append(ids, a.at.API, b.at.API) {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("%s is not named\n%s", want, p.log)
		}
	}
}
