package tune

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"

	"atelier/common/dataset"
	"atelier/tuner/session"
)

const subsetName = "subset"

func (p *Plan) subsetDir(part string) string {
	return filepath.Join(p.Folder, session.ResumeDir, subsetName, part)
}

// makeSubsets links a part of the images into folders of their own. Which
// images depends on the seed and their names alone, so a session that goes on
// finds the same.
func (p *Plan) makeSubsets() error {
	for i, x := range []struct {
		part string
		of   *dataset.Folder
	}{{"train", p.train}, {"validation", p.valid}} {
		if p.subset[i] == 0 || x.of == nil {
			continue
		}
		dir := p.subsetDir(x.part)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		byClass := make([][]string, len(x.of.Classes))
		for _, f := range x.of.Files {
			byClass[f.Class] = append(byClass[f.Class], f.Path)
		}
		for _, files := range byClass {
			for _, path := range pick(files, p.subset[i], p.Config.Get(KeySeed).Text()) {
				to := filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					return err
				}
				from, err := filepath.Abs(filepath.Join(x.of.Dir, path))
				if err == nil {
					err = os.Symlink(from, to)
				}
				if err != nil && !errors.Is(err, os.ErrExist) {
					return fmt.Errorf("subset of the images: %w", err)
				}
			}
		}
	}
	return nil
}

// pick takes n of some files, by a hash of their names.
func pick(files []string, n int, seed string) []string {
	key := func(path string) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%s", seed, path)
		x := h.Sum64()
		x ^= x >> 30 // FNV leaves the high bits of short inputs alike (splitmix64)
		x *= 0xbf58476d1ce4e5b9
		return x ^ x>>27
	}
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b string) int { return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(a, b)) })
	return sorted[:min(n, len(sorted))]
}
