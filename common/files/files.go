// Package files replaces files, so that a reader sees the old one or the whole
// new one, and locks folders between processes. It refuses to know what is in
// them.
//
// What is to survive a power cut is written with Write or Commit: they return
// when the file's bytes and its name are on the disk. The Unsynced forms are for
// what can be made again (charts, reports, address files).
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Pending is a file that is being written and has not got its name yet: it is
// hidden, beside the place it will take. Commit or Abort ends it.
type Pending struct {
	*os.File
	path string
	done bool
}

// Create begins a file that will be called path. Permissions are perm less the
// process's umask, whatever those of a file that is replaced.
func Create(path string, perm fs.FileMode) (*Pending, error) {
	return CreateIn(filepath.Dir(path), path, perm)
}

// CreateIn is Create with the unfinished file in another folder of the same file
// system, for places where others take every file for one of theirs.
func CreateIn(dir, path string, perm fs.FileMode) (*Pending, error) {
	base := filepath.Base(path)
	base = base[:min(len(base), 240)] // 255 bytes are the most of any name
	for tries := 0; ; tries++ {
		name := filepath.Join(dir, strings.TrimSuffix(Unfinished(base), "*")+fmt.Sprintf("%08x", rand.Uint32()))
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, perm)
		if err == nil {
			return &Pending{File: f, path: path}, nil
		}
		if !errors.Is(err, fs.ErrExist) || tries == 100 {
			return nil, err
		}
	}
}

// Unfinished is a pattern, as path.Match takes it, of the names that a file has
// before its own: what a process leaves that is killed while it writes one.
func Unfinished(name string) string { return "." + name + ".tmp-*" }

// Commit puts the file in its place and returns when it is durable there. After
// an error the earlier file is in its place, unless the folder alone could not be
// synced.
func (p *Pending) Commit() error {
	err := p.Sync()
	if err == nil {
		err = p.CommitUnsynced()
	}
	if err != nil {
		p.Abort()
		return err
	}
	return SyncDir(filepath.Dir(p.path))
}

// CommitUnsynced puts the file in its place. After a power cut the place may hold
// an empty file.
func (p *Pending) CommitUnsynced() error {
	err := p.Close()
	if err == nil {
		err = os.Rename(p.Name(), p.path)
	}
	if err != nil {
		p.Abort()
		return err
	}
	p.done = true
	return nil
}

// Abort removes the file. It does nothing after a commit.
func (p *Pending) Abort() {
	if !p.done {
		p.done = true
		p.Close()
		os.Remove(p.Name())
	}
}

// Write replaces a file, durably.
func Write(path string, b []byte, perm fs.FileMode) error {
	return replace(path, bytes.NewReader(b), perm, (*Pending).Commit)
}

// WriteUnsynced replaces a file that may be lost in a power cut.
func WriteUnsynced(path string, b []byte, perm fs.FileMode) error {
	return replace(path, bytes.NewReader(b), perm, (*Pending).CommitUnsynced)
}

// Copy replaces a file by a copy of another, durably.
func Copy(from, to string, perm fs.FileMode) error {
	return duplicate(from, to, perm, (*Pending).Commit)
}

// CopyUnsynced replaces a file that may be lost in a power cut by a copy of
// another.
func CopyUnsynced(from, to string, perm fs.FileMode) error {
	return duplicate(from, to, perm, (*Pending).CommitUnsynced)
}

func duplicate(from, to string, perm fs.FileMode, commit func(*Pending) error) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return replace(to, in, perm, commit)
}

func replace(path string, in io.Reader, perm fs.FileMode, commit func(*Pending) error) error {
	p, err := Create(path, perm)
	if err == nil {
		if _, err = io.Copy(p.File, in); err == nil {
			err = commit(p)
		}
		p.Abort()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Rename renames a file and returns when its new name is on the disk; its bytes
// are if they were synced before. Both names are in one folder, or the old one may
// be there again after a power cut.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes durable which names a folder holds.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
