package replica

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"google.golang.org/protobuf/proto"
)

// TestFolderWithoutChecksums opens a data folder as versions before the checksums
// wrote it: raft-wal with its own bbolt file, entries without extensions. What was
// in it is there, what is written since is checked, and an older version refuses
// the folder.
func TestFolderWithoutChecksums(t *testing.T) {
	dir := t.TempDir()
	logDir := filepath.Join(dir, "log")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		t.Fatal(err)
	}
	old, err := wal.Open(logDir, wal.WithLogger(raftLogger(slog.New(slog.DiscardHandler))))
	if err != nil {
		t.Fatal(err)
	}
	logs := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{
		Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "127.0.0.1:1"}}})}}
	for i := uint64(2); i < 20; i++ {
		data, err := proto.Marshal(&logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{
			Id: fmt.Sprintf("m%02d", i), RaftAddress: "a", ClusterId: "test"}}}}})
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, &raft.Log{Index: i, Term: 1, Data: data})
	}
	for _, err := range []error{old.SetUint64([]byte("CurrentTerm"), 7), old.StoreLogs(logs), old.Close(),
		os.WriteFile(filepath.Join(dir, "node"), []byte("n1\nraft-wal\n"), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func() (*Node, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(Config{ID: "n1", DataDir: dir, Listener: l, ClusterID: "test", Machine: state.New(), HeartbeatTimeout: 100 * time.Millisecond})
		if err != nil {
			l.Close()
		}
		return n, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for start := range 2 {
		n, err := open()
		if err != nil {
			t.Fatal(err)
		}
		for n.VerifyLeader(ctx) != nil && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		if got := len(n.machine.View().Members()); got != 18+start {
			t.Errorf("start %d: %d members, want %d", start, got, 18+start)
		}
		if term := n.raft.CurrentTerm(); term <= 7 {
			t.Errorf("start %d: term %d comes not after the 7 of before", start, term)
		}
		if n.store.checkedFrom != 20 {
			t.Errorf("start %d: entries are checked from %d on, want 20", start, n.store.checkedFrom)
		}
		if start == 0 {
			if _, err := n.Propose(ctx, setMember("new")); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := filepath.Glob(filepath.Join(logDir, "*.wal"))
	if _, err := wal.Open(logDir); err == nil {
		t.Error("an older version opens the folder, and would delete its segments")
	}
	if after, _ := filepath.Glob(filepath.Join(logDir, "*.wal")); len(after) != len(before) {
		t.Errorf("segments %v, were %v", after, before)
	}
	// An entry that should carry a checksum and has lost it is no old one.
	os.Remove(filepath.Join(dir, cleanStop))
	meta, err := openMeta(logDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wal.Open(logDir, wal.WithMetaStore(meta))
	if err != nil {
		t.Fatal(err)
	}
	last, _ := w.LastIndex()
	var l raft.Log
	if err := w.GetLog(last, &l); err != nil {
		t.Fatal(err)
	}
	l.Extensions = nil
	for _, err := range []error{w.DeleteRange(last, last), w.StoreLog(&l), w.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := open(); err == nil {
		n.Shutdown(ctx)
		t.Error("an entry without its checksum was taken for an old one")
	} else if !strings.Contains(err.Error(), "lost its checksum") {
		t.Error(err)
	}
}
