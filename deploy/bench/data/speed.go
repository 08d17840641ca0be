package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/dataset"
	"atelier/deploy/bench/harness"
	"atelier/tuner/data/planted"
)

// turn is one side's cleanup and packing.
type turn struct {
	wall, cpu               float64 // seconds
	broken, copies, similar int     // files that went
	packed                  int
}

func (o *options) speed(ctx context.Context) error {
	source := o.folder
	if source == "" {
		var err error
		if source, err = drawn(ctx, filepath.Join(o.Dir, "drawn"), o.images, o.size); err != nil {
			return err
		}
	}
	// One image in 50 is planted again or is a broken file.
	tree := filepath.Join(o.Dir, "tree")
	kinds := []planted.Kind{planted.Copy, planted.JPEG, planted.Mirrored, planted.Truncated}
	plants, err := planted.Into(source, tree, func(i int) planted.Kind {
		if i%50 != 0 {
			return ""
		}
		return kinds[i/50%len(kinds)]
	})
	if err != nil {
		return err
	}
	want := map[planted.Kind]int{}
	for _, p := range plants {
		want[p.Kind]++
	}
	files, err := count(tree)
	if err != nil {
		return err
	}
	o.Printf("\n%d files of %d px, %d of them byte copies, %d new encodings, %d mirrored, %d truncated; %d cores, %d rounds in turn, %s\n\n", files, o.size,
		want[planted.Copy], want[planted.JPEG], want[planted.Mirrored], want[planted.Truncated], o.processes, o.Rounds, time.Now().UTC().Format("2006-01-02"))
	table := harness.NewTable("packed to", "atelier, s (median)", "Python, s (median)", "**times as fast** (median)", "smallest, largest", "processor time: atelier, Python, ratio", "gone: atelier", "gone: Python")
	for _, pack := range o.packs {
		var sides [2][]turn // ours, theirs
		if err := harness.Turns(o.Rounds, 2, func(round, side int) error {
			t, err := o.fresh(ctx, tree, pack, []work{o.ours, o.theirs}[side])
			if err != nil {
				return err
			}
			if t.broken != want[planted.Truncated] || t.copies != want[planted.Copy] || t.packed+t.broken+t.copies+t.similar != files {
				return fmt.Errorf("%+v of %d files: the work was not done, want %v", t, files, want)
			}
			sides[side] = append(sides[side], t)
			o.Say("round %d, %d px: %+v", round+1, pack, t)
			return nil
		}); err != nil {
			return err
		}
		ours, theirs := sides[0], sides[1]
		wallOf, cpuOf := func(t turn) float64 { return t.wall }, func(t turn) float64 { return t.cpu }
		var wall []float64
		for i := range ours {
			wall = append(wall, theirs[i].wall/ours[i].wall)
		}
		gone := func(t turn) string {
			return fmt.Sprintf("%d broken, %d copies, %d alike", t.broken, t.copies, t.similar)
		}
		table.Row("%d px | %.1f | %.1f | **%.1f** | %.1f, %.1f | %.1f s, %.1f s, **%.1f** | %s | %s", pack, harness.MedianOf(ours, wallOf), harness.MedianOf(theirs, wallOf), harness.Median(wall), slices.Min(wall), slices.Max(wall),
			harness.MedianOf(ours, cpuOf), harness.MedianOf(theirs, cpuOf), harness.Ratio(harness.Of(theirs, cpuOf), harness.Of(ours, cpuOf)), gone(ours[0]), gone(theirs[0]))
	}
	o.Printf("%s", table)
	return nil
}

// work is how a side cleans and packs the images below a folder into squares.
type work func(ctx context.Context, dir string, side int) (turn, error)

// fresh gives a side its own copy of the tree (of links: contents are only read).
func (o *options) fresh(ctx context.Context, tree string, side int, do work) (turn, error) {
	dir := filepath.Join(o.Dir, "turn")
	defer os.RemoveAll(dir)
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dir, "images", rel), 0o755)
		}
		return os.Link(path, filepath.Join(dir, "images", rel))
	})
	if err != nil {
		return turn{}, err
	}
	return do(ctx, dir, side)
}

func (o *options) ours(ctx context.Context, dir string, side int) (t turn, err error) {
	env := append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.processes))
	clean := exec.CommandContext(ctx, o.atelier, "data", "cleanup", filepath.Join(dir, "images"), "--near", "--quarantine", filepath.Join(dir, "quarantine"), "-o", "json")
	pack := exec.CommandContext(ctx, o.atelier, "data", "pack", filepath.Join(dir, "images"), "--size", strconv.Itoa(side), "--cache", filepath.Join(dir, "cache"), "--workers", strconv.Itoa(o.processes))
	clean.Env, pack.Env = env, env
	out, cleaned, err := harness.Use(clean)
	if err != nil {
		return t, err
	}
	var report struct {
		Go []struct{ Reason, Kind string } `json:"go"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return t, err
	}
	for _, f := range report.Go {
		switch {
		case f.Kind == "byte copy":
			t.copies++
		case f.Reason == "duplicate":
			t.similar++
		default:
			t.broken++
		}
	}
	out, done, err := harness.Use(pack)
	if err != nil {
		return t, err
	}
	t.wall, t.cpu = cleaned.Wall+done.Wall, cleaned.CPU+done.CPU
	set, err := dataset.OpenPack(strings.TrimSpace(string(out)))
	if err != nil {
		return t, err
	}
	defer set.Close()
	if set.Size() != side {
		return t, fmt.Errorf("packed to %d px", set.Size())
	}
	t.packed = set.Len()
	return t, nil
}

func (o *options) theirs(ctx context.Context, dir string, side int) (t turn, err error) {
	packed := filepath.Join(dir, "packed.npy")
	cmd := exec.CommandContext(ctx, o.Python, filepath.Join(o.Dir, "peer.py"), filepath.Join(dir, "images"), filepath.Join(dir, "quarantine"), packed, strconv.Itoa(side), strconv.Itoa(o.processes))
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1") // the processes share the cores already
	out, u, err := harness.Use(cmd)
	if err != nil {
		return t, err
	}
	var r struct{ Broken, Copy, Near, Packed int }
	if err := json.Unmarshal(out, &r); err != nil {
		return t, fmt.Errorf("%q: %w", out, err)
	}
	st, err := os.Stat(packed)
	if err != nil {
		return t, err
	}
	if st.Size() < int64(r.Packed)*int64(side)*int64(side)*3 {
		return t, errors.New("the peer packed too little")
	}
	return turn{wall: u.Wall, cpu: u.CPU, broken: r.Broken, copies: r.Copy, similar: r.Near, packed: r.Packed}, nil
}

func count(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	return n, err
}
