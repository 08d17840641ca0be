// Command sweeps measures what search methods find on pictures, with the real
// trainer: the same sweep once for each method and seed, on a local cluster of
// real processes. It prints a Markdown table.
//
// A sweep that has ended stands in the journal and is not run again, so an
// interrupted measurement goes on; one that was cut off begins anew. Only
// figures of one machine, one data set and one journal are to be compared.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"atelier/common/files"
	"atelier/common/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sweeps:", err)
		os.Exit(1)
	}
}

// recipe is what all sweeps of a measurement have in common.
type recipe struct {
	Model     string `json:"model"`
	Trials    int    `json:"trials"`
	Epochs    int    `json:"epochs"`
	ImageSize int    `json:"image_size"`
	Slots     int    `json:"slots"` // trials at once
	Data      string `json:"data"`  // the split folder: train, validation, test
}

func run(ctx context.Context, args []string) error {
	var r recipe
	var dir, bin, pictures, ratios, methods, seeds string
	var keep bool
	f := flag.NewFlagSet("sweeps", flag.ContinueOnError)
	f.StringVar(&pictures, "data", "", "`FOLDER` of pictures, one folder a class")
	f.StringVar(&ratios, "ratios", "0.5,0.25,0.25", "shares of the pictures that train, validate and test")
	f.StringVar(&dir, "dir", "run/bench-sweeps", "`FOLDER` for the split, the journal and the cluster")
	f.StringVar(&bin, "bin", "bin", "`FOLDER` of the programs")
	f.StringVar(&methods, "methods", strings.Join(names(), ","), "methods, a comma list")
	f.StringVar(&seeds, "seeds", "1", "seeds, a comma list; every method has every seed")
	f.IntVar(&r.Trials, "trials", 40, "trials of each sweep")
	f.IntVar(&r.Epochs, "epochs", 15, "epochs of a whole training")
	f.IntVar(&r.ImageSize, "image-size", 64, "side of the pictures, `PIXELS`")
	f.IntVar(&r.Slots, "slots", 2, "slots of the worker, one thread each")
	f.StringVar(&r.Model, "model", "resnet18", "what is trained")
	f.BoolVar(&keep, "keep", false, "keep the cluster's folder: logs and checkpoints")
	if err := f.Parse(args); err != nil {
		return err
	}
	plan, err := planOf(methods, seeds)
	if err != nil {
		return err
	}
	if pictures == "" {
		return errors.New("-data is missing: name a folder of pictures with one folder a class")
	}
	for _, p := range []*string{&dir, &bin} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	r.Data = filepath.Join(dir, "split")
	if err := split(ctx, bin, pictures, r.Data, ratios); err != nil {
		return err
	}
	j, err := openJournal(filepath.Join(dir, "sweeps.json"))
	if err != nil {
		return err
	}
	if err := j.complete(ctx, plan, r, filepath.Join(dir, "cluster"), bin, keep); err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, table(plan, r, j))
	return err
}

// task is one sweep of the plan.
type task struct {
	Method string `json:"method"`
	Seed   uint64 `json:"seed"`
}

// planOf lists the sweeps, seed by seed, so that a measurement cut short has
// compared like with like.
func planOf(methods, seeds string) ([]task, error) {
	var out []task
	for _, s := range strings.Split(seeds, ",") {
		seed, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("-seeds %q: want numbers such as 1,2", seeds)
		}
		for _, m := range strings.Split(methods, ",") {
			if _, known := searches[m]; !known {
				return nil, fmt.Errorf("-methods %q: there is %s", m, strings.Join(names(), ", "))
			}
			out = append(out, task{m, seed})
		}
	}
	return out, nil
}

// split divides the pictures; a folder that was divided before stays as it is.
func split(ctx context.Context, bin, from, to, ratios string) error {
	if _, err := os.Stat(filepath.Join(to, "train")); err == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "data", "split", from, to, "--ratios", ratios)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// journal is what was measured, a file of JSON.
type journal struct {
	path  string
	Sweep []figures `json:"sweeps"`
}

func openJournal(path string) (*journal, error) {
	j := &journal{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(b, j)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}

func (j *journal) find(t task, r recipe) *figures {
	for i := range j.Sweep {
		if f := &j.Sweep[i]; f.task == t && f.Recipe == r {
			return f
		}
	}
	return nil
}

func (j *journal) add(f figures) error {
	j.Sweep = append(j.Sweep, f)
	b, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return err
	}
	return files.Write(j.path, b, 0o644)
}

// complete runs what the journal lacks, one sweep after the other on one
// cluster.
func (j *journal) complete(ctx context.Context, plan []task, r recipe, dir, bin string, keep bool) (err error) {
	var b *bench
	defer func() {
		if b == nil {
			return
		}
		err = errors.Join(err, b.cluster.Close())
		if !keep {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, t := range plan {
		if j.find(t, r) != nil {
			continue
		}
		if b == nil {
			if err := os.RemoveAll(dir); err != nil { // of a measurement that was cut off
				return err
			}
			cluster, err := local.Start(ctx, local.Config{Dir: dir, BinDir: bin, Workers: 1, SlotsPerWorker: r.Slots, ThreadsPerSlot: 1, Redis: true, Shared: true,
				ExtraArgs: map[string][]string{"worker": {"--warm", "torch"}}, Log: os.Stderr})
			if err != nil {
				return err
			}
			b = &bench{cluster: cluster, bin: bin}
		}
		f, err := b.sweep(ctx, t, r)
		if err != nil {
			return fmt.Errorf("%s, seed %d: %w", t.Method, t.Seed, err)
		}
		if err := j.add(f); err != nil {
			return err
		}
	}
	return nil
}
