package replica

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// What raft repeats about an absent peer is written once for each peer, what it
// says for the first time is written, and no format stands in a line.
func TestRaftsLinesAreCounted(t *testing.T) {
	var out bytes.Buffer
	l := raftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	gone := errors.New("connection refused")
	for range 50 {
		l.Error("failed to heartbeat to", "peer", raft.ServerAddress("10.0.0.2:7601"), "backoff time", 1, "error", gone)
		l.Error("failed to heartbeat to", "peer", raft.ServerAddress("10.0.0.3:7601"), "error", gone)
		l.Info("entering candidate state", "term", 3)
	}
	for range 2 {
		l.Info("entering leader state")
	}
	l.Info("initial configuration", "index", 1, "servers", hclog.Fmt("%+v", []raft.Server{{ID: "c1", Address: "a:1"}}))
	for text, want := range map[string]int{"failed to heartbeat": 2, "10.0.0.2": 1, "10.0.0.3": 1, "candidate state": 1, "leader state": 2,
		"%": 0, `servers="[{Suffrage:Voter ID:c1 Address:a:1}]"`: 1} {
		if n := strings.Count(out.String(), text); n != want {
			t.Errorf("%q: %d lines, want %d:\n%s", text, n, want, out.String())
		}
	}
}
