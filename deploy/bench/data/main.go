// Command data measures data preparation on this machine. Speed: cleanup and
// packing of an image folder beside a Python script of the usual make (Pillow,
// phash, numpy, as many processes as there are cores), in turn, on the same
// files. Faults: what cleanup finds of planted ones, kind by kind. It prints
// Markdown tables. Start it with `make bench-data`.
package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"atelier/deploy/bench/harness"
	"atelier/tuner/data/synth"
)

//go:embed peer.py
var peer embed.FS

type options struct {
	*harness.Session
	atelier, folder, distinct string
	images, size, processes   int
	packs                     []int
}

func main() {
	harness.Main("data", os.Args[1:], func(s *harness.Session) {
		o := &options{Session: s}
		s.PythonFlag("Pillow, numpy and scipy")
		s.RoundsFlag(3, "of speed: times each side takes its turn")
		s.Flags.StringVar(&o.atelier, "atelier", "bin/atelier", "the command")
		s.Flags.StringVar(&o.folder, "folder", "", "of speed: a folder of images by class, in place of drawing one")
		s.Flags.StringVar(&o.distinct, "pictures", "../shared/data/building-styles", "of faults: distinct images by class; drawn where there are none")
		s.Flags.IntVar(&o.images, "images", 10000, "of speed: images to draw")
		s.Flags.IntVar(&o.size, "size", 256, "of speed: their side, pixels")
		s.Numbers(&o.packs, "packs", "of speed: sides of the packed squares", 64, 224)
		s.Flags.IntVar(&o.processes, "processes", 2, "of speed: cores of both sides")
		s.Scripts = peer
		s.Check = func() (err error) {
			o.atelier, err = filepath.Abs(o.atelier)
			return err
		}
		s.Parts = []harness.Part{
			{Name: "speed", What: "cleanup and packing, ours and Python in turn", Run: o.speed},
			{Name: "faults", What: "what cleanup finds of planted faults", Run: o.faults},
		}
	})
}

// drawn is a folder of drawn houses, about n of them.
func drawn(ctx context.Context, dir string, n, size int) (string, error) {
	styles := synth.Styles()
	last := 0
	_, err := synth.Draw(ctx, dir, synth.Options{Styles: styles, Train: (n + len(styles) - 1) / len(styles), Size: size, Seed: 5, Progress: func(done, total int) {
		if done == total || done >= last+1000 {
			last = done
			fmt.Fprintf(os.Stderr, "drawn %d of %d images of %d px\n", done, total, size)
		}
	}})
	return filepath.Join(dir, "train"), err
}
