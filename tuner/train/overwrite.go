package train

import (
	"os"
	"path/filepath"
	"slices"

	"atelier/tuner/aside"
)

// earlier is the training that --overwrite replaces: it stays until the new one
// has a checkpoint.
func (f *folder) earlier() aside.Folder {
	return aside.Folder{Path: f.dir, Own: func() ([]string, error) {
		own := f.results()
		entries, err := os.ReadDir(f.resume())
		for _, e := range entries {
			if name := filepath.Join(resumeDir, e.Name()); e.Name() != lockFile && !slices.Contains(own, name) {
				own = append(own, name)
			}
		}
		return own, err
	}, Stands: func() (bool, error) {
		all, err := f.checkpoints()
		_, best := os.Stat(f.resume(bestLink)) // what a cluster's training is left with
		return len(all) > 0 || best == nil, err
	}}
}
