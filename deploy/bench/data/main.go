// Command data measures data preparation on this machine. Speed: cleanup and
// packing of an image folder beside a Python script of the usual make (Pillow,
// phash, numpy, as many processes as there are cores), in turn, on the same
// files. Faults: what cleanup finds of planted ones, kind by kind. It prints
// Markdown tables. Start it with `make bench-data`.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"atelier/tuner/data/synth"
)

//go:embed peer.py
var peer []byte

type options struct {
	atelier, python, parts, folder, pictures string
	images, size, rounds, processes          int
	packs                                    string
	dir                                      string // all that is written
}

func main() {
	var o options
	flag.StringVar(&o.atelier, "atelier", "bin/atelier", "the command")
	flag.StringVar(&o.python, "python", "/usr/bin/python3", "with Pillow, numpy and scipy")
	flag.StringVar(&o.parts, "parts", "speed,faults", "what to measure")
	flag.StringVar(&o.folder, "folder", "", "of speed: a folder of pictures by class, in place of drawing one")
	flag.StringVar(&o.pictures, "pictures", "../shared/data/building-styles", "of faults: distinct pictures by class; drawn where there are none")
	flag.IntVar(&o.images, "images", 10000, "of speed: pictures to draw")
	flag.IntVar(&o.size, "size", 256, "of speed: their side, pixels")
	flag.StringVar(&o.packs, "packs", "64,224", "of speed: sides of the packed squares")
	flag.IntVar(&o.rounds, "rounds", 3, "of speed: times each side takes its turn")
	flag.IntVar(&o.processes, "processes", 2, "of speed: cores of both sides")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench data:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.dir, err = os.MkdirTemp("", "atelier-bench-data-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	if o.atelier, err = filepath.Abs(o.atelier); err != nil {
		return err
	}
	for part := range strings.SplitSeq(o.parts, ",") {
		switch part {
		case "speed":
			err = speed(ctx, o)
		case "faults":
			err = faults(ctx, o)
		default:
			err = fmt.Errorf("-parts %s: want speed, faults", part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// drawn is a folder of drawn houses, about n of them.
func drawn(ctx context.Context, dir string, n, size int) (string, error) {
	styles := synth.Styles()
	last := 0
	_, err := synth.Draw(ctx, dir, synth.Options{Styles: styles, Train: (n + len(styles) - 1) / len(styles), Size: size, Seed: 5, Progress: func(done, total int) {
		if done == total || done >= last+1000 {
			last = done
			fmt.Fprintf(os.Stderr, "drawn %d of %d pictures of %d px\n", done, total, size)
		}
	}})
	return filepath.Join(dir, "train"), err
}

// used runs a program and tells its seconds of the clock and of the processors.
func used(cmd *exec.Cmd) (out string, wall, cpu float64, err error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return "", 0, 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	wall = time.Since(began).Seconds()
	return stdout.String(), wall, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}
