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
	"atelier/tuner/data/planted"
)

// turn is one side's cleanup and packing.
type turn struct {
	wall, cpu               float64 // seconds
	broken, copies, similar int     // files that went
	packed                  int
}

func speed(ctx context.Context, o options) error {
	source := o.folder
	if source == "" {
		var err error
		if source, err = drawn(ctx, filepath.Join(o.dir, "drawn"), o.images, o.size); err != nil {
			return err
		}
	}
	script := filepath.Join(o.dir, "peer.py")
	if err := os.WriteFile(script, peer, 0o644); err != nil {
		return err
	}
	// One picture in 50 is planted again or is a broken file.
	tree := filepath.Join(o.dir, "tree")
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
	fmt.Printf("\n%d files of %d px, %d of them byte copies, %d new encodings, %d mirrored, %d truncated; %d cores, %d rounds in turn, %s\n\n", files, o.size,
		want[planted.Copy], want[planted.JPEG], want[planted.Mirrored], want[planted.Truncated], o.processes, o.rounds, time.Now().UTC().Format("2006-01-02"))
	fmt.Println("| packed to | atelier, s (median) | Python, s (median) | **times as fast** (median) | smallest, largest | processor time: atelier, Python, ratio | gone: atelier | gone: Python |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for pack := range strings.SplitSeq(o.packs, ",") {
		side, err := strconv.Atoi(pack)
		if err != nil {
			return fmt.Errorf("-packs %s: %w", pack, err)
		}
		var ours, theirs []turn
		for round := range o.rounds {
			for _, first := range []bool{round%2 == 0, round%2 != 0} {
				do, to := atelier, &ours
				if !first {
					do, to = python, &theirs
				}
				t, err := fresh(ctx, o, tree, script, side, do)
				if err != nil {
					return err
				}
				if t.broken != want[planted.Truncated] || t.copies != want[planted.Copy] || t.packed+t.broken+t.copies+t.similar != files {
					return fmt.Errorf("%+v of %d files: the work was not done, want %v", t, files, want)
				}
				*to = append(*to, t)
				fmt.Fprintf(os.Stderr, "round %d, %d px: %+v\n", round+1, side, t)
			}
		}
		var wall, cpu []float64
		for i := range ours {
			wall, cpu = append(wall, theirs[i].wall/ours[i].wall), append(cpu, theirs[i].cpu/ours[i].cpu)
		}
		of := func(t []turn, f func(turn) float64) float64 {
			var v []float64
			for _, x := range t {
				v = append(v, f(x))
			}
			return median(v)
		}
		wallOf, cpuOf := func(t turn) float64 { return t.wall }, func(t turn) float64 { return t.cpu }
		gone := func(t turn) string {
			return fmt.Sprintf("%d broken, %d copies, %d alike", t.broken, t.copies, t.similar)
		}
		fmt.Printf("| %d px | %.1f | %.1f | **%.1f** | %.1f, %.1f | %.1f s, %.1f s, **%.1f** | %s | %s |\n", side, of(ours, wallOf), of(theirs, wallOf), median(wall), slices.Min(wall), slices.Max(wall),
			of(ours, cpuOf), of(theirs, cpuOf), median(cpu), gone(ours[0]), gone(theirs[0]))
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// fresh gives a side its own copy of the tree (of links: contents are only read).
func fresh(ctx context.Context, o options, tree, script string, side int, do func(context.Context, options, string, string, int) (turn, error)) (turn, error) {
	work := filepath.Join(o.dir, "turn")
	defer os.RemoveAll(work)
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(work, "images", rel), 0o755)
		}
		return os.Link(path, filepath.Join(work, "images", rel))
	})
	if err != nil {
		return turn{}, err
	}
	return do(ctx, o, work, script, side)
}

func atelier(ctx context.Context, o options, work, _ string, side int) (t turn, err error) {
	env := append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.processes))
	clean := exec.CommandContext(ctx, o.atelier, "data", "cleanup", filepath.Join(work, "images"), "--near", "--quarantine", filepath.Join(work, "quarantine"), "-o", "json")
	pack := exec.CommandContext(ctx, o.atelier, "data", "pack", filepath.Join(work, "images"), "--size", strconv.Itoa(side), "--cache", filepath.Join(work, "cache"), "--workers", strconv.Itoa(o.processes))
	clean.Env, pack.Env = env, env
	out, wall, cpu, err := used(clean)
	if err != nil {
		return t, err
	}
	var report struct {
		Go []struct{ Reason, Kind string } `json:"go"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
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
	out, wall2, cpu2, err := used(pack)
	if err != nil {
		return t, err
	}
	t.wall, t.cpu = wall+wall2, cpu+cpu2
	set, err := dataset.OpenPack(strings.TrimSpace(out))
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

func python(ctx context.Context, o options, work, script string, side int) (t turn, err error) {
	packed := filepath.Join(work, "packed.npy")
	cmd := exec.CommandContext(ctx, o.python, script, filepath.Join(work, "images"), filepath.Join(work, "quarantine"), packed, strconv.Itoa(side), strconv.Itoa(o.processes))
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1") // the processes share the cores already
	out, wall, cpu, err := used(cmd)
	if err != nil {
		return t, err
	}
	var r struct{ Broken, Copy, Near, Packed int }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return t, fmt.Errorf("%q: %w", out, err)
	}
	st, err := os.Stat(packed)
	if err != nil {
		return t, err
	}
	if st.Size() < int64(r.Packed)*int64(side)*int64(side)*3 {
		return t, errors.New("the peer packed too little")
	}
	return turn{wall: wall, cpu: cpu, broken: r.Broken, copies: r.Copy, similar: r.Near, packed: r.Packed}, nil
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
