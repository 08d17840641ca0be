package replica_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// copyFolder copies what a killed process leaves behind.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func snapshotsIn(t *testing.T, dir string) (whole, halves []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			halves = append(halves, e.Name())
		} else {
			whole = append(whole, e.Name())
		}
	}
	return whole, halves
}

// TestKilledWhileASnapshotIsInstalled puts a node's folder into each state that a
// kill in the middle of InstallSnapshot leaves: it starts, comes to have what the
// others have, and does so again after another restart.
func TestKilledWhileASnapshotIsInstalled(t *testing.T) {
	for _, store := range []replica.LogStore{replica.RaftWAL, replica.RaftBoltDB} {
		t.Run(string(store), func(t *testing.T) {
			c := newCluster(t, 3, func(cfg *replica.Config) {
				cfg.LogStore = store
				cfg.SnapshotThreshold = 40
				cfg.SnapshotInterval = 20 * time.Millisecond
				cfg.TrailingLogs = 5
			})
			for i := range 20 {
				c.write(createSweep(fmt.Sprintf("a-%d", i)))
			}
			c.agree()
			lagging := c.stop(c.follower().id)
			dir := filepath.Join(c.dir, lagging.id)
			before := filepath.Join(c.dir, "before")
			copyFolder(t, dir, before)
			if err := os.Remove(filepath.Join(before, "clean-stop")); err != nil { // it is killed, not stopped
				t.Fatal(err)
			}
			for i := range 200 {
				c.write(createSweep(fmt.Sprintf("b-%d", i)))
			}
			leader := c.leader()
			c.eventually("a snapshot beyond what the node has", func() bool { return leader.Stats().SnapshotIndex > 150 })
			// What the leader would send: its newest snapshot, in the form in which
			// raft puts it into a folder.
			from := filepath.Join(c.dir, leader.id)
			whole, _ := snapshotsIn(t, from)
			sent := whole[0]
			for _, name := range whole {
				if name > sent {
					sent = name
				}
			}
			source := filepath.Join(c.dir, "sent")
			copyFolder(t, filepath.Join(from, "snapshots", sent), source)
			body, err := os.ReadFile(filepath.Join(source, "state.bin"))
			if err != nil {
				t.Fatal(err)
			}
			steps := []struct {
				name string
				make func()
			}{
				{"nothing came yet", func() {}},
				{"half of it came", func() {
					half := filepath.Join(dir, "snapshots", sent+".tmp")
					copyFolder(t, source, half)
					os.WriteFile(filepath.Join(half, "state.bin"), body[:len(body)/2], 0o600)
				}},
				{"it has its name, the log before it is still there", func() {
					copyFolder(t, source, filepath.Join(dir, "snapshots", sent))
				}},
			}
			for _, step := range steps {
				copyFolder(t, before, dir)
				step.make()
				c.start(lagging.id, lagging.addr, false)
				c.agree()
				c.write(createSweep(fmt.Sprintf("after-%x", sha256.Sum256([]byte(step.name)))[:20]))
				c.agree()
				if _, halves := snapshotsIn(t, dir); len(halves) > 1 {
					t.Errorf("%s: left behind: %v", step.name, halves)
				}
				c.stop(lagging.id)
				c.start(lagging.id, lagging.addr, false)
				c.agree()
				if t.Failed() {
					t.Fatalf("killed when %s", step.name)
				}
				c.stop(lagging.id)
			}
			c.start(lagging.id, lagging.addr, false)
			if len(c.fatals) > 0 {
				t.Errorf("%v", c.fatals)
			}
		})
	}
}

// TestLeaderDiesInARestore stops the leader after each step of a restore: the
// others, and it when it comes back, have one state, the one before or after the
// commit. What stays staged is gone with the next leader's word.
func TestLeaderDiesInARestore(t *testing.T) {
	c := newCluster(t, 3, func(cfg *replica.Config) {
		cfg.SnapshotThreshold = 8 // snapshots fall between the steps
		cfg.SnapshotInterval = 10 * time.Millisecond
		cfg.TrailingLogs = 2
	})
	c.write(createSweep("s-kept"))
	var stream bytes.Buffer
	if _, err := c.leader().machine.View().WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(stream.Bytes())
	for step := range 4 {
		id, later := fmt.Sprint("r-", step), fmt.Sprint("s-later-", step)
		c.write(createSweep(later))
		leader := c.leader()
		half := stream.Len() / 2
		commands := []*logv1.Command{
			{Op: &logv1.Command_BeginRestore{BeginRestore: &logv1.BeginRestore{Id: id, Bytes: int64(stream.Len()), Sha256: sum[:], Format: state.StreamFormat}}},
			{Op: &logv1.Command_StageRestore{StageRestore: &logv1.StageRestore{Id: id, Data: stream.Bytes()[:half]}}},
			{Op: &logv1.Command_StageRestore{StageRestore: &logv1.StageRestore{Id: id, Offset: int64(half), Data: stream.Bytes()[half:]}}},
			{TimeMs: 1, Op: &logv1.Command_CommitRestore{CommitRestore: &logv1.CommitRestore{Id: id}}},
		}
		for _, cmd := range commands[:step+1] {
			if r, err := leader.Propose(c.ctx(), cmd); err != nil || r.Err != nil {
				t.Fatal(err, r.Err)
			}
		}
		c.stop(leader.id)
		next := c.leader()
		if staged := next.machine.View().Staging(); (staged != "") != (step < 3) {
			t.Errorf("step %d: staged under the next leader is %q", step, staged)
		}
		c.start(leader.id, leader.addr, false)
		c.agree()
		if err := c.leader().DropStaged(c.ctx()); err != nil {
			t.Fatal(err)
		}
		done, err := c.leader().RestoreOutcome(c.ctx(), id)
		if (err == nil) != (step == 3) || (done.Index > 0) != (step == 3) {
			t.Errorf("step %d: asked for the outcome: %+v, %v", step, done, err)
		}
		c.write(createSweep(fmt.Sprint("s-after-", step)))
		c.agree()
		for _, m := range c.nodes {
			if _, there := m.machine.View().Sweep(later); there != (step < 3) || m.machine.View().Staging() != "" {
				t.Errorf("step %d: %s has %s: %v, staged %q", step, m.id, later, there, m.machine.View().Staging())
			}
		}
	}
}
