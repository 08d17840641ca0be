package session

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"atelier/common/files"
)

// Results that --overwrite replaces stay until new ones stand in their place:
// they are moved into a folder beside them, and put back if nothing comes of the
// new. A process killed at any moment leaves all of them, here or there; the next
// Begin puts things right.

// ReplacedDir is the folder in a folder of results that takes what is replaced.
const ReplacedDir = "replaced"

// The file of this name in it says how far things are: what it takes to
// recover.
const (
	stageFile = ".stage"
	moving    = "moving"    // results are on their way into it
	kept      = "kept"      // all are in it; what lies outside is new
	returning = "returning" // results are on their way back; nothing new is left
)

// own lists what of a session lies in the folder: what is moved aside, and what
// is removed before that comes back.
func (f *Folder) own() ([]string, error) {
	left, err := f.leftovers()
	return append(f.results(), left...), err
}

// stage is how far a replacement had come when the process ended; "" for none under way.
func (f *Folder) stage() (string, error) {
	b, err := os.ReadFile(f.Path(ReplacedDir, stageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// mark writes a stage down before it begins.
func (f *Folder) mark(stage string) error {
	return files.Write(f.Path(ReplacedDir, stageFile), []byte(stage), 0o644)
}

// setAside moves what the folder has aside.
func (f *Folder) setAside() error {
	names, err := f.own()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Path(ReplacedDir), 0o755); err != nil {
		return err
	}
	if err := f.mark(moving); err != nil {
		return err
	}
	for _, name := range names {
		if err := move(f.Path(name), f.Path(ReplacedDir, name)); err != nil {
			return err
		}
	}
	return f.mark(kept)
}

// DropReplaced removes what was set aside, if anything was: the new results stand.
func (f *Folder) DropReplaced() error { return os.RemoveAll(f.Path(ReplacedDir)) }

// Replaces reports whether earlier results are aside.
func (f *Folder) Replaces() bool {
	stage, err := f.stage()
	return err == nil && stage == kept
}

// PutBack removes what is new and puts back what was set aside. Nothing happens
// where nothing is aside.
func (f *Folder) PutBack() error {
	if !f.Replaces() {
		return nil
	}
	names, err := f.own()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.RemoveAll(f.Path(name)); err != nil {
			return err
		}
	}
	if err := f.mark(returning); err != nil {
		return err
	}
	return f.back()
}

// Stands reports whether what lies in the folder is worth having by itself.
func (f *Folder) Stands() (bool, error) {
	if f.kind.Stands == nil {
		return false, nil
	}
	return f.kind.Stands(f)
}

// back moves whatever is aside to its place.
func (f *Folder) back() error {
	var names []string
	err := filepath.WalkDir(f.Path(ReplacedDir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var name string
			name, err = filepath.Rel(f.Path(ReplacedDir), path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		half, _ := filepath.Match(files.Unfinished(stageFile), n)
		return half || n == stageFile || n == stageFile+".new" // an earlier build's name
	})
	for _, name := range names {
		if err := move(f.Path(ReplacedDir, name), f.Path(name)); err != nil {
			return err
		}
	}
	return f.DropReplaced()
}

// recover settles what a process left that was killed: results that were on
// their way aside or back are put back, and so are those whose successor does
// not stand; else they go.
func (f *Folder) recover() error {
	stage, err := f.stage()
	if err != nil {
		return err
	}
	switch stage {
	case "":
		return nil
	case kept:
		stands, err := f.Stands()
		if err != nil {
			return err
		}
		if stands {
			return f.DropReplaced()
		}
		return f.PutBack()
	}
	return f.back()
}

// move renames; what is not there was moved before.
func move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep earlier results: %w", err)
	}
	return nil
}
