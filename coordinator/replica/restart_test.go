package replica_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

func TestRestartFromDisk(t *testing.T) {
	for _, store := range []replica.LogStore{replica.RaftWAL, replica.RaftBoltDB} {
		t.Run(string(store), func(t *testing.T) {
			c := newCluster(t, 1, func(cfg *replica.Config) {
				cfg.LogStore = store
				cfg.SnapshotThreshold = 50
				cfg.SnapshotInterval = 20 * time.Millisecond
				cfg.TrailingLogs = 10
			})
			first := c.leader()
			if first.HasState() {
				t.Error("a new node has a state")
			}
			for i := range 120 {
				c.write(createSweep(fmt.Sprintf("s-%d", i)))
			}
			want := first.machine.View()
			c.stop("n1")
			again := c.start("n1", "", true) // another port, too
			if !again.HasState() {
				t.Error("a node with a log has no state")
			}
			c.leader()
			if got := again.machine.View(); got.Hash() != want.Hash() || len(got.Sweeps()) != 120 {
				t.Errorf("index %d with %d sweeps, was %d", got.Index(), len(got.Sweeps()), want.Index())
			}
			c.eventually("the new address in the configuration", func() bool {
				list := again.Configuration()
				return len(list) == 1 && list[0].Address == again.addr
			})
		})
	}
}

// TestLaggingNodeGetsASnapshot keeps a node away until the log it needs is gone.
// With raft-wal, entries before the first index can still be read until their
// 64 MiB segment goes, so that the test would need more than that.
func TestLaggingNodeGetsASnapshot(t *testing.T) {
	c := newCluster(t, 3, func(cfg *replica.Config) {
		cfg.LogStore = replica.RaftBoltDB
		cfg.SnapshotThreshold = 40
		cfg.SnapshotInterval = 20 * time.Millisecond
		cfg.TrailingLogs = 5
	})
	lagging := c.stop(c.follower().id)
	for i := range 200 {
		c.write(createSweep(fmt.Sprintf("s-%d", i)))
	}
	leader := c.leader()
	c.eventually("a snapshot beyond what the node has", func() bool { return leader.Stats().SnapshotIndex > 150 })
	back := c.start(lagging.id, lagging.addr, false)
	c.agree()
	if got := back.Stats().Restores; got < 1 {
		t.Errorf("%d snapshots restored: the node was to be brought up by one", got)
	}
}

func TestSaveAndRestoreSnapshot(t *testing.T) {
	c := newCluster(t, 3, nil)
	for _, id := range []string{"n1", "n2", "n3"} {
		c.write(member1(id))
	}
	c.write(createSweep("s-kept"))
	var saved bytes.Buffer
	if err := c.leader().SaveSnapshot(c.ctx(), &saved); err != nil {
		t.Fatal(err)
	}
	c.write(createSweep("s-later"))
	sub := c.follower().Subscribe(16)

	leader := c.leader()
	broken := bytes.Clone(saved.Bytes())
	if _, err := leader.RestoreSnapshot(c.ctx(), "r-1", bytes.NewReader(broken[:len(broken)/2])); err == nil {
		t.Fatal("half a snapshot was restored")
	}
	if _, ok := leader.machine.View().Sweep("s-later"); !ok {
		t.Fatal("a refused snapshot changed the state")
	}
	if _, err := c.follower().RestoreSnapshot(c.ctx(), "r-1", bytes.NewReader(broken)); !isNotLeader(err) {
		t.Errorf("a follower restored a snapshot: %v", err)
	}
	done, err := leader.RestoreSnapshot(c.ctx(), "r-1", bytes.NewReader(broken))
	if err != nil || !done.File.Checked || done.Index == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if again, err := leader.RestoreOutcome(c.ctx(), "r-1"); err != nil || again.Index != done.Index {
		t.Errorf("asked for the outcome: %+v, %v", again, err)
	}
	if _, err := leader.RestoreOutcome(c.ctx(), "r-2"); !errors.Is(err, replica.ErrNotRestored) {
		t.Errorf("asked what became of one that never was: %v", err)
	}
	c.agree()
	for _, m := range c.nodes {
		v := m.machine.View()
		_, kept := v.Sweep("s-kept")
		_, later := v.Sweep("s-later")
		if !kept || later || len(v.Members()) != 3 {
			t.Errorf("%s: kept %v, later %v, members %v", m.id, kept, later, v.Members())
		}
	}
	c.eventually("the subscription is told", func() bool {
		for {
			select {
			case changes := <-sub.C:
				for _, change := range changes {
					if change.Kind == state.Restored {
						return true
					}
				}
			default:
				return false
			}
		}
	})
	c.write(createSweep("s-after"))

	// Into another cluster, whose members stay its own.
	other := newCluster(t, 1, nil)
	other.write(member1("n1"))
	if _, err := other.leader().RestoreSnapshot(other.ctx(), "r-1", &saved); err != nil {
		t.Fatal(err)
	}
	v := other.leader().machine.View()
	if _, ok := v.Sweep("s-kept"); !ok || len(v.Members()) != 1 {
		t.Errorf("members %v, sweeps %v", v.Members(), v.Sweeps())
	}
	want := v.Hash()
	other.stop("n1")
	other.start("n1", "", true)
	if other.leader().machine.View().Hash() != want {
		t.Error("after a restart the restored state is another")
	}
}

// TestFolderBelongsToOneNode: another id or another log store
// in the same folder is refused with words that help.
func TestFolderBelongsToOneNode(t *testing.T) {
	c := newCluster(t, 1, nil)
	dir := filepath.Join(c.dir, "n1")
	open := func(id string, store replica.LogStore) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n, err := replica.Open(replica.Config{ID: id, DataDir: dir, Listener: l, Bootstrap: true, ClusterID: "test", Machine: state.New(), LogStore: store})
		if err == nil {
			n.Shutdown(c.ctx())
		}
		l.Close()
		return err
	}
	c.stop("n1")
	if err := open("n2", replica.RaftWAL); err == nil || !strings.Contains(err.Error(), `is of node "n1"`) {
		t.Errorf("another node's folder: %v", err)
	}
	if err := open("n1", replica.RaftBoltDB); err == nil || !strings.Contains(err.Error(), "raft-wal") {
		t.Errorf("another log store's folder: %v", err)
	}
	if err := open("n1", replica.RaftWAL); err != nil {
		t.Errorf("its own folder: %v", err)
	}
	if err := open("n1", "sqlite"); err == nil {
		t.Error("an invalid log store was accepted")
	}
}
