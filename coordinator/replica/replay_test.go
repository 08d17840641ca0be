package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/snapshot"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
)

// TestLogOfAnEarlierBuildIsOneState plays the log of an earlier build, with eight
// sweeps of all kinds: from its start, from the state that that build saved in its
// course, and from snapshots of today all along it. All end as one state. With random
// logs state's TestInvariants does the same.
func TestLogOfAnEarlierBuildIsOneState(t *testing.T) {
	dir := t.TempDir()
	coordinatortest.Unpack(t, "../testdata/b48f715.tar.gz.gz", dir)
	logs, err := openStore(RaftWAL, filepath.Join(dir, "n1/raft/log"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	file, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := snapshot.Copy(&body, bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	restored := func(stream *bytes.Buffer) *state.Machine {
		t.Helper()
		m := state.New()
		if err := m.Restore(stream); err != nil {
			t.Fatal(err)
		}
		return m
	}
	then := restored(&body)
	last, err := logs.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if at := then.View().Index(); at == 0 || at > last {
		t.Fatalf("the earlier build saved the state at %d of %d", at, last)
	}
	played := state.New()
	others := map[string]*state.Machine{"from what the earlier build saved": then}
	for index := uint64(1); index <= last; index++ {
		var l raft.Log
		if err := logs.GetLog(index, &l); err != nil {
			t.Fatal(err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		var e logv1.Entry
		if err := proto.Unmarshal(l.Data, &e); err != nil {
			t.Fatal(err)
		}
		played.Apply(index, &e)
		for _, m := range others {
			if index > m.View().Index() {
				m.Apply(index, &e)
			}
		}
		if index%8 == 0 {
			var stream bytes.Buffer
			if _, err := played.View().WriteTo(&stream); err != nil {
				t.Fatal(err)
			}
			others[fmt.Sprintf("from a snapshot at %d", index)] = restored(&stream)
		}
	}
	for name, m := range others {
		if m.View().Hash() != played.View().Hash() {
			t.Errorf("%s it ends as another state", name)
		}
	}
}
