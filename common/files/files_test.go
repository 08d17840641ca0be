package files_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/files"
)

// TestMain lets this test program stand in for another process that holds a lock.
func TestMain(m *testing.M) {
	if file := os.Getenv("FILES_TEST_LOCK"); file != "" {
		f, err := files.Lock(file, errors.New("held"))
		fmt.Println(f != nil, err)
		time.Sleep(time.Minute)
		return
	}
	os.Exit(m.Run())
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestWriteReplaces(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"durably": files.Write, "unsynced": files.WriteUnsynced} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, strings.Repeat("long", 63)+".pt") // 255 bytes
			for _, text := range []string{"a longer text", "short", ""} {
				if err := write(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != text {
					t.Errorf("it holds %q, %v; want %q", got, err, text)
				}
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info.Mode(), err)
			}
			if got := names(t, dir); got != filepath.Base(path) {
				t.Errorf("the folder holds %s", got)
			}
		})
	}
}

func TestPermissionsHonourTheUmask(t *testing.T) {
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	if err := files.Write(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("permissions %v", info.Mode())
	}
}

// TestFailedWritesLeaveTheOldFile: nothing is left of a file that could not be
// put in its place, and what was there stays.
func TestFailedWritesLeaveTheOldFile(t *testing.T) {
	dir := t.TempDir()
	place := filepath.Join(dir, "place")
	if err := os.MkdirAll(filepath.Join(place, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"durably": files.Write, "unsynced": files.WriteUnsynced} {
		if err := write(place, []byte("x"), 0o644); err == nil || !strings.Contains(err.Error(), "write "+place) {
			t.Errorf("%s: a folder was replaced: %v", name, err)
		}
		if err := write(filepath.Join(dir, "none", "f"), nil, 0o644); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: into a folder that is not there: %v", name, err)
		}
	}
	if got := names(t, dir); got != "place" {
		t.Errorf("the folder holds %s", got)
	}
}

func TestPending(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := files.Write(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name string
		do   func(*files.Pending) error
		want string
	}{
		{"abort", func(p *files.Pending) error { p.Abort(); return nil }, "old"},
		{"commit", (*files.Pending).Commit, "commit"},
		{"commit unsynced", (*files.Pending).CommitUnsynced, "commit unsynced"},
	} {
		p, err := files.Create(path, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(p, end.name)
		if !strings.HasPrefix(filepath.Base(p.Name()), ".f.tmp-") {
			t.Errorf("%s: it is written as %s", end.name, p.Name())
		}
		if err := end.do(p); err != nil {
			t.Errorf("%s: %v", end.name, err)
		}
		p.Abort()
		if b, _ := os.ReadFile(path); string(b) != end.want {
			t.Errorf("%s: the file holds %q", end.name, b)
		}
		if got := names(t, dir); got != "f" {
			t.Errorf("%s: the folder holds %s", end.name, got)
		}
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := files.Write(from, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := files.Rename(from, to); err != nil || names(t, dir) != "to" {
		t.Errorf("%v, %s", err, names(t, dir))
	}
	if err := files.Rename(from, to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestLockBetweenProcesses: what another process holds is refused and waited for,
// and is free when that process was killed.
func TestLockBetweenProcesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "FILES_TEST_LOCK="+file)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	var got bool
	var said string
	if n, err := fmt.Fscanln(out, &got, &said); n != 2 || !got {
		t.Fatalf("the other process: %v %s %v", got, said, err)
	}
	held := errors.New("in use by a test")
	if f, err := files.Lock(file, held); f != nil || err != held {
		t.Errorf("a lock that is held: %v, %v", f, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := files.WaitLock(ctx, file); !errors.Is(err, files.ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited in vain: %v", err)
	}
	waited := make(chan error, 1)
	go func() {
		f, err := files.WaitLock(t.Context(), file)
		if err == nil {
			err = f.Close()
		}
		waited <- err
	}()
	other.Process.Kill()
	other.Wait()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	f, err := files.Lock(file, held)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := files.Lock(filepath.Join(file, "not a folder"), held); err == nil || err == held {
		t.Errorf("a lock that cannot be made: %v", err)
	}
}

func TestNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(want bool) {
		t.Helper()
		if got, err := files.Named(f); got != want || err != nil {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	check(true)
	os.Rename(path, path+".away")
	check(false)
	os.WriteFile(path, nil, 0o644)
	check(false)
}
