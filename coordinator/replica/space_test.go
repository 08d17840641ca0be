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
	peer := func() (p replica.PeerStats) {
		for _, p = range c.leader().Stats().Peers {
			if p.ID == "n3" {
				return p
			}
		}
		return p
	}
	c.eventually("the leader has heard of it", func() bool {
		p := peer()
		return p.Room.Full() && p.Room.Free < p.Room.Need/2 && p.Room.Node == "n3"
	})
	// It answers as a follower and takes nothing. On a busy machine it may lead for a
	// moment, and does take what it proposes itself: then once more.
	sweeps := 0
	c.eventually("a node with a full disk takes no more than the few that it still does", func() bool {
		for range 20 {
			big := createSweep(fmt.Sprintf("s-%d", sweeps))
			big.GetCreateSweep().SpecYaml = strings.Repeat("x", 900<<10)
			c.write(big)
			sweeps++
		}
		last := c.leader().Stats().LastLogIndex
		var heard time.Time
		for beats := 0; beats < 5; {
			if p := peer(); p.Contact.After(heard) {
				heard = p.Contact
				beats++
			}
			if c.leader().id == "n3" {
				return false
			}
			time.Sleep(time.Millisecond)
		}
		return peer().Match < last && len(n3.machine.View().Sweeps()) < len(c.leader().machine.View().Sweeps())
	})
	c.eventually("it has a leader", func() bool { id, _ := n3.Leader(); return id != "" })
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
