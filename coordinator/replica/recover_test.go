package replica

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// A node was killed while a leader's snapshot was installed over entries of its
// own that were never committed. Recovered, it has what the snapshot holds, and
// not those entries on top.
func TestRecoverAfterAnUnfinishedInstallation(t *testing.T) {
	dir := t.TempDir()
	open := func() *Node {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		id := Identity{ClusterID: "test"}
		if have, err := ReadIdentity(dir); err == nil && have.ClusterID != "" {
			id = have
		}
		n, err := Open(Config{ID: "n1", DataDir: dir, Listener: l, Bootstrap: true, ClusterID: id.ClusterID, Machine: state.New(), HeartbeatTimeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	member := func(id string) *logv1.Command {
		return &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: id, RaftAddress: "r"}}}
	}
	propose := func(n *Node, c *logv1.Command) {
		t.Helper()
		for {
			_, err := n.Propose(ctx, c)
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	n := open()
	for _, id := range []string{"m1", "m2", "never-committed-1", "never-committed-2"} {
		propose(n, member(id))
	}
	last := n.raft.LastIndex()
	configuration := n.raft.GetConfiguration().Configuration()
	if err := n.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	// What came of the leader of a later term: other entries at the same indexes.
	leader := state.New()
	leader.Apply(1, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: "n1", RaftAddress: "r", ClusterId: "test"}}}}})
	leader.Apply(last-1, &logv1.Entry{Commands: []*logv1.Command{member("committed")}})
	_, nowhere := raft.NewInmemTransport("r")
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, raftLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	sink, err := snapshots.Create(1, last-1, 99, configuration, 1, nowhere)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leader.View().WriteTo(sink); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, cleanStop)); err != nil {
		t.Fatal(err)
	}

	s, err := Examine(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	if found.Index != last-1 || found.Term != 99 || found.State.Hash() != leader.View().Hash() {
		t.Errorf("found index %d of term %d, members %v", found.Index, found.Term, found.State.Members())
	}
	if err := s.Recover("c-2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n = open()
		propose(n, member("afterwards"))
		v := n.machine.View()
		for id, there := range map[string]bool{"n1": true, "afterwards": true, "m1": false, "never-committed-1": false, "never-committed-2": false} {
			if _, ok := v.Member(id); ok != there {
				t.Errorf("member %s: %v", id, ok)
			}
		}
		if err := n.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
