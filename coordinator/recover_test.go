package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
)

func recoverProcess(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"recover"}, args...)...)
	cmd.Env = append(os.Environ(), "COORDINATOR_PROCESS=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Two of three coordinators are lost for good; the third goes on alone. What
// comes back of the old cluster stays out, its workers are taken over.
func TestRecoverOfALostMajority(t *testing.T) {
	dir := t.TempDir()
	a := three(t, dir, "a")
	sw := raw(direct(a["a2"].at.API)).Create(t, spec(2, 1))
	before := clusterID(t, a["a1"].at.API)
	data := filepath.Join(dir, "a2")
	until(t, "a2 has the sweep", func() bool {
		resp, err := direct(a["a2"].at.API).Raw().Cluster.GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{}))
		leader, err2 := direct(a["a2"].at.API).Raw().Cluster.GetStatus(background(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
		return err == nil && err2 == nil && resp.Msg.AppliedIndex > 0 && resp.Msg.LastLogIndex >= leader.Msg.CommitIndex
	})
	if out, code := recoverProcess(t, "--data", data, "--yes"); code != 1 || !strings.Contains(out, "in use") {
		t.Errorf("a folder in use: exit %d, %s", code, out)
	}
	for _, p := range a {
		p.kill()
	}
	if out, code := recoverProcess(t, "--data", filepath.Join(dir, "nowhere"), "--yes"); code != 1 || !strings.Contains(out, "not a data folder") {
		t.Errorf("no folder: exit %d, %s", code, out)
	}
	out, code := recoverProcess(t, "--data", data)
	if code != 1 || !strings.Contains(out, "nothing was changed: confirm with --yes") {
		t.Errorf("without a word: exit %d, %s", code, out)
	}
	for _, want := range []string{before, "a1 ", "a3 ", "newest entry", "1 sweeps", "is lost"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said\n%s", want, out)
		}
	}
	for range 2 { // again, as after one that was cut short
		if out, code = recoverProcess(t, "--data", data, "--yes"); code != 0 {
			t.Fatalf("recover: exit %d, %s", code, out)
		}
	}
	p := startProcess(t, dir, "a2")
	untilVoters(t, p.at.API, "a2")
	after := clusterID(t, p.at.API)
	if after == before || !strings.Contains(out, after) {
		t.Errorf("cluster %s, was %s\n%s", after, before, out)
	}
	raw(direct(p.at.API)).Sweep(t, sw.Id)

	// A worker of the old cluster goes on; one of another is turned away.
	beat := func(cluster string) (*atelierv1.HeartbeatResponse, error) {
		resp, err := direct(p.at.API).Raw().Workers.Heartbeat(background(t), connect.NewRequest(&atelierv1.HeartbeatRequest{ClusterId: cluster,
			Worker: &atelierv1.Worker{Name: "w1", Incarnation: "i", Trainers: []string{"sim"}}}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	if resp, err := beat(before); err != nil || resp.Cluster.GetId() != after || !slices.Contains(resp.Cluster.GetFormerIds(), before) {
		t.Errorf("a worker of the old cluster: %v, %v", resp, err)
	}
	_, err := beat("c-another")
	wantCode(t, "a worker of another cluster", err, connect.CodeUnavailable, "belongs to cluster c-another")

	// The others are back with their folders, and are a cluster of their own.
	a1 := startProcess(t, dir, "a1", "--join", p.at.Gossip)
	a3 := startProcess(t, dir, "a3", "--join", p.at.Gossip)
	until(t, "they know why a2 is not one of theirs", func() bool {
		return strings.Contains(a1.log.String()+a3.log.String(), "which was recovered as cluster "+after)
	})
	untilVoters(t, p.at.API, "a2")
	untilVoters(t, a1.at.API, "a1", "a2", "a3")
	if got := clusterID(t, a1.at.API); got != before {
		t.Errorf("the old members are in cluster %s, were in %s", got, before)
	}
	// Emptied, one joins.
	a3.kill()
	launchProcess(t, dir, "a3", "a3-emptied", "--join", p.at.Gossip)
	untilVoters(t, p.at.API, "a2", "a3")
}
