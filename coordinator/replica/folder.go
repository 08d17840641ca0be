package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/files"
)

// folder is a node's data folder, held by this process alone.
//
//	lock       held while the process lives
//	node       the node's id and its log store, written once
//	log/       the log, the term and the vote
//	snapshots/ the last two snapshots
type folder struct {
	path string
	lock *os.File
}

// claim makes the folder where it is absent, locks it, and refuses one that
// belongs to another node or was written by another log store: raft would begin
// anew there and could vote twice in one term.
func claim(path, id string, kind LogStore) (*folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := files.Lock(filepath.Join(path, "lock"), fmt.Errorf("data folder %s is in use by another coordinator: end it or give this one a folder of its own", path))
	if err != nil {
		return nil, err
	}
	f := &folder{path: path, lock: lock}
	if err := f.identify(id, kind); err != nil {
		lock.Close()
		return nil, err
	}
	leftovers, _ := filepath.Glob(filepath.Join(path, "restore-*"))
	for _, name := range leftovers {
		os.Remove(name)
	}
	return f, nil
}

func (f *folder) identify(id string, kind LogStore) error {
	name := filepath.Join(f.path, "node")
	mine := id + "\n" + string(kind) + "\n"
	found, err := os.ReadFile(name)
	if err == nil {
		if string(found) == mine {
			return nil
		}
		owner, store, _ := strings.Cut(strings.TrimSpace(string(found)), "\n")
		return fmt.Errorf("data folder %s is of node %q with log store %q, this is node %q with %q: give each node a folder of its own", f.path, owner, store, id, kind)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return files.Write(name, []byte(mine), 0o600)
}

func (f *folder) release() { f.lock.Close() }
