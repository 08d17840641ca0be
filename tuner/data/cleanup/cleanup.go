// Package cleanup finds what does not belong into an image folder: files that
// are no pictures or broken ones, pictures too small to learn from, and
// pictures that are there twice. It moves them into a quarantine with the
// reason written down; it deletes nothing.
package cleanup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"atelier/tuner/data/likeness"
)

// Reasons a file goes.
const (
	Broken    = "broken" // begins as a picture, does not decode
	NoPicture = "no picture"
	Small     = "too small"
	Duplicate = "duplicate"
)

// Finding is one file that should go, and why.
type Finding struct {
	Path   string  `json:"path"` // relative to the folder, with slashes
	Reason string  `json:"reason"`
	Detail string  `json:"detail"`
	Of     string  `json:"of,omitempty"`   // the picture that stays, for duplicates
	Kind   string  `json:"kind,omitempty"` // of duplicate
	Score  float64 `json:"score,omitempty"`
}

// Conflict is one picture under two classes: somebody has to decide.
type Conflict struct {
	Paths []string `json:"paths"`
	Kind  string   `json:"kind"`
}

// Report is what a look at a folder found.
type Report struct {
	Dir       string     `json:"dir"`
	Files     int        `json:"files"`
	Pictures  int        `json:"pictures"`
	Go        []Finding  `json:"go"`                   // to be moved
	Similar   []Finding  `json:"similar,omitempty"`    // mirrored and cropped ones, where they stay
	Conflicts []Conflict `json:"label_conflicts"`      // across classes: reported, never moved
	WrongName []Finding  `json:"wrong_name,omitempty"` // pictures whose name says another type: harmless, they stay
}

// Options of a look.
type Options struct {
	MinSide  int  // shorter sides are too small; 0 = 32
	Near     bool // mirrored and cropped pictures go too
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
	var names, paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") && path != dir {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if name := filepath.ToSlash(rel); strings.Contains(name, "/") { // manifests lie beside the class folders
				names, paths = append(names, name), append(paths, path)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("clean up %s: %w", dir, err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("clean up %s: there are no files in subfolders; give a folder with one subfolder of pictures for each class", dir)
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
			if text := faults[i].Error(); strings.Contains(text, "not a picture") || strings.Contains(text, "text") || strings.Contains(text, "empty") || strings.Contains(text, "unknown") {
				reason = NoPicture
			}
			r.Go = append(r.Go, Finding{Path: name, Reason: reason, Detail: faults[i].Error()})
		case min(p.Width, p.Height) < o.MinSide:
			r.Go = append(r.Go, Finding{Path: name, Reason: Small, Detail: fmt.Sprintf("%d x %d pixels, want at least %d", p.Width, p.Height, o.MinSide)})
			prints[i] = nil // it goes anyway
		default:
			r.Pictures++
			if ext := strings.ToLower(filepath.Ext(name)); !agrees(p.Format, ext) {
				r.WrongName = append(r.WrongName, Finding{Path: name, Reason: "wrong name", Detail: fmt.Sprintf("a %s named %s", p.Format, ext)})
			}
		}
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
// ones in the order of names, a picture stays unless one that stays is the same
// picture; it goes as a duplicate of the most alike. So whatever goes was itself
// compared with what stays, and a likeness of a likeness is none. Pairs over two
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

// Moved is a line of the quarantine's manifest.
type Moved struct {
	Finding
	To   string `json:"to"` // relative to the quarantine
	Time string `json:"time"`
}

// Manifest is the file in a quarantine that says what came from where and why.
const Manifest = "quarantine.jsonl"

// Move puts what should go into the quarantine and writes each move down
// before it is made. What cannot be moved stays and is told.
func (r *Report) Move(ctx context.Context, quarantine string, now time.Time) (moved int, err error) {
	if len(r.Go) == 0 {
		return 0, nil
	}
	if rel, err := filepath.Rel(r.Dir, quarantine); err == nil && filepath.IsLocal(rel) && rel != "." && !strings.HasPrefix(rel, ".") {
		return 0, fmt.Errorf("quarantine %s lies inside %s, where its files would be pictures again; name a folder beside it", quarantine, r.Dir)
	}
	if err := os.MkdirAll(quarantine, 0o755); err != nil {
		return 0, err
	}
	manifest, err := os.OpenFile(filepath.Join(quarantine, Manifest), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer manifest.Close()
	var failed error
	for _, f := range r.Go {
		if err := ctx.Err(); err != nil {
			return moved, err
		}
		to := free(quarantine, f.Path)
		line, err := json.Marshal(Moved{f, to, now.UTC().Format(time.RFC3339)})
		if err == nil {
			_, err = manifest.Write(append(line, '\n'))
		}
		if err != nil {
			return moved, fmt.Errorf("write %s: %w", manifest.Name(), err)
		}
		if err := move(filepath.Join(r.Dir, filepath.FromSlash(f.Path)), filepath.Join(quarantine, filepath.FromSlash(to))); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		moved++
	}
	return moved, failed
}

// free is a name in the quarantine that nothing has yet.
func free(quarantine, path string) string {
	ext := filepath.Ext(path)
	stem := strings.TrimSuffix(path, ext)
	for n := 1; ; n++ {
		to := path
		if n > 1 {
			to = fmt.Sprintf("%s~%d%s", stem, n, ext)
		}
		if _, err := os.Lstat(filepath.Join(quarantine, filepath.FromSlash(to))); errors.Is(err, fs.ErrNotExist) {
			return to
		}
	}
}

// move renames, or copies and then removes where the quarantine is on another disk.
func move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		os.Remove(to)
		return err
	}
	return os.Remove(from)
}
