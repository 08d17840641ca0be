// Package cleanup finds what does not belong into an image folder: files that
// are called images and are none or broken, images too small to learn from,
// and images that are there twice. It moves them into a quarantine with the
// reason written down, and back again; it deletes nothing. It refuses folders
// that are no image folders (guard.go) and leaves other files alone.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/dataset"
	"atelier/tuner/data/likeness"
)

// Reasons a file goes.
const (
	Broken     = "broken" // begins as an image, does not decode
	NotAnImage = "not an image"
	Small      = "too small"
	Duplicate  = "duplicate"
)

// Finding is one file that should go, and why.
type Finding struct {
	Path   string  `json:"path"` // relative to the folder, with slashes
	Reason string  `json:"reason"`
	Detail string  `json:"detail"`
	Of     string  `json:"of,omitempty"`   // the image that stays, for duplicates
	Kind   string  `json:"kind,omitempty"` // of duplicate
	Score  float64 `json:"score,omitempty"`
}

// Conflict is one image under two classes: somebody has to decide.
type Conflict struct {
	Paths []string `json:"paths"`
	Kind  string   `json:"kind"`
}

// Report is what a look at a folder found.
type Report struct {
	Dir       string     `json:"dir"`
	Files     int        `json:"files"`
	Images    int        `json:"pictures"`
	Go        []Finding  `json:"go"`                   // to be moved
	Similar   []Finding  `json:"similar,omitempty"`    // mirrored and cropped ones, where they stay
	Conflicts []Conflict `json:"label_conflicts"`      // across classes: reported, never moved
	WrongName []Finding  `json:"wrong_name,omitempty"` // images whose name says another type: harmless, they stay
	LeftOut   []string   `json:"left_out,omitempty"`   // what was not looked at, in words
}

// Options of a look.
type Options struct {
	MinSide  int  // shorter sides are too small; 0 = 32
	Near     bool // mirrored and cropped images go too
	Others   bool // files whose ending is no image's are looked at too, and go unless they are images
	Force    bool // a folder of few images among many files is taken for an image folder
	Workers  int
	Progress func(done, total int)
}

var parts = []string{"train", "validation", "val", "test"}

// classOf is the class folder of a path: the first one, or the second where
// the first is a part of a split.
func classOf(path string) string {
	names := strings.Split(path, "/")
	if len(names) > 2 && slices.Contains(parts, names[0]) {
		return names[1]
	}
	if len(names) > 1 {
		return names[0]
	}
	return ""
}

// Look reads every file below dir.
func Look(ctx context.Context, dir string, o Options) (*Report, error) {
	if o.MinSide == 0 {
		o.MinSide = 32
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	r := &Report{Dir: dir, Go: []Finding{}, Conflicts: []Conflict{}}
	all, err := walk(dir)
	if err != nil {
		return nil, fmt.Errorf("clean up %s: %w", dir, err)
	}
	if err := all.refuse(dir, o.Force); err != nil {
		return nil, err
	}
	names := slices.Clone(all.images)
	if o.Others {
		names = append(names, all.others...)
		all.left.Endings = nil
		slices.Sort(names)
	}
	if text := all.left.String(); text != "" {
		r.LeftOut = append(r.LeftOut, text)
	}
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = filepath.Join(dir, filepath.FromSlash(name))
	}
	r.Files = len(paths)
	prints, faults, err := likeness.Read(ctx, paths, o.Workers, o.Progress)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		switch p := prints[i]; {
		case p == nil:
			reason := Broken
			if _, foreign := errors.AsType[dataset.NotImageError](faults[i]); foreign {
				reason = NotAnImage
			}
			r.Go = append(r.Go, Finding{Path: name, Reason: reason, Detail: faults[i].Error()})
		case min(p.Width, p.Height) < o.MinSide:
			r.Go = append(r.Go, Finding{Path: name, Reason: Small, Detail: fmt.Sprintf("%d x %d pixels, want at least %d", p.Width, p.Height, o.MinSide)})
			prints[i] = nil // it goes anyway
		default:
			r.Images++
			if ext := strings.ToLower(filepath.Ext(name)); !agrees(p.Format, ext) {
				r.WrongName = append(r.WrongName, Finding{Path: name, Reason: "wrong name", Detail: fmt.Sprintf("a %s with the name %s", p.Format, ext)})
			}
		}
	}
	if err := r.mostlyImages(all, o.Force); err != nil {
		return nil, err
	}
	r.duplicates(names, prints, likeness.Pairs(prints), o)
	slices.SortFunc(r.Go, func(a, b Finding) int { return strings.Compare(a.Path, b.Path) })
	return r, nil
}

func agrees(format, ext string) bool {
	switch format {
	case "jpeg":
		return ext == ".jpg" || ext == ".jpeg" || ext == ".jpe" || ext == ".jfif"
	case "tiff":
		return ext == ".tif" || ext == ".tiff"
	case "pnm":
		return ext == ".pgm" || ext == ".ppm" || ext == ".pbm" || ext == ".pnm"
	}
	return ext == "."+format
}

// duplicates decides what stays: from the largest to the smallest, of equal
// ones in the order of names, an image stays unless one that stays is the same
// image; it goes as a duplicate of the most alike. So whatever goes was itself
// compared with what stays, and similarity is not transitive. Pairs over two
// classes are conflicts.
func (r *Report) duplicates(names []string, prints []*likeness.Print, pairs []likeness.Pair, o Options) {
	alike := map[int][]likeness.Pair{}
	var similar []likeness.Pair
	for _, p := range pairs {
		switch {
		case classOf(names[p.A]) != classOf(names[p.B]):
			r.Conflicts = append(r.Conflicts, Conflict{Paths: []string{names[p.A], names[p.B]}, Kind: string(p.Kind)})
		case p.Kind == likeness.Copy || p.Kind == likeness.Same || o.Near:
			alike[p.A], alike[p.B] = append(alike[p.A], p), append(alike[p.B], p)
		default:
			similar = append(similar, p)
		}
	}
	order := slices.Sorted(maps.Keys(alike))
	slices.SortStableFunc(order, func(a, b int) int {
		return prints[b].Width*prints[b].Height - prints[a].Width*prints[a].Height
	})
	stays, gone := map[int]bool{}, map[int]bool{}
	for _, i := range order {
		var best likeness.Pair
		keep := -1
		for _, p := range alike[i] {
			if other := p.A + p.B - i; stays[other] && (keep < 0 || p.Score > best.Score) {
				best, keep = p, other
			}
		}
		if keep < 0 {
			stays[i] = true
			continue
		}
		gone[i] = true
		r.Go = append(r.Go, Finding{Path: names[i], Reason: Duplicate, Of: names[keep], Kind: string(best.Kind), Score: best.Score, Detail: fmt.Sprintf("%s of %s", best.Kind, names[keep])})
	}
	for _, p := range similar {
		if !gone[p.A] && !gone[p.B] {
			r.Similar = append(r.Similar, Finding{Path: names[p.B], Reason: Duplicate, Of: names[p.A], Kind: string(p.Kind), Score: p.Score, Detail: fmt.Sprintf("%s, %s", p.Kind, names[p.A])})
		}
	}
}
