package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"atelier/tuner/data/split"
)

// Ratios and Seed are those of a split that nobody asked for by name: those of
// `atelier data split`.
var Ratios = [3]float64{0.7, 0.15, 0.15}

// Seed of such a split.
const Seed = 42

// SplitOf is the folder that class folders are split into: beside them.
func SplitOf(dir string) string { return filepath.Clean(dir) + "_split" }

// Done is what Ready did.
type Done struct {
	Layout
	From   string        // the class folders; "" where the folder was split already
	Report *split.Report // nil: nothing had to be done
	Gone   int           // images that the split has and From no longer
	Notes  []string      // of the listing of From, where it was split

	Moved    []split.Move // names of images that were moved or relabelled; the split follows
	Replaced []string     // names of images that were replaced; the split has the new, and keeps the earlier in split.Replaced
}

// Ready makes a folder fit for a training. A Split stays as it is. Class folders
// are split into SplitOf, by hard links where the file system has them; copies
// of an image stay in one part. Done again, it takes that split if the class
// folders have not changed, and else adds the new images and follows those that
// were moved, relabelled or replaced; only a replaced one may change its part. A
// split of another folder is refused, as is Other with its reason.
func Ready(ctx context.Context, l Layout, progress func(done, total int)) (*Done, error) {
	if l.Kind == Split {
		return &Done{Layout: l}, nil
	}
	if l.Kind == Other {
		return nil, errors.New(l.Why)
	}
	if len(l.Classes) < 2 {
		return nil, fmt.Errorf("%s has one class (%s): a classifier needs two; give a folder with one folder of images per class", l.Dir, l.Classes[0])
	}
	d := &Done{From: l.Dir}
	to := SplitOf(l.Dir)
	o := split.Options{Ratios: Ratios, Seed: Seed, Link: true, Workers: runtime.GOMAXPROCS(0), Progress: progress}
	known, err := split.Read(l.Dir, to)
	switch {
	case err != nil:
		return nil, err
	case known == nil:
		if entries, err := os.ReadDir(to); err == nil && len(entries) > 0 {
			return nil, fmt.Errorf("%s has class folders, and %s beside it is something else: split it by hand, atelier data split %s OUT, and give OUT", l.Dir, to, l.Dir)
		}
	case known.Other:
		return nil, fmt.Errorf("%s is a split of %s, not of %s: nothing was changed; to use that split give --data %s; to use %s split it into another folder, atelier data split %s OUT, and give --data OUT", to, known.Source, l.Dir, to, l.Dir, l.Dir)
	default:
		if err := known.Follow(to); err != nil {
			return nil, fmt.Errorf("update %s: %w", to, err)
		}
		d.Moved, d.Replaced = known.Moved, known.Replaced
		o.Ratios, o.Seed, d.Gone = known.Ratios, known.Seed, known.Gone
	}
	if known == nil || !known.Current {
		o.Say = func(notes []string) { d.Notes = notes }
		if d.Report, err = split.Split(ctx, l.Dir, to, o); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				err = fmt.Errorf("%w; split it into a folder of yours: atelier data split %s OUT, and give OUT", err, l.Dir)
			}
			return nil, err
		}
	}
	if d.Layout, err = Look(to); err == nil && d.Kind != Split {
		err = fmt.Errorf("%s is not a split any more: remove it, and %s is split again", to, l.Dir)
	}
	return d, err
}
