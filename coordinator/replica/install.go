package replica

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// finishInstall does what a node owes its folder when it was killed while it
// installed a leader's snapshot: raft first puts the snapshot in its place, then
// lets go of the log before it, and on its own would not start between the two.
//
// A snapshot beyond the log came from a leader, since a node's own ends within
// its log. It is committed, so the log before it is let go of. The same holds for
// a log that has another entry at the snapshot's index: that and what follows it
// was never committed.
func (n *Node) finishInstall(logs raft.LogStore, snapshots raft.SnapshotStore) error {
	dropHalves(filepath.Join(n.cfg.DataDir, "snapshots"))
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return err
	}
	newest := list[0]
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	if last >= newest.Index {
		var at raft.Log
		if newest.Index < first || logs.GetLog(newest.Index, &at) != nil || at.Term == newest.Term {
			return nil
		}
	}
	// Only one that can be read stands for the log: raft takes an older one in place
	// of one that is damaged, and needs the log from there.
	_, body, err := snapshots.Open(newest.ID)
	if err != nil {
		n.log.Warn("a snapshot beyond the log cannot be read; continuing from the one before and the log", "snapshot", newest.ID, "last", last, "error", err)
		return nil
	}
	body.Close()
	n.log.Info("an installation of a snapshot was cut off; the log before it is let go of", "snapshot", newest.ID, "index", newest.Index, "first", first, "last", last)
	return logs.DeleteRange(first, last)
}

// dropHalves removes snapshots that were never finished: raft passes over them
// and leaves them where they are.
func dropHalves(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), ".tmp") {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
