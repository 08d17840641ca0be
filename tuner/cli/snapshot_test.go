package cli_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
)

func TestSnapshotAndRestore(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	if r := run(t, dir, "cluster", "snapshot", "b.snap"); r.code != 0 || !strings.Contains(r.err, "300.1 KiB") || strings.Contains(r.err, "warning") {
		t.Fatalf("%+v", r)
	}
	b, err := os.ReadFile(filepath.Join(dir, "b.snap"))
	if err != nil || len(b) != 300<<10+64 {
		t.Fatal(err, len(b))
	}
	r := run(t, dir, "cluster", "restore", "b.snap", "--yes")
	for _, want := range []string{"2 sweeps, 16 trials, at index 4800", "the state is that of 2023-11-1", "3 trials were running"} {
		if r.code != 0 || !strings.Contains(r.err, want) {
			t.Errorf("%q is missing: %+v", want, r)
		}
	}
	if f.snapshot == nil || !f.snapshot.Checked || f.snapshot.Bytes != 300<<10 {
		t.Errorf("what arrived is not what was saved: %+v", f.snapshot)
	}
	write(t, filepath.Join(dir, "bad.snap"), []byte("hello"))
	if r := run(t, dir, "cluster", "restore", "bad.snap", "--yes"); r.code != 1 || !strings.Contains(r.err, "not a snapshot") {
		t.Errorf("%+v", r)
	}
	write(t, filepath.Join(dir, "bare.snap"), bytes.Repeat([]byte("a"), 100))
	if r := run(t, dir, "cluster", "restore", "bare.snap", "--yes"); r.code != 0 || !strings.Contains(r.err, "carries no checksum") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "cluster", "snapshot", "-"); r.code != 0 || r.out != string(b) {
		t.Errorf("to standard output: exit %d, %d bytes", r.code, len(r.out))
	}
}

// A file that was damaged is not sent, and one that did not come whole does not
// take the place of the one before.
func TestDamagedSnapshots(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	run(t, dir, "cluster", "snapshot", "b.snap")
	good, err := os.ReadFile(filepath.Join(dir, "b.snap"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 13, 20, 5000, len(good) - 40, len(good) - 1} {
		bad := bytes.Clone(good)
		bad[at] ^= 0x20
		write(t, filepath.Join(dir, "bad.snap"), bad)
		if r := run(t, dir, "cluster", "restore", "bad.snap", "--yes"); r.code != 1 || !strings.Contains(r.err, "damaged") || !strings.Contains(r.err, "bad.snap") || f.snapshot != nil {
			t.Errorf("byte %d: %+v", at, r)
		}
	}
	f.cutSave = 100
	if r := run(t, dir, "cluster", "snapshot", "b.snap"); r.code != 1 || !strings.Contains(r.err, "cut short") {
		t.Errorf("%+v", r)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "b.snap")); !bytes.Equal(b, good) {
		t.Error("a snapshot that did not come whole replaced the one before")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

// A restore whose answer is lost says whether it took place.
func TestRestoreWithoutAnAnswer(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	run(t, dir, "cluster", "snapshot", "b.snap")
	f.restoreError = connect.NewError(connect.CodeUnavailable, errors.New("the leader went away"))
	if r := run(t, dir, "cluster", "restore", "b.snap", "--yes"); r.code != 1 || !strings.Contains(r.err, "did not take place") {
		t.Errorf("%+v", r)
	}
	f.tookPlace = true
	if r := run(t, dir, "cluster", "restore", "b.snap", "--yes"); r.code != 0 || !strings.Contains(r.err, "it took place") || !strings.Contains(r.err, "index 4900") {
		t.Errorf("%+v", r)
	}
}
