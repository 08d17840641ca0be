package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"atelier/deploy/bench/harness"
	"atelier/tuner/data/cleanup"
	"atelier/tuner/data/planted"
)

// faults plants each kind once beside every image and asks cleanup.
func (o *options) faults(ctx context.Context) error {
	from := o.distinct
	if _, err := os.Stat(from); err != nil {
		o.Say("%s does not exist: drawn images instead", from)
		if from, err = drawn(ctx, filepath.Join(o.Dir, "distinct"), 240, 176); err != nil {
			return err
		}
	}
	n, err := count(from)
	if err != nil {
		return err
	}
	table := harness.NewTable("planted", "found", "recall", "other images called duplicates or broken", "precision", "label conflicts")
	o.Printf("\nEach of %d images of %s planted again, kind by kind; cleanup with --near and --min-side 16, %s\n\n", n, filepath.Base(from), time.Now().UTC().Format("2006-01-02"))
	for _, kind := range append(append([]planted.Kind{}, planted.Again...), planted.Faults...) {
		dir := filepath.Join(o.Dir, "faults")
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		plants, err := planted.Into(from, dir, func(int) planted.Kind { return kind })
		if err != nil {
			return err
		}
		r, err := cleanup.Look(ctx, dir, cleanup.Options{MinSide: 16, Near: true, Force: true, Workers: runtime.GOMAXPROCS(0)})
		if err != nil {
			return err
		}
		found, wrong := 0, 0
		for _, f := range r.Go {
			switch {
			case right(f, kind, plants):
				found++
			default:
				wrong++
				o.Say("%s: %s: %s", kind, f.Path, f.Detail)
			}
		}
		precision := 1.0
		if found+wrong > 0 {
			precision = float64(found) / float64(found+wrong)
		}
		table.Row("%s | %d of %d | %.3f | %d | %.3f | %d", kind, found, len(plants), float64(found)/float64(len(plants)), wrong, precision, len(r.Conflicts))
	}
	o.Printf("%s", table)
	return nil
}

// right reports whether a finding is what was planted: the duplicate of its
// original, whichever of the two stays, or a file that is no image.
func right(f cleanup.Finding, kind planted.Kind, plants map[string]planted.Plant) bool {
	if f.Reason == cleanup.Duplicate {
		return plants[f.Path].Of == f.Of || plants[f.Of].Of == f.Path
	}
	_, ok := plants[f.Path]
	want := map[planted.Kind]string{planted.Truncated: cleanup.Broken, planted.Empty: cleanup.NotAnImage, planted.Text: cleanup.NotAnImage, planted.Page: cleanup.NotAnImage, planted.Tiny: cleanup.Small}[kind]
	return ok && f.Reason == want
}
