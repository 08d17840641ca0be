package split

import (
	"os"
	"path/filepath"

	"atelier/common/dataset"
)

// Known is an earlier split of a folder.
type Known struct {
	Seed    uint64
	Ratios  [3]float64
	Current bool // it has every image of the folder, by name
	Gone    int  // images that it has and the folder no longer
}

// Read looks at the split of from in to; nil if there is none. Names are
// compared and no image is opened.
func Read(from, to string) (*Known, error) {
	m, err := readManifest(filepath.Join(to, Manifest))
	if err != nil || m == nil {
		return nil, err
	}
	folder, err := dataset.List(from)
	if err != nil {
		return nil, err
	}
	k := &Known{Seed: m.Seed, Ratios: m.Ratios, Current: true, Gone: len(m.Files)}
	skipped := make(map[string]bool, len(m.Skipped))
	for _, name := range m.Skipped {
		skipped[name] = true
	}
	for _, f := range folder.Files {
		name := filepath.ToSlash(f.Path)
		part := m.Files[name]
		if part == "" && !skipped[name] {
			k.Current = false
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
	return k, nil
}
