package e2e_test

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
)

// A deleted sweep is out of the list and keeps all it has, until it is purged: then its
// worker deletes the files.
func TestDeletedSweepAndItsFiles(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": {"--trainers", scripted(t, step(1, 0.5, 5))}}})
	c := cluster.Client()
	id := submit(t, ctx, c, "name: first\nsearch_method: random\nseed: 1\nobjective: {metric: val_acc, direction: maximize}\nbudget: {trials: 1}\ntrainer: scripted\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\n")
	await(t, ctx, c, id, "the sweep has ended", ended)
	files := func() (n int) {
		filepath.WalkDir(cluster.Workers[0].Dir, func(p string, _ fs.DirEntry, _ error) error {
			if strings.HasSuffix(p, ".pth") {
				n++
			}
			return nil
		})
		return n
	}
	do := func(code int, args ...string) string {
		t.Helper()
		out, errs, got := atelier(t, ctx, cluster, args...)
		if got != code {
			t.Fatalf("atelier %s: exit %d, want %d: %s%s", strings.Join(args, " "), got, code, out, errs)
		}
		return out + errs
	}
	do(0, "sweep", "rename", id, "night run")
	do(0, "sweep", "tag", "night run", "baseline")
	if text := do(0, "sweep", "list"); !strings.Contains(text, "night run") {
		t.Errorf("the list has not the new name: %s", text)
	}
	do(2, "sweep", "delete", id) // nobody can be asked
	do(0, "checkpoint", "promote", "night run", "production")
	if text := do(1, "sweep", "delete", id, "--yes"); !strings.Contains(text, "the alias production names "+id+"/1/1") {
		t.Errorf("delete of what an alias names: %s", text)
	}
	do(0, "checkpoint", "pull", "alias:production", "--to", t.TempDir())
	do(0, "sweep", "delete", id, "--yes", "--force")
	do(0, "checkpoint", "pull", "alias:production", "--to", t.TempDir()) // for a day
	do(0, "sweep", "undelete", id)
	do(0, "checkpoint", "alias", "remove", "production")
	if text := do(0, "sweep", "delete", id, "--yes"); !strings.Contains(text, "1 trial, 1 report, 1 checkpoint of ") || !strings.Contains(text, "sweep undelete "+id) {
		t.Errorf("delete: %s", text)
	}
	if text := do(0, "sweep", "list", "-q"); strings.Contains(text, id) {
		t.Errorf("it is still listed: %s", text)
	}
	do(1, "sweep", "extend", id, "--trials", "1")
	do(0, "checkpoint", "pull", id, "--to", t.TempDir())
	do(0, "sweep", "undelete", "night run")
	if text := do(0, "sweep", "list", "-q"); !strings.Contains(text, id) {
		t.Errorf("taken back, and not listed: %s", text)
	}
	if files() != 1 {
		t.Fatalf("%d files before it is purged", files())
	}
	do(0, "sweep", "delete", id, "--yes", "--now")
	for files() > 0 {
		if !sleep(ctx) {
			t.Fatal("the worker keeps the files of a deleted sweep")
		}
	}
	if text := do(3, "sweep", "show", id); !strings.Contains(text, "was deleted at") {
		t.Errorf("show: %s", text)
	}
}
