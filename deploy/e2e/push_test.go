package e2e_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
)

// A model of this machine is pushed into a cluster, named, pulled back byte for byte, and
// its file goes when its sweep is deleted. One whose bytes are not a model stays out.
func TestPushedModel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	dir := t.TempDir()
	header := `{"__metadata__":{"arch":"resnet18","class_to_idx":"{\"left\":0,\"right\":1}"},"fc.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`
	model := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+strings.Repeat("\x00\x00\x80\x3f", 4)...)
	file := filepath.Join(dir, "my model.safetensors")
	must(t, os.WriteFile(file, model, 0o644))
	bad := filepath.Join(dir, "bad.pth")
	must(t, os.WriteFile(bad, []byte("not a model"), 0o644))
	do := func(code int, args ...string) string {
		t.Helper()
		out, errs, got := atelier(t, ctx, cluster, args...)
		if got != code {
			t.Fatalf("atelier %s: exit %d, want %d: %s%s", strings.Join(args, " "), got, code, out, errs)
		}
		return out
	}
	do(1, "checkpoint", "push", bad, "--metric", "test_acc=0.5")
	do(2, "checkpoint", "push", file) // nothing is known of how good it is
	at := strings.TrimSpace(do(0, "checkpoint", "push", file, "--metric", "test_acc=0.93", "--as", "production"))
	id, rest, _ := strings.Cut(at, "/")
	if rest != "1/1" {
		t.Fatalf("it was pushed as %q", at)
	}
	if text := do(0, "sweep", "list"); strings.Count(text, "s-") != 1 || !strings.Contains(text, "my model.safetensors") || !strings.Contains(text, "0.93") {
		t.Errorf("the list: %s", text)
	}
	for _, name := range []string{"alias:production", id} {
		pulled := strings.TrimSpace(do(0, "checkpoint", "pull", name, "--to", t.TempDir()))
		if b, err := os.ReadFile(pulled); err != nil || string(b) != string(model) {
			t.Errorf("%s came back as %d bytes, %v", name, len(b), err)
		}
	}
	do(0, "sweep", "delete", id, "--yes", "--now", "--force")
	kept := func() int {
		found, _ := filepath.Glob(filepath.Join(cluster.Workers[0].Dir, "checkpoints", "*", "*", "*", "*"))
		return len(found)
	}
	for kept() > 0 {
		if !sleep(ctx) {
			t.Fatal("the worker keeps the file of a deleted sweep")
		}
	}
	if all, err := cluster.Client().Aliases(ctx); err != nil || len(all) != 0 {
		t.Errorf("aliases %v, %v", all, err)
	}
}
