package replica_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/coordinator/replica"
)

// TestOneFullDisk fills the disk of one node of three. As a follower it takes no
// commands and the others go on; with leadership it hands it over; with room
// again it catches up by itself. Alone with a full disk, a leader refuses.
func TestOneFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	mounted := ""
	c := newCluster(t, 3, func(cfg *replica.Config) {
		if cfg.ID != "n3" || mounted != "" {
			return
		}
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", cfg.DataDir, "tmpfs", 0, "size=260m"); err != nil {
			t.Skipf("mount a tmpfs: %v", err)
		}
		mounted = cfg.DataDir
		t.Cleanup(func() { syscall.Unmount(mounted, syscall.MNT_DETACH) })
	})
	ballast := filepath.Join(mounted, "ballast")
	full := func() {
		t.Helper()
		if err := os.WriteFile(ballast, make([]byte, 190<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		c.eventually("the node knows that its disk is full", func() bool {
			room := c.nodes["n3"].Stats().Room
			return room.Full() && room.Free < room.Need/2 // not half-way through the ballast
		})
	}
	n3 := c.nodes["n3"]
	c.eventually("another leads", func() bool {
		if n3.IsLeader() {
			n3.Transfer(c.ctx(), "")
		}
		return c.leader().id != "n3"
	})
	c.write(createSweep("s-before"))
	c.agree()

	full()
	heard := func() bool {
		for _, p := range c.leader().Stats().Peers {
			if p.ID == "n3" {
				return p.Room.Full() && p.Room.Free < p.Room.Need/2 && p.Room.Node == "n3"
			}
		}
		return false
	}
	c.eventually("the leader has heard of it", heard)
	for i := range 20 { // more than the few that it still takes
		big := createSweep(fmt.Sprintf("s-%d", i))
		big.GetCreateSweep().SpecYaml = strings.Repeat("x", 900<<10)
		c.write(big)
	}
	time.Sleep(300 * time.Millisecond)
	if has, all := len(n3.machine.View().Sweeps()), len(c.leader().machine.View().Sweeps()); has == all {
		t.Errorf("a node with a full disk took all of %d sweeps", all)
	}
	if id, _ := n3.Leader(); id == "" {
		t.Error("it has lost its leader")
	}
	os.Remove(ballast)
	c.agree()

	// It leads, and gives that up to those that have room.
	c.eventually("it leads with a full disk, and hands over", func() bool {
		if leader := c.leader(); leader.id != "n3" {
			os.Remove(ballast)
			c.agree()
			leader.Transfer(c.ctx(), "n3")
			return false
		}
		full()
		c.eventually("another leads", func() bool { return c.leader().id != "n3" })
		return true
	})
	os.Remove(ballast)
	c.agree()

	// With one of the others gone there is no majority with room.
	for _, id := range []string{"n1", "n2"} {
		if c.leader().id != id {
			c.stop(id)
			break
		}
	}
	full()
	var noSpace *replica.NoSpaceError
	c.eventually("writes are refused", func() bool {
		ctx, cancel := context.WithTimeout(c.ctx(), time.Second) // one proposed before the leader knew waits
		defer cancel()
		_, err := c.leader().Propose(ctx, createSweep("s-refused"))
		return errors.As(err, &noSpace)
	})
	if !strings.Contains(noSpace.Error(), "n3 has") || c.leader().Stats().Refusing == "" {
		t.Errorf("refused with %v", noSpace)
	}
	if err := c.leader().VerifyLeader(c.ctx()); err != nil {
		t.Errorf("reads: %v", err)
	}
	os.Remove(ballast)
	c.write(createSweep("s-after"))
}
