package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Named is a path that a run's settings name.
type Named struct {
	Key  string // of the setting, for people
	Path string // absolute
	Sure bool   // the setting is a path; else a text that may happen to be one
}

// Outside is the error of a setting whose path trainers of this worker must not
// have.
type Outside struct{ Key, Path, Why string }

func (e *Outside) Error() string { return fmt.Sprintf("%s: %s %s", e.Key, e.Path, e.Why) }

// Bounds of what is looked at in a folder of data for links that lead out of it.
const (
	lookedAt  = 64  // entries of a class folder
	lookedIn  = 256 // class folders
	mostLinks = 64  // folders that links lead to
)

// Open is what has to be opened to a trainer for its settings: files and folders,
// links resolved, and where links in a folder of images lead. Of a path that is not
// there the folder's names can be listed. What
// trainers can read anyway is left out; so are texts that are no paths, or must not
// be. An error, an *Outside, is of a setting that is surely a path.
func (c *Confinement) Open(settings []Named) (read []string, err error) {
	if c == nil {
		return nil, nil
	}
	for _, s := range settings {
		real, err := filepath.EvalSymlinks(s.Path)
		if err != nil {
			// The trainer reports what is missing, and what beside it may be meant.
			if folder, err := filepath.EvalSymlinks(filepath.Dir(s.Path)); err == nil && s.Sure && c.closed(folder) == "" {
				read = append(read, filepath.Join(folder, filepath.Base(s.Path)))
			}
			continue
		}
		if why := c.closed(real); why != "" {
			if s.Sure {
				return nil, &Outside{s.Key, s.Path, why}
			}
			continue
		}
		for _, path := range append([]string{real}, c.links(real)...) {
			if !c.open(path) && !slices.Contains(read, path) {
				read = append(read, path)
			}
		}
	}
	slices.Sort(read)
	return slices.Compact(read), nil
}

// open reports whether all trainers of this worker may read a path.
func (c *Confinement) open(real string) bool {
	inside := func(dir string) bool { return in(real, dir) }
	return slices.ContainsFunc(c.cfg.Write, inside) || slices.ContainsFunc(c.cfg.Read, inside)
}

// closed is why a path, links resolved, must not be opened; "" = it may be.
func (c *Confinement) closed(real string) string {
	if c.open(real) {
		return ""
	}
	for _, p := range c.cfg.Private {
		switch {
		case in(real, p):
			return "lies in the worker's own data folder " + p
		case in(p, real):
			return "contains the worker's own data folder " + p + ": name the folder of the images itself, or move one of them"
		}
	}
	if len(c.cfg.Roots) > 0 && !slices.ContainsFunc(c.cfg.Roots, func(root string) bool { return in(real, root) }) {
		return "lies outside of the folders that this worker opens to trainers (--data-root " + strings.Join(c.cfg.Roots, ",") + ")"
	}
	return ""
}

// links are the folders outside of a folder of images that links in it lead to:
// its classes may be links, or their images may. Of these the first tell, for a
// folder has a million.
func (c *Confinement) links(dir string) (out []string) {
	follow := func(path string) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || in(real, dir) || len(out) >= mostLinks {
			return
		}
		if info, err := os.Stat(real); err != nil || !info.IsDir() {
			real = filepath.Dir(real)
		}
		if c.closed(real) == "" && !slices.Contains(out, real) {
			out = append(out, real)
		}
	}
	classes, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for i, class := range classes {
		path := filepath.Join(dir, class.Name())
		if class.Type()&os.ModeSymlink != 0 {
			follow(path)
		}
		if info, err := os.Stat(path); i >= lookedIn || err != nil || !info.IsDir() {
			continue
		}
		images, err := readSome(path)
		if err != nil {
			continue
		}
		for _, image := range images {
			if image.Type()&os.ModeSymlink != 0 {
				follow(filepath.Join(path, image.Name()))
			}
		}
	}
	return out
}

// readSome are the first entries of a folder, in no order.
func readSome(dir string) ([]os.DirEntry, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(lookedAt)
}

// Covers reports whether paths that were opened to a trainer at its start have
// all that Open asks for now.
func (c *Confinement) Covers(opened, asked []string) bool {
	if !c.Folders() {
		return true
	}
	for _, path := range asked {
		if !slices.ContainsFunc(opened, func(dir string) bool { return in(path, dir) }) {
			return false
		}
	}
	return true
}
