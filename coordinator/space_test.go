package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// TestFullDisksOfAMajority fills the disks of two coordinators of three until a
// new segment of the log would not fit. Writes are refused, with words and a code
// that clients do not repeat; no process ends, reads go on, over a restart of the
// full ones too; with room again writes go on.
func TestFullDisksOfAMajority(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	for _, id := range []string{"p1", "p2", "p3"} {
		if err := os.Mkdir(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"p2", "p3"} {
		disk := filepath.Join(dir, id)
		if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=260m"); err != nil {
			t.Skipf("mount a tmpfs: %v", err)
		}
		t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	}
	ps := map[string]*process{"p1": startProcess(t, dir, "p1", "--bootstrap")}
	seed := ps["p1"].at.Gossip
	for _, id := range []string{"p2", "p3"} {
		ps[id] = startProcess(t, dir, id, "--join", seed)
	}
	connectAll := func() *client.Client {
		return client.New([]string{ps["p1"].at.API, ps["p2"].at.API, ps["p3"].at.API})
	}
	c := connectAll()
	until(t, "three voters", func() bool { return voterCount(t, c) == 3 })
	kept := raw(c).Create(t, spec(3, 3))
	for _, id := range []string{"p2", "p3"} { // 190 MiB, beside a segment of 64: some 6 are left
		fill(t, filepath.Join(dir, id, "ballast"), 190<<20)
	}

	// Up to 80 MiB of sweeps: more than a segment holds.
	var refusal error
	big := spec(1, 1) + "\n# " + strings.Repeat("x", 900<<10)
	for n := 0; n < 90 && refusal == nil; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, refusal = c.Raw().Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: fmt.Sprint("big-", n), SpecYaml: big}))
		cancel()
	}
	if connect.CodeOf(refusal) != connect.CodeResourceExhausted {
		t.Errorf("writes with two full disks: %v", refusal)
	}
	// One is enough to refuse while the other has not been heard of lately.
	until(t, "the refusal names both", func() bool {
		_, refusal = c.Raw().Sweeps.CreateSweep(background(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "both", SpecYaml: big}))
		return !slices.ContainsFunc([]string{"p2 has", "p3 has", "keeps 128", filepath.Join(dir, "p2"), "reads continue"}, func(words string) bool {
			return !strings.Contains(fmt.Sprint(refusal), words)
		})
	})
	alive := func() {
		t.Helper()
		for id, p := range ps {
			if _, err := client.New(nil).Raw().Node(p.at.API).GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{})); err != nil {
				t.Fatalf("%s has ended: %v\n%s", id, err, p.log)
			}
		}
		if s := raw(c).Sweep(t, kept.Id); s.Id != kept.Id {
			t.Errorf("read %v", s)
		}
	}
	alive()
	until(t, "the status says so", func() bool {
		status, err := c.Raw().Cluster.GetStatus(background(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
		return err == nil && strings.Contains(status.Msg.Refusing, "p2 has")
	})

	// All of them start again: the cluster elects and reads, and refuses writes.
	for id, p := range ps {
		p.kill()
		ps[id] = startProcess(t, dir, id)
	}
	c = connectAll()
	alive()
	until(t, "writes are refused again", func() bool {
		_, err := c.Raw().Sweeps.CreateSweep(background(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "again", SpecYaml: spec(1, 1)}))
		return connect.CodeOf(err) == connect.CodeResourceExhausted
	})

	for _, id := range []string{"p2", "p3"} {
		if err := os.Remove(filepath.Join(dir, id, "ballast")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "writes go on", func() bool {
		_, err := c.Raw().Sweeps.CreateSweep(background(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: "after", SpecYaml: spec(1, 1)}))
		return err == nil
	})
	alive()
}

func voterCount(t *testing.T, c *client.Client) (n int) {
	resp, err := c.Raw().Cluster.ListMembers(background(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
	if err != nil {
		return 0
	}
	for _, m := range resp.Msg.Members {
		if m.Suffrage == "voter" {
			n++
		}
	}
	return n
}

func fill(t *testing.T, name string, bytes int) {
	t.Helper()
	if err := os.WriteFile(name, make([]byte, bytes), 0o600); err != nil {
		t.Fatal(err)
	}
}
