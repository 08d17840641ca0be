package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/files"
)

// claim makes a node's data folder where it is absent, and refuses one that
// belongs to another node or was written by another log store: raft would begin
// anew there and could vote twice in one term. No other process may use the
// folder: whoever opens a node holds the lock of the folder round it
// (coordinator/member).
//
//	node       the node's id and its log store, written once
//	log/       the log, the term and the vote
//	snapshots/ the last two snapshots
func claim(path, id string, kind LogStore) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := own(path, id, kind); err != nil {
		return err
	}
	leftovers, _ := filepath.Glob(filepath.Join(path, "restore-*"))
	for _, name := range leftovers {
		os.Remove(name)
	}
	return nil
}

// own writes whose folder it is, or compares that.
func own(path, id string, kind LogStore) error {
	name := filepath.Join(path, "node")
	mine := id + "\n" + string(kind) + "\n"
	found, err := os.ReadFile(name)
	if err == nil {
		if string(found) == mine {
			return nil
		}
		owner, store, _ := strings.Cut(strings.TrimSpace(string(found)), "\n")
		return fmt.Errorf("data folder %s is of node %q with log store %q, this is node %q with %q: give each node a folder of its own", path, owner, store, id, kind)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return files.Write(name, []byte(mine), 0o600)
}
