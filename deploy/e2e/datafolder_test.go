package e2e_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
)

// tree lists what is in a folder and its subfolders.
func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	return names
}

// The data folder of a coordinator is refused to a worker, and the other way round,
// whether its program runs or not; the refusal names whose it is and changes nothing.
func TestDataFolderOfTheOtherProgram(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	coordinator, worker := cluster.Coordinators[0], cluster.Workers[0]
	refused := func(when, program, folder, want string, args ...string) {
		t.Helper()
		before := tree(t, folder)
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, program), append(args, "--data", folder)...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		out, err := cmd.CombinedOutput()
		if err == nil || ctx.Err() != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %s: %v, want %q in\n%s", when, program, err, want, out)
		}
		if after := tree(t, folder); !slices.Equal(before, after) {
			t.Errorf("%s: %s changed the folder:\nbefore %v\nafter %v", when, program, before, after)
		}
	}
	both := func(when string) {
		refused(when, "atelier-worker", coordinator.Dir, "is the data folder of a coordinator", "--name", "x", "--addr", coordinator.Addr, "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
		refused(when, "atelier-coordinator", worker.Dir, "is the data folder of a worker", "--id", "x", "--bootstrap", "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
	}
	both("both run")
	must(t, worker.Stop(10*time.Second))
	must(t, coordinator.Stop(10*time.Second))
	both("both stopped")
}
