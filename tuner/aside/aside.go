// Package aside keeps the results that --overwrite replaces until new ones
// stand in their place: they are moved into a folder beside them, and put back
// if nothing comes of the new. A process killed at any moment leaves all of
// them, here or there; Recover goes on from that. The caller holds the folder's
// lock.
package aside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"atelier/common/files"
)

// Dir is the folder in a results folder that takes what is replaced.
const Dir = "replaced"

// The file of this name in it says how far things are: what it takes to
// recover.
const (
	stageFile = ".stage"
	moving    = "moving"    // results are on their way into it
	kept      = "kept"      // all are in it; what lies outside is new
	returning = "returning" // results are on their way back; nothing new is left
)

// Folder is a folder of results.
type Folder struct {
	Path string
	// Own lists what of a result lies in the folder, by names relative to it:
	// what is moved aside, and what is removed before that comes back.
	Own func() ([]string, error)
	// Stands reports whether what lies in the folder is worth having by itself.
	Stands func() (bool, error)
}

func (f Folder) at(name ...string) string {
	return filepath.Join(append([]string{f.Path}, name...)...)
}

func (f Folder) stage() (string, error) {
	b, err := os.ReadFile(f.at(Dir, stageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// mark writes a stage down before it begins.
func (f Folder) mark(stage string) error {
	return files.Write(f.at(Dir, stageFile), []byte(stage), 0o644)
}

// Set moves what the folder has aside. Recover must have been called before.
func (f Folder) Set() error {
	names, err := f.Own()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.at(Dir), 0o755); err != nil {
		return err
	}
	if err := f.mark(moving); err != nil {
		return err
	}
	for _, name := range names {
		if err := move(f.at(name), f.at(Dir, name)); err != nil {
			return err
		}
	}
	return f.mark(kept)
}

// Drop removes what was set aside, if anything was: the new results stand.
func (f Folder) Drop() error { return os.RemoveAll(f.at(Dir)) }

// Held reports whether results are aside.
func (f Folder) Held() bool {
	stage, err := f.stage()
	return err == nil && stage == kept
}

// PutBack removes what is new and puts back what was set aside. Nothing happens
// where nothing is aside.
func (f Folder) PutBack() error {
	if !f.Held() {
		return nil
	}
	names, err := f.Own()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.RemoveAll(f.at(name)); err != nil {
			return err
		}
	}
	if err := f.mark(returning); err != nil {
		return err
	}
	return f.back()
}

// back moves whatever is aside to its place.
func (f Folder) back() error {
	var names []string
	err := filepath.WalkDir(f.at(Dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var name string
			name, err = filepath.Rel(f.at(Dir), path)
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
		if err := move(f.at(Dir, name), f.at(name)); err != nil {
			return err
		}
	}
	return f.Drop()
}

// Recover settles what a process left that was killed: results that were on
// their way aside or back are put back, and so are those whose successor does
// not stand; else they go.
func (f Folder) Recover() error {
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
			return f.Drop()
		}
		return f.PutBack()
	}
	return f.back()
}

func move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep earlier results: %w", err)
	}
	return nil
}
