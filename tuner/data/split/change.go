package split

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"atelier/common/dataset"
)

// Replaced is the folder in a split, beside its parts, that has the earlier images
// of those that were replaced, by part.
const Replaced = "replaced"

// Move is an image that has another name, and perhaps another class, than when it
// was split.
type Move struct{ From, To string }

// change is how the images of a folder differ from those of its split.
type change struct {
	moved    []Move
	replaced []string // names with another content
}

// compare finds what was moved, relabelled or replaced since the split was made.
// Few files are read: one inode is one content, and of the others the sizes and
// times are compared first.
func (m *manifest) compare(folder *dataset.Folder, from, to string) (c change) {
	stale := map[string]bool{} // split under this name, and no longer there or another content
	for name := range m.Files {
		stale[name] = true
	}
	var open []string // names whose content was not split under them
	for _, f := range folder.Files {
		name := filepath.ToSlash(f.Path)
		part, known := m.Files[name]
		if known && unchanged(filepath.Join(from, f.Path), target(to, part, name)) {
			delete(stale, name)
			continue
		}
		open = append(open, name)
	}
	bySize := map[int64][]string{}
	if len(open) > 0 {
		for _, name := range slices.Sorted(maps.Keys(stale)) {
			if info, err := os.Stat(target(to, m.Files[name], name)); err == nil {
				bySize[info.Size()] = append(bySize[info.Size()], name)
			}
		}
	}
	for _, name := range open {
		here := filepath.Join(from, filepath.FromSlash(name))
		info, err := os.Stat(here)
		if err != nil {
			continue
		}
		found := slices.IndexFunc(bySize[info.Size()], func(old string) bool {
			return same(here, target(to, m.Files[old], old))
		})
		if found >= 0 {
			old := bySize[info.Size()][found]
			bySize[info.Size()] = slices.Delete(bySize[info.Size()], found, found+1)
			c.moved = append(c.moved, Move{From: old, To: name})
		} else if m.Files[name] != "" {
			c.replaced = append(c.replaced, name)
		}
	}
	return c
}

// Follow brings a split up to date with what Read found moved and replaced, before
// Split adds what is new. A moved image keeps its part. Of a replaced one the
// earlier content goes to the folder Replaced and the new is dealt out by Split.
// Nothing is deleted, and cut short anywhere, it leaves what Split completes.
func (k *Known) Follow(to string) error {
	if len(k.Moved) == 0 && len(k.Replaced) == 0 {
		return nil
	}
	path := filepath.Join(to, Manifest)
	m, err := readManifest(path)
	if err != nil {
		return err
	}
	aside := filepath.Join(to, Replaced, time.Now().Format("20060102T150405.000"))
	type staged struct{ at, to string }
	var back []staged
	files := maps.Clone(m.Files)
	stale := map[string]bool{}
	for _, name := range k.Replaced {
		stale[name] = true
	}
	for _, v := range k.Moved {
		stale[v.From] = true
		if m.Files[v.To] != "" {
			stale[v.To] = true
		}
	}
	for name := range stale {
		at := target(aside, m.Files[name], name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.Rename(target(to, m.Files[name], name), at); err != nil && !os.IsNotExist(err) {
			return err
		}
		delete(files, name)
	}
	for _, v := range k.Moved {
		part := m.Files[v.From]
		files[v.To] = part
		back = append(back, staged{target(aside, part, v.From), target(to, part, v.To)})
	}
	m.Files = files
	if err := m.write(path); err != nil {
		return err
	}
	for _, s := range back {
		if err := os.MkdirAll(filepath.Dir(s.to), 0o755); err != nil {
			return err
		}
		if _, err := os.Lstat(s.to); err == nil {
			continue // put there by a person: it stays, and what was staged is kept aside
		}
		if err := os.Rename(s.at, s.to); err != nil {
			return err
		}
	}
	for _, v := range k.Moved {
		// A class that all images have left is not one any more; Split makes the others again.
		for _, part := range Parts {
			os.Remove(filepath.Dir(target(to, part, v.From))) // fails where something lies in it
		}
	}
	prune(filepath.Join(to, Replaced))
	return nil
}

// prune removes the empty folders in a folder, and it if it is empty.
func prune(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			prune(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir) // fails where something lies in it
}

// unchanged reports whether an image is what was split. A copy that is newer than
// the last change of the image has its content.
func unchanged(image, split string) bool {
	a, errA := os.Stat(image)
	b, errB := os.Stat(split)
	switch {
	case errB != nil || errA != nil:
		return true // not put there yet, or unreadable: Split reports it
	case os.SameFile(a, b):
		return true
	case a.Size() != b.Size():
		return false
	}
	if st, ok := a.Sys().(*syscall.Stat_t); ok && time.Unix(st.Ctim.Unix()).Before(b.ModTime()) {
		return true
	}
	return same(image, split)
}

// same reports whether two files have one content.
func same(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX != nil || errY != nil || !x.Mode().IsRegular() || !y.Mode().IsRegular() || x.Size() != y.Size() {
		return false
	}
	if os.SameFile(x, y) {
		return true
	}
	equal, err := sameContent(a, b)
	return err == nil && equal
}

// enough images tell whether a split is of a folder.
const enough = 40

// of reports whether the split in to is of a folder: of this path, or, since
// folders are moved and copied with their splits, of these images.
func (m *manifest) of(folder *dataset.Folder, from, to string) bool {
	a, errA := os.Stat(m.Source)
	b, errB := os.Stat(from)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return true
	}
	var known []string
	for _, f := range folder.Files {
		if name := filepath.ToSlash(f.Path); m.Files[name] != "" {
			known = append(known, name)
		}
	}
	// In an order of chance that stays: neighbours are alike.
	slices.SortFunc(known, func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return bytes.Compare(x[:], y[:])
	})
	known = known[:min(len(known), enough)]
	alike := 0
	for _, name := range known {
		if same(filepath.Join(from, filepath.FromSlash(name)), target(to, m.Files[name], name)) {
			alike++
		}
	}
	return alike > 0 && 2*alike >= len(known)
}
