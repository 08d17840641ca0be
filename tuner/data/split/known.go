package split

import (
	"os"
	"path/filepath"

	"atelier/common/dataset"
)

// Known is an earlier split of a folder.
type Known struct {
	Seed     uint64
	Ratios   [3]float64
	Source   string   // the folder that was split
	Other    bool     // Source is another folder than the one asked about; nothing below is filled in then
	Current  bool     // it has every image of the folder
	Gone     int      // images that it has and the folder no longer
	Moved    []Move   // to another name or class
	Replaced []string // by another image of that name
}

// Read looks at the split of from in to; nil if there is none. Names, sizes and
// times are compared; files are read only where these do not tell. It changes
// nothing: Follow does.
func Read(from, to string) (*Known, error) {
	m, err := readManifest(filepath.Join(to, Manifest))
	if err != nil || m == nil {
		return nil, err
	}
	folder, err := dataset.List(from)
	if err != nil {
		return nil, err
	}
	k := &Known{Seed: m.Seed, Ratios: m.Ratios, Source: m.Source, Current: true, Gone: len(m.Files)}
	if k.Other = !m.of(folder, from, to); k.Other {
		return k, nil
	}
	c := m.compare(folder, from, to)
	k.Moved, k.Replaced = c.moved, c.replaced
	made, err := os.Stat(filepath.Join(to, Manifest))
	if err != nil {
		return nil, err
	}
	skipped := make(map[string]bool, len(m.Skipped))
	for _, name := range m.Skipped {
		skipped[name] = true
	}
	for _, f := range folder.Files {
		name := filepath.ToSlash(f.Path)
		part := m.Files[name]
		if part == "" {
			// What was not an image may have been mended since.
			info, err := os.Stat(filepath.Join(from, f.Path))
			if !skipped[name] || err == nil && info.ModTime().After(made.ModTime()) {
				k.Current = false
			}
		}
		if part != "" {
			k.Gone--
		}
		// A split that was cut short has a place for images that it has not put there.
		if part != "" && k.Current {
			_, err := os.Lstat(target(to, part, name))
			k.Current = err == nil
		}
	}
	for _, v := range k.Moved {
		if _, err := os.Lstat(filepath.Join(from, filepath.FromSlash(v.From))); err != nil {
			k.Gone--
		}
	}
	k.Current = k.Current && len(k.Moved) == 0 && len(k.Replaced) == 0
	return k, nil
}
