package replica_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"atelier/coordinator/replica"
)

func TestMembersComeAndGo(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.write(createSweep("s-a"))
	leader := c.leader()
	gone := c.follower()
	c.stop(gone.id)

	// It comes back elsewhere.
	moved := c.start(gone.id, "", false)
	if err := leader.AddMember(c.ctx(), moved.id, moved.addr); err != nil {
		t.Fatal(err)
	}
	c.agree()
	if list := leader.Configuration(); len(list) != 3 || !slices.Contains(list, replica.Server{ID: moved.id, Address: moved.addr, Voter: true}) {
		t.Errorf("configuration %v, want %s voting at %s", list, moved.id, moved.addr)
	}

	// Removed, it counts no more: two of two go on.
	if err := leader.RemoveMember(c.ctx(), moved.id); err != nil {
		t.Fatal(err)
	}
	if err := leader.RemoveMember(c.ctx(), moved.id); err == nil {
		t.Error("removed twice")
	}
	c.stop(moved.id)
	c.write(createSweep("s-b"))

	// A new node with a new id takes the place.
	fresh := c.start("n4", "", false)
	if err := leader.AddMember(c.ctx(), "n4", fresh.addr); err != nil {
		t.Fatal(err)
	}
	c.agree()

	// A node that cannot be reached stays without a vote and hinders nobody.
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := leader.AddMember(ctx, "n5", "127.0.0.1:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an unreachable member: %v", err)
	}
	if list := leader.Configuration(); !slices.Contains(list, replica.Server{ID: "n5", Address: "127.0.0.1:1"}) {
		t.Errorf("configuration %v, want n5 without a vote", list)
	}
	if err := leader.RemoveMember(c.ctx(), "n5"); err != nil {
		t.Error(err)
	}
	c.write(createSweep("s-c"))
	if err := fresh.AddMember(c.ctx(), "n6", "127.0.0.1:1"); !isNotLeader(err) {
		t.Errorf("a follower added a member: %v", err)
	}
}
