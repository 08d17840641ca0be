package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// TestDamagedLogEndsWithWords changes one byte in the log of a coordinator that
// was killed, or stopped: a letter of an acknowledged sweep's name, or of the last
// record, which the log store takes for a write that a crash tore. The coordinator
// does not serve it, nor forget it: it says what is wrong and what to do, and ends.
// replica's TestRot does this at random places.
func TestDamagedLogEndsWithWords(t *testing.T) {
	for name, c := range map[string]struct {
		end   syscall.Signal
		where func(b []byte) int
		words string
	}{
		"a letter, killed":        {syscall.SIGKILL, inName, "entry"},
		"a letter, stopped":       {syscall.SIGTERM, inName, "has changed since the node was stopped"},
		"the last record, killed": {syscall.SIGKILL, lastByte, "had been written to it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := startProcess(t, dir, "p1", "--bootstrap")
			raw(client.New([]string{p.at.API})).Create(t, strings.Replace(spec(3, 3), "name: test", "name: sound-name", 1))
			// No write under way: one that nobody has heard of yet may go.
			last, since := uint64(0), time.Now()
			until(t, "the log stands still", func() bool {
				n, err := client.New(nil).Raw().Node(p.at.API).GetNode(background(t), connect.NewRequest(&atelierv1.GetNodeRequest{}))
				if err != nil || n.Msg.LastLogIndex != last {
					if err == nil {
						last = n.Msg.LastLogIndex
					}
					since = time.Now()
				}
				return time.Since(since) > 300*time.Millisecond
			})
			if err := p.cmd.Process.Signal(c.end); err != nil {
				t.Fatal(err)
			}
			p.wait()
			files, _ := filepath.Glob(filepath.Join(dir, "p1", "raft", "log", "*.wal"))
			if len(files) != 1 {
				t.Fatalf("segments %v", files)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			b[c.where(b)] ^= 0x04
			if err := os.WriteFile(files[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			again := exec.CommandContext(ctx, os.Args[0], "--id", "p1", "--data", filepath.Join(dir, "p1"), "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
			again.Env = append(os.Environ(), "COORDINATOR_PROCESS=1")
			said, err := again.CombinedOutput()
			if ctx.Err() != nil || err == nil {
				t.Fatalf("it serves a damaged log\n%s", said)
			}
			for _, words := range []string{c.words, "is damaged", "cluster remove p1", "cluster restore"} {
				if !strings.Contains(string(said), words) {
					t.Errorf("it does not say %q:\n%s", words, said)
				}
			}
		})
	}
}

func inName(b []byte) int { return bytes.Index(b, []byte("sound-name")) + 2 }

func lastByte(b []byte) int { return len(bytes.TrimRight(b, "\x00")) - 12 }
