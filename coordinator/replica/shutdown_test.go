package replica

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

// caller is raft's way to a node, with our handshake.
type caller struct{ as party }

func (caller) Accept() (net.Conn, error) { select {} }
func (caller) Addr() net.Addr            { return address("nowhere") }
func (caller) Close() error              { return nil }
func (c caller) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", string(to), timeout)
	if err == nil {
		_, err = greet(conn, hello{c.as, "n1"})
	}
	return conn, err
}

// A node that is asked to end while a leader's snapshot comes ends at once and
// whole, although the leader has fallen silent.
func TestShutdownWhileASnapshotComes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n, err := Open(Config{ID: "n1", DataDir: dir, Listener: l, Bootstrap: true, ClusterID: "test", Machine: state.New(), HeartbeatTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	leader := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: caller{party{"test", "n2", "f-2"}}, Timeout: time.Minute, Logger: raftLogger(slog.New(slog.DiscardHandler))})
	body, feed := io.Pipe()
	over := make(chan error, 1)
	go func() {
		var resp raft.InstallSnapshotResponse
		over <- leader.InstallSnapshot("n1", raft.ServerAddress(l.Addr().String()), &raft.InstallSnapshotRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n2"), Addr: []byte("nowhere")}, SnapshotVersion: 1, Term: 50, Leader: []byte("nowhere"), LastLogIndex: 1000, LastLogTerm: 50,
			Configuration: raft.EncodeConfiguration(n.raft.GetConfiguration().Configuration()), Size: 1 << 20,
		}, &resp, body)
	}()
	feed.Write(make([]byte, 1000))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		entries, _ := os.ReadDir(filepath.Join(dir, "snapshots"))
		if len(entries) > 0 && strings.HasSuffix(entries[0].Name(), ".tmp") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the snapshot does not begin to come")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Shutdown(ctx); err != nil {
		t.Errorf("shut down: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, cleanStop)); err != nil {
		t.Errorf("it was not shut down whole: %v", err)
	}
	feed.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-over; err == nil {
		t.Error("the snapshot was taken")
	}
}
