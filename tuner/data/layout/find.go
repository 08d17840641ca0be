package layout

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/dataset"
)

// Bounds of a search: a person waits for it, perhaps in a home folder.
const (
	mostDepth   = 2       // folders below the one that is searched
	mostFolders = 400     // that are opened
	mostEntries = 300_000 // names that are read
)

// skipped are names of folders in which images are results.
var skipped = []string{"checkpoints", "checkpoints_tuning", "results", "mlruns", "node_modules", "venv", "site-packages"}

// Find lists the folders at or below one that can be trained on, by their place:
// those that are nearest first, those with most images before others. The split
// that Ready made of class folders is not listed beside them. The search is
// bounded, and leaves out what cannot be read.
func Find(dir string) []Layout {
	f := &finder{scan: scan{left: mostEntries}, folders: mostFolders}
	f.search(dir, 0)
	made := map[string]bool{}
	for _, l := range f.found {
		if l.Kind == Classes {
			made[SplitOf(l.Dir)] = true
		}
	}
	all := slices.DeleteFunc(f.found, func(l Layout) bool { return l.Kind == Split && made[l.Dir] })
	depth := func(l Layout) int { return strings.Count(l.Dir, string(filepath.Separator)) }
	slices.SortStableFunc(all, func(a, b Layout) int {
		return cmp.Or(cmp.Compare(depth(a), depth(b)), cmp.Compare(b.Images, a.Images), strings.Compare(a.Dir, b.Dir))
	})
	return all
}

type finder struct {
	scan
	folders int
	found   []Layout
}

func (f *finder) search(dir string, depth int) {
	if f.folders--; f.folders < 0 || f.left < 0 {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil || other(entries) {
		return
	}
	// A classifier needs two classes, and a class without an image is refused by a training.
	if l, err := f.look(dir); err == nil && l.Kind != Other && len(l.Classes) > 1 && f.full(l) {
		f.found = append(f.found, l)
		return
	}
	if depth == mostDepth {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if folder, _ := dataset.Followed(dir, e); folder && !dataset.Hidden(name) && !slices.Contains(skipped, name) && !strings.HasSuffix(name, "_quarantine") {
			f.search(filepath.Join(dir, name), depth+1)
		}
	}
}

// full reports whether every class to learn has an image.
func (f *finder) full(l Layout) bool {
	dir := l.Dir
	if l.Kind == Split {
		dir = l.Train
	}
	return !slices.ContainsFunc(l.Classes, func(name string) bool {
		own, below, err := f.count(filepath.Join(dir, name), 0)
		return err != nil || own+below == 0
	})
}
