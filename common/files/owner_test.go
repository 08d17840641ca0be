package files_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/files"
)

// A data folder has one program; what has marks of both starts as before.
func TestCheckOwner(t *testing.T) {
	for _, x := range []struct {
		marks []string
		mine  files.Program
		want  string
	}{
		{nil, files.Worker, ""},
		{[]string{"lock", "cache", "logs"}, files.Coordinator, ""},
		{[]string{"node.json"}, files.Coordinator, ""},
		{[]string{"node.json"}, files.Worker, "data folder of a coordinator (it contains node.json)"},
		{[]string{"raft"}, files.Worker, "give this worker a folder of its own"},
		{[]string{"folder-id"}, files.Worker, ""},
		{[]string{"pids"}, files.Coordinator, "data folder of a worker (it contains pids)"},
		{[]string{"raft", "pids"}, files.Coordinator, ""},
		{[]string{"raft", "pids"}, files.Worker, ""},
	} {
		dir := t.TempDir()
		for _, name := range x.marks {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err := files.CheckOwner(dir, x.mine)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v for a %s: %v, want %q", x.marks, x.mine, err, x.want)
		}
	}
	if err := files.CheckOwner(filepath.Join(t.TempDir(), "none"), files.Worker); err != nil {
		t.Error(err)
	}
}
