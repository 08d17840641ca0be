package api_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// What a node says of itself and of its cluster.
func TestNodeAndMembers(t *testing.T) {
	c := node.Start(t, node.Options{})
	c.Create(t, coordinatortest.Spec(2, 1))
	n := coordinatortest.Call(t, c.Cluster.GetNode, &atelierv1.GetNodeRequest{Hash: true})
	hash := c.Machine.View().Hash()
	if n.Id != node.ID || n.Role != "leader" || n.LeaderId != node.ID || n.LeaderApi != c.Addr || n.MemoryBytes < 1<<20 || n.FreeBytes == 0 ||
		n.AppliedIndex == c.Machine.View().Index() && n.StateHash != hex.EncodeToString(hash[:]) || len(n.StateHash) != 64 {
		t.Errorf("the node says %v", n)
	}
	m := coordinatortest.Call(t, c.Cluster.ListMembers, &atelierv1.ListMembersRequest{})
	if m.LeaderId != node.ID || m.ClusterId != n.ClusterId || len(m.Members) != 1 || !m.Members[0].Leader || !m.Members[0].Alive || m.Members[0].Suffrage != "voter" || m.Members[0].ApiAddress != c.Addr {
		t.Errorf("members %v", m)
	}
	if found, err := c.Server.AskMark(coordinatortest.Context(t), node.ID); err != nil || len(found.Hash) != 64 {
		t.Errorf("its mark: %+v, %v", found, err)
	}
	if _, err := c.Server.AskMark(coordinatortest.Context(t), "n9"); err == nil {
		t.Error("a node that is not there answered")
	}
	for path, wants := range map[string][]string{"/healthz": {"ok, leader n1"}, "/metrics": {"atelier_trials ", "atelier_applied_index ", "atelier_slowest_log_write_seconds ", "go_goroutines "}} {
		resp, err := http.Get("http://" + c.Addr + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for _, want := range wants {
			if resp.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
				t.Errorf("%s: %d lacks %q: %s", path, resp.StatusCode, want, text)
			}
		}
	}
}

// A node that may not join is told why, and nothing of it is written down.
func TestJoinIsRefused(t *testing.T) {
	c := node.Start(t, node.Options{})
	cluster := c.Machine.View().ClusterID()
	before := c.Machine.View().Members()
	req := func(change func(*atelierv1.JoinRequest)) *atelierv1.JoinRequest {
		r := &atelierv1.JoinRequest{Id: "n2", RaftAddress: "127.0.0.1:1", ApiAddress: "127.0.0.1:2", ClusterId: cluster}
		change(r)
		return r
	}
	join := c.Cluster.Join
	coordinatortest.Refused(t, "no address", join, req(func(r *atelierv1.JoinRequest) { r.ApiAddress = "" }), connect.CodeInvalidArgument, "needs an id, a raft and an API address")
	coordinatortest.Refused(t, "another cluster's", join, req(func(r *atelierv1.JoinRequest) { r.ClusterId = "c-other" }), connect.CodeFailedPrecondition, `belongs to cluster "c-other", this is cluster `+cluster)
	coordinatortest.Refused(t, "one that was removed", join, req(func(r *atelierv1.JoinRequest) { r.HasState = true }), connect.CodeFailedPrecondition, "n2 was removed from cluster "+cluster)
	if now := c.Machine.View().Members(); len(now) != len(before) {
		t.Errorf("members are %v", now)
	}
	coordinatortest.Refused(t, "no voter", c.Cluster.TransferLeadership, &atelierv1.TransferLeadershipRequest{Id: "n2"}, connect.CodeFailedPrecondition, `"n2" is not a voting member`)
	if r := coordinatortest.Call(t, c.Cluster.TransferLeadership, &atelierv1.TransferLeadershipRequest{Id: node.ID}); r.LeaderId != node.ID {
		t.Errorf("handed over to itself: %v", r)
	}
	coordinatortest.Refused(t, "to whom", c.Cluster.TransferLeadership, &atelierv1.TransferLeadershipRequest{}, connect.CodeUnavailable, "")
	coordinatortest.Refused(t, "the last voter", c.Cluster.RemoveMember, &atelierv1.RemoveMemberRequest{Id: node.ID}, connect.CodeFailedPrecondition, "the last voting member")
}

// A restore that nobody began is known by nobody; one without a body is no state.
func TestRestoresThatAreNone(t *testing.T) {
	c := node.Start(t, node.Options{})
	send := func(chunk *atelierv1.SnapshotChunk) error {
		out := c.Cluster.RestoreSnapshot(coordinatortest.Context(t))
		out.Send(chunk)
		_, err := out.CloseAndReceive()
		return err
	}
	coordinatortest.WantCode(t, "of no name", send(&atelierv1.SnapshotChunk{Inquire: true}), connect.CodeInvalidArgument, "no restore with the id")
	coordinatortest.WantCode(t, "of an unknown name", send(&atelierv1.SnapshotChunk{RestoreId: "r-9", Inquire: true}), connect.CodeAborted, "did not take place")
	coordinatortest.WantCode(t, "an empty one", send(&atelierv1.SnapshotChunk{}), connect.CodeInvalidArgument, "")
	file := c.SaveState(t)
	if _, err := c.RestoreNamed(t, file, "r-1"); err != nil {
		t.Fatal(err)
	}
	if err := send(&atelierv1.SnapshotChunk{RestoreId: "r-1", Inquire: true}); err != nil {
		t.Errorf("what became of r-1: %v", err)
	}
}
