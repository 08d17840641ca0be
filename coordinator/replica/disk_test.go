package replica

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// faultyDisk answers writes with an error, or not at all, once told to.
type faultyDisk struct {
	durable
	fail atomic.Bool
	hang chan struct{} // closed to let hung writes go
	hold atomic.Bool
}

func (d *faultyDisk) StoreLogs(logs []*raft.Log) error {
	if d.hold.Load() {
		<-d.hang
	}
	if d.fail.Load() {
		return syscall.ENOSPC
	}
	return d.durable.StoreLogs(logs)
}

// openFaulty opens a one-node cluster whose disk the test controls.
func openFaulty(t *testing.T, kind LogStore, tune func(*Config)) (*Node, *faultyDisk, chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fatal := make(chan error, 8)
	cfg := Config{ID: "n1", DataDir: t.TempDir(), Listener: l, Bootstrap: true, ClusterID: "c", Machine: state.New(), LogStore: kind, OnFatal: func(err error) { fatal <- err }}
	if tune != nil {
		tune(&cfg)
	}
	if err := cfg.fill(); err != nil {
		t.Fatal(err)
	}
	if err := claim(cfg.DataDir, cfg.ID, kind); err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: cfg, log: cfg.Logger, machine: cfg.Machine, leaderCh: make(chan bool, 1), stop: make(chan struct{})}
	store, err := openStore(kind, filepath.Join(cfg.DataDir, "log"), cfg.Logger)
	if err != nil {
		t.Fatal(err)
	}
	disk := &faultyDisk{durable: store, hang: make(chan struct{})}
	n.store = newGuard(disk, n.fail)
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if disk.hold.Load() {
			close(disk.hang)
		}
		n.Shutdown(ctx)
	})
	deadline := time.Now().Add(10 * time.Second)
	for n.VerifyLeader(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("no leader")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return n, disk, fatal
}

func setMember(id string) *logv1.Command {
	return &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: id, RaftAddress: "a"}}}
}

// TestFailedAppendIsFatal: a write that fails is not acknowledged, ends the node,
// and no later write succeeds, even where the disk has room again.
func TestFailedAppendIsFatal(t *testing.T) {
	n, disk, fatal := openFaulty(t, RaftWAL, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := n.Propose(ctx, setMember("a")); err != nil {
		t.Fatal(err)
	}
	disk.fail.Store(true)
	if _, err := n.Propose(ctx, setMember("b")); !errors.Is(err, ErrUnknown) {
		t.Errorf("a write to a full disk: %v", err)
	}
	select {
	case err := <-fatal:
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "append to the log") {
			t.Errorf("fatal: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a failed append did not end the node")
	}
	disk.fail.Store(false)
	if err := n.store.StoreLog(&raft.Log{Index: 1 << 40}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("an append after a failed one: %v", err)
	}
	if members := n.machine.View().Members(); len(members) != 1 {
		t.Errorf("members %v: the failed write was applied", members)
	}
	if len(fatal) > 0 {
		t.Error("the end was told twice")
	}
}

// TestHungDisk: the leader's disk stops answering. With a caller waiting or
// without one, the node gives up after the time-out.
func TestHungDisk(t *testing.T) {
	const timeout = 3 * time.Second // a loaded machine's own appends must not reach it
	for _, busy := range []bool{true, false} {
		name := map[bool]string{true: "under a write", false: "idle"}[busy]
		t.Run(name, func(t *testing.T) {
			var logged bytes.Buffer
			n, disk, fatal := openFaulty(t, RaftWAL, func(cfg *Config) {
				cfg.DiskTimeout = timeout
				cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))
			})
			disk.hold.Store(true)
			start := time.Now()
			if busy {
				go n.Propose(context.Background(), setMember("b"))
			}
			select {
			case err := <-fatal:
				if !strings.Contains(err.Error(), "disk hangs") {
					t.Errorf("fatal: %v", err)
				}
				if took := time.Since(start); took < timeout*4/5 {
					t.Errorf("gave up after %v already", took)
				}
			case <-time.After(20 * timeout):
				t.Fatal("a hung disk went unseen")
			}
		})
	}
}

// TestFullDisk fills a real file system of 160 MiB under each log store and says
// what happens, then makes room and opens the log again: everything acknowledged
// must be there. DESIGN.md quotes the outcome.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	for _, kind := range []LogStore{RaftWAL, RaftBoltDB} {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
				t.Skipf("mount a tmpfs: %v", err)
			}
			defer syscall.Unmount(dir, syscall.MNT_DETACH)
			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 40<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			logDir := filepath.Join(dir, "log")
			logger := slog.New(slog.DiscardHandler)
			inner, err := openStore(kind, logDir, logger)
			if err != nil {
				t.Fatal(err)
			}
			var fatal error
			store := newGuard(inner, func(err error) { fatal = err })
			data := make([]byte, 256<<10)
			acked := uint64(0)
			for index := uint64(1); index < 4000; index++ {
				if err = store.StoreLogs([]*raft.Log{{Index: index, Term: 1, Data: data}}); err != nil {
					break
				}
				acked = index
			}
			if err == nil || fatal == nil {
				t.Fatalf("%d entries of 256 KiB fit into 160 MiB", acked)
			}
			t.Logf("%d entries (%d MiB) acknowledged, then: %v", acked, acked/4, err)
			store.Close()

			// A supervisor starts the node again and again while the disk is full.
			for start := range 4 {
				full, err := openStore(kind, logDir, logger)
				if err != nil {
					t.Logf("start %d on the full disk: refused: %v", start+1, err)
					continue
				}
				last, err := full.LastIndex()
				if err != nil || last < acked {
					t.Fatalf("start %d on the full disk: %d entries, %d were acknowledged: %v", start+1, last, acked, err)
				}
				for acked = last; err == nil && acked < 4000; {
					if err = full.StoreLogs([]*raft.Log{{Index: acked + 1, Term: 1, Data: data}}); err == nil {
						acked++
					}
				}
				t.Logf("start %d on the full disk: last entry %d, %d more acknowledged, then: %v", start+1, last, acked-last, err)
				full.Close()
			}

			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			again, err := openStore(kind, logDir, logger)
			if err != nil {
				t.Fatalf("open again with room on the disk: %v", err)
			}
			defer again.Close()
			last, err := again.LastIndex()
			if err != nil || last < acked {
				t.Fatalf("%d entries after the restart, %d were acknowledged: %v", last, acked, err)
			}
			for _, index := range []uint64{1, acked / 2, acked} {
				var l raft.Log
				if err := again.GetLog(index, &l); err != nil || l.Index != index || len(l.Data) != len(data) {
					t.Errorf("entry %d: %v", index, err)
				}
			}
			if err := again.StoreLogs([]*raft.Log{{Index: last + 1, Term: 1, Data: data}}); err != nil {
				t.Errorf("append after the restart: %v", err)
			}
			t.Logf("after a restart with room: last entry %d of %d acknowledged, appends go on", last, acked)
		})
	}
}
