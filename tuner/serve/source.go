package serve

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Entry is a checkpoint that may be asked.
type Entry struct {
	ID     string `json:"id"`     // what a request names
	Name   string `json:"name"`   // what people read
	Source string `json:"source"` // file | leaderboard
	Time   string `json:"time,omitempty"`
	Note   string `json:"note,omitempty"` // value, trial
}

// Source finds checkpoints.
type Source interface {
	// List returns the entries, best or newest first; the first one answers where none is named.
	List(ctx context.Context) ([]Entry, error)
	// Path returns a file on this machine for an entry's id, fetching it if need be.
	Path(ctx context.Context, id string) (string, error)
}

// Files are checkpoints on this machine: files by name, and all model files
// below folders. Ids are the paths as given or relative to the folder's parent.
type Files struct {
	Dir   string   // relative paths start here
	Named []string // files and folders
}

const maxListed = 200

// List looks anew each time: a training that ends shows up.
func (f Files) List(context.Context) ([]Entry, error) {
	type found struct {
		Entry
		written time.Time
	}
	var all []found
	add := func(path string, info fs.FileInfo) {
		id := path
		if rel, err := filepath.Rel(f.Dir, path); err == nil && filepath.IsLocal(rel) {
			id = filepath.ToSlash(rel)
		}
		all = append(all, found{Entry{ID: id, Name: id, Source: "file", Time: info.ModTime().UTC().Format(time.RFC3339)}, info.ModTime()})
	}
	var missing []string
	for _, name := range f.Named {
		at := name
		if !filepath.IsAbs(at) {
			at = filepath.Join(f.Dir, at)
		}
		info, err := os.Stat(at)
		if err != nil {
			missing = append(missing, name)
			continue
		}
		if !info.IsDir() {
			add(at, info)
			continue
		}
		filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil // a folder that cannot be read hides its own models only
			case d.IsDir() && (d.Name() == "resume" || strings.HasPrefix(d.Name(), ".") && p != at):
				return fs.SkipDir
			case len(all) >= maxListed:
				return fs.SkipAll
			}
			if ext := filepath.Ext(p); !d.IsDir() && (ext == ".pth" || ext == ".safetensors") {
				if info, err := d.Info(); err == nil {
					add(p, info)
				}
			}
			return nil
		})
	}
	// The newest training first, and of a training the best model before the last.
	newest := map[string]time.Time{}
	for _, x := range all {
		if dir := path.Dir(x.ID); x.written.After(newest[dir]) {
			newest[dir] = x.written
		}
	}
	slices.SortStableFunc(all, func(a, b found) int {
		one, two := path.Dir(a.ID), path.Dir(b.ID)
		if one != two {
			return cmp.Or(newest[two].Compare(newest[one]), strings.Compare(one, two))
		}
		return cmp.Or(isBest(b.ID)-isBest(a.ID), b.written.Compare(a.written))
	})
	entries := make([]Entry, len(all))
	for i, x := range all {
		entries[i] = x.Entry
	}
	if len(missing) > 0 {
		return entries, fmt.Errorf("there is no %s", strings.Join(missing, ", "))
	}
	return entries, nil
}

// isBest is 1 for a training's best model, which is listed before others.
func isBest(id string) int {
	if strings.HasPrefix(path.Base(id), "best") {
		return 1
	}
	return 0
}

// Path answers for listed ids alone: a request cannot name another file.
func (f Files) Path(ctx context.Context, id string) (string, error) {
	entries, _ := f.List(ctx) // what is missing is not this one
	for _, e := range entries {
		if e.ID == id {
			if filepath.IsAbs(id) {
				return id, nil
			}
			return filepath.Join(f.Dir, filepath.FromSlash(id)), nil
		}
	}
	return "", fmt.Errorf("there is no checkpoint %q any more", id)
}
