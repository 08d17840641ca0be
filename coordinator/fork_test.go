package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// TestForkedReplicaEndsItself gives one coordinator of three another history: a
// letter of an acknowledged sweep's name in its log is changed, with all checksums
// made right, as a fault in memory before the log would have done. As a follower
// and as the leader it ends itself with words, and does not start again; the others
// go on.
func TestForkedReplicaEndsItself(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(map[bool]string{false: "follower", true: "leader"}[leads], func(t *testing.T) {
			dir := t.TempDir()
			flag := "--compare-every=500ms"
			ps := map[string]*process{"p1": startProcess(t, dir, "p1", "--bootstrap", flag)}
			for _, id := range []string{"p2", "p3"} {
				ps[id] = startProcess(t, dir, id, "--join", ps["p1"].at.Gossip, flag)
			}
			c := client.New([]string{ps["p1"].at.API, ps["p2"].at.API})
			until(t, "three voters", func() bool { return voterCount(t, c) == 3 })
			sw := raw(c).Create(t, strings.Replace(spec(3, 3), "name: test", "name: before-the-fork", 1))
			until(t, "all have it", func() bool {
				seen := map[string]bool{}
				for _, p := range ps {
					resp, err := client.New(nil).Raw().Node(p.at.API).GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{Hash: true}))
					if err != nil {
						return false
					}
					seen[resp.Msg.StateHash] = true
				}
				return len(seen) == 1
			})
			ps["p3"].kill()
			forge(t, filepath.Join(dir, "p3", "raft", "log"), "before-the-fork", "beside-the-fork")
			p3 := startProcess(t, dir, "p3", flag)
			if leads {
				until(t, "the forked one leads, or has ended", func() bool {
					ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
					defer cancel()
					resp, err := c.Raw().Cluster.TransferLeadership(ctx, connect.NewRequest(&atelierv1.TransferLeadershipRequest{Id: "p3"}))
					return err == nil && resp.Msg.LeaderId == "p3" || p3.gone()
				})
			}
			give := time.Now().Add(60 * time.Second)
			for n := 0; !p3.gone(); n++ {
				if time.Now().After(give) {
					t.Fatalf("a node with another state goes on\n%s", p3.log)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				c.Raw().Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: fmt.Sprint("more-", n), SpecYaml: spec(1, 1)}))
				cancel()
				time.Sleep(50 * time.Millisecond)
			}
			if p3.err == nil {
				t.Error("it ended with status 0")
			}
			for _, words := range []string{"p3 cannot continue", "is another than that of p1, p2", "its SHA-256 is", "cluster remove p3"} {
				if !strings.Contains(p3.log.String(), words) {
					t.Errorf("it did not say %q:\n%s", words, p3.log)
				}
			}
			if got := raw(c).Sweep(t, sw.Id); got.Name != "before-the-fork" {
				t.Errorf("the others answer %q", got.Name)
			}
			again := launchProcess(t, dir, "p3", "p3")
			if code := again.ends(t, "started again"); code == 0 || !strings.Contains(again.log.String(), "is another than that of p1, p2") {
				t.Errorf("started again it ends with %d and says\n%s", code, again.log)
			}
		})
	}
}

// forge replaces a text in the one command of a log that has it, and makes the
// entry's two checksums right (replica/checksum.go).
func forge(t *testing.T, dir, from, to string) {
	t.Helper()
	table := crc32.MakeTable(crc32.Castagnoli)
	files, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, []byte(from))
		if at < 0 {
			continue
		}
		for end := at; end < min(at+8192, len(b)-11); end++ {
			if b[end] != 10 || b[end+5] != 0x01 || b[end+10] != 0xC5 {
				continue
			}
			sum := binary.LittleEndian.Uint32(b[end+1:])
			for start := at; start > max(0, at-8192); start-- {
				if crc32.Checksum(b[start:end], table) != sum {
					continue
				}
				head := func(index, term uint64, extensions []byte) uint32 {
					var h [24]byte
					binary.LittleEndian.PutUint64(h[0:], index)
					binary.LittleEndian.PutUint64(h[8:], term)
					return crc32.Update(crc32.Checksum(h[:], table), table, extensions)
				}
				for index := uint64(1); index < 1000; index++ {
					for term := uint64(1); term < 50; term++ {
						if head(index, term, b[end+1:end+6]) != binary.LittleEndian.Uint32(b[end+6:]) {
							continue
						}
						for {
							i := bytes.Index(b[start:end], []byte(from))
							if i < 0 {
								break
							}
							copy(b[start+i:], to)
						}
						binary.LittleEndian.PutUint32(b[end+1:], crc32.Checksum(b[start:end], table))
						binary.LittleEndian.PutUint32(b[end+6:], head(index, term, b[end+1:end+6]))
						if err := os.WriteFile(file, b, 0o600); err != nil {
							t.Fatal(err)
						}
						t.Logf("forged entry %d of term %d, data %s...", index, term, hex.EncodeToString(b[start:start+8]))
						return
					}
				}
			}
		}
	}
	t.Fatalf("no entry with %q and its checksums in %s", from, dir)
}
