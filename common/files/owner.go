package files

import (
	"fmt"
	"os"
	"path/filepath"
)

// Program is a program that keeps a data folder.
type Program string

// Programs with data folders. Each folder belongs to one of them.
const (
	Coordinator Program = "coordinator"
	Worker      Program = "worker"
)

// marks are what a program creates early in its data folder, and the other never.
var marks = map[Program][]string{
	Coordinator: {"node.json", "raft"},
	Worker:      {"folder-id", "pids"},
}

// CheckOwner returns an error if the data folder belongs to another program. It
// changes nothing. A folder that is empty, not there, or has marks of both belongs
// to whoever asks: one that was once used for both must start as before. To be
// asked before the folder's lock is taken, and again after, when two programs may
// have begun in an empty folder.
func CheckOwner(dir string, mine Program) error {
	if marked(dir, mine) != "" {
		return nil
	}
	for other := range marks {
		if mark := marked(dir, other); other != mine && mark != "" {
			return fmt.Errorf("%s is the data folder of a %s (it contains %s); give this %s a folder of its own", dir, other, mark, mine)
		}
	}
	return nil
}

// marked is the first mark of a program in a folder, "" for none.
func marked(dir string, p Program) string {
	for _, name := range marks[p] {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return name
		}
	}
	return ""
}
