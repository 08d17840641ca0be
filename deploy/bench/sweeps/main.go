// Command sweeps measures what search methods find on images, with the real
// trainer: the same sweep once for each method and seed, on a local cluster of
// real processes. It prints a Markdown table.
//
// A sweep that has ended stands in the journal and is not run again, so an
// interrupted measurement goes on; one that was cut off begins anew. Only
// figures of one machine, one data set and one journal are to be compared.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/local"
	"atelier/deploy/bench/harness"
)

// recipe is what all sweeps of a measurement have in common.
type recipe struct {
	Model     string
	Trials    int
	Epochs    int
	ImageSize int
	Slots     int    // trials at once
	Data      string // the split folder: train, validation, test
}

// task is one sweep of the plan.
type task struct {
	Method string
	Seed   int
}

type bench struct {
	*harness.Session
	recipe

	images, ratios string
	folder         string // for the split, the journal and the cluster
	methods        []string
	seeds          []int
	cluster        *local.Cluster // nil until a sweep has to run
}

func main() {
	harness.Main("sweeps", os.Args[1:], func(s *harness.Session) {
		b := &bench{Session: s}
		s.BinFlag()
		s.JournalFlags("run/bench-sweeps/sweeps.jsonl")
		s.Strings(&b.methods, "methods", "methods", names()...)
		s.Numbers(&b.seeds, "seeds", "seeds; every method has every seed", 1)
		s.Flags.StringVar(&b.images, "data", "", "`FOLDER` of images, one folder per class")
		s.Flags.StringVar(&b.ratios, "ratios", "0.5,0.25,0.25", "shares of the images that train, validate and test")
		s.Flags.StringVar(&b.folder, "dir", "run/bench-sweeps", "`FOLDER` for the split and the cluster")
		s.Flags.IntVar(&b.Trials, "trials", 40, "trials of each sweep")
		s.Flags.IntVar(&b.Epochs, "epochs", 15, "epochs of a whole training")
		s.Flags.IntVar(&b.ImageSize, "image-size", 64, "side of the images, `PIXELS`")
		s.Flags.IntVar(&b.Slots, "slots", 2, "slots of the worker, one thread each")
		s.Flags.StringVar(&b.Model, "model", "resnet18", "what is trained")
		s.Flags.BoolVar(&s.Keep, "keep", false, "keep the cluster's folder: logs and checkpoints")
		s.Check = b.check
		s.Measured = func() []string {
			return []string{filepath.Join(s.Bin, "atelier-trainer"), filepath.Join(s.Bin, "atelier-coordinator")}
		}
		s.Parts = []harness.Part{{Name: "sweeps", What: "what search methods find", Run: b.run, Table: b.table}}
	})
}

func (b *bench) check() (err error) {
	for _, m := range b.methods {
		if _, known := searches[m]; !known {
			return fmt.Errorf("-methods: no %q; there are %s", m, strings.Join(names(), ", "))
		}
	}
	if b.images == "" && !b.Print {
		return errors.New("-data is missing: give a folder of images with one folder per class")
	}
	if b.folder, err = filepath.Abs(b.folder); err != nil {
		return err
	}
	b.Data = filepath.Join(b.folder, "split")
	return nil
}

// plan lists the sweeps, seed by seed, so that a measurement cut short has
// compared like with like.
func (b *bench) plan() (out []task) {
	for _, seed := range b.seeds {
		for _, m := range b.methods {
			out = append(out, task{m, seed})
		}
	}
	return out
}

func (b *bench) key(t task) string {
	return fmt.Sprintf("sweeps method=%s seed=%d %+v", t.Method, t.Seed, b.recipe)
}

// run makes the sweeps that the journal lacks, one after the other on one cluster.
func (b *bench) run(ctx context.Context) (err error) {
	if err := b.split(ctx); err != nil {
		return err
	}
	defer func() {
		if b.cluster != nil {
			err = errors.Join(err, b.cluster.Close())
		}
	}()
	for _, t := range b.plan() {
		if _, err := harness.Measure(b.Session, b.key(t), func() (figures, error) { return b.sweep(ctx, t) }); err != nil {
			return err
		}
	}
	return nil
}

// split divides the images; a folder that was divided before stays as it is.
func (b *bench) split(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(b.Data, "train")); err == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.Bin, "atelier"), "data", "split", b.images, b.Data, "--ratios", b.ratios)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// start begins the cluster, once.
func (b *bench) start(ctx context.Context) (err error) {
	if b.cluster != nil {
		return nil
	}
	b.cluster, err = local.Start(ctx, local.Config{Dir: filepath.Join(b.Dir, "cluster"), BinDir: b.Bin, Workers: 1, SlotsPerWorker: b.Slots, ThreadsPerSlot: 1, Redis: true, Shared: true,
		ExtraArgs: map[string][]string{"worker": {"--warm", "torch"}}, Log: os.Stderr})
	return err
}

// table shows every sweep of the plan and, with several seeds, the mean of each
// method.
func (b *bench) table() string {
	half := b.Trials / 2
	t := harness.NewTable("method", "seed", "best val_acc", fmt.Sprintf("after %d trials", half), "test_acc of the best", "epochs", "training, s", "wall, s")
	columns := map[string][][]float64{} // of a method, a row a seed
	row := func(method, seed string, v []float64) {
		t.Row("%s | %s | %.3f | %.3f | %.3f | %.0f | %.0f | %.0f", method, seed, v[0], v[1], v[2], v[3], v[4], v[5])
	}
	for _, x := range b.plan() {
		var f figures
		if b.Journal.Newest(b.key(x), &f) {
			v := []float64{f.Best, f.bestAfter(half), f.Test, float64(f.Epochs), f.Training, f.Wall}
			columns[x.Method] = append(columns[x.Method], v)
			row(x.Method, fmt.Sprint(x.Seed), v)
		}
	}
	for _, m := range slices.Compact(slices.Clone(b.methods)) {
		if n := len(columns[m]); n > 1 {
			var means []float64
			for i := range 6 {
				means = append(means, harness.Sum(harness.Of(columns[m], func(v []float64) float64 { return v[i] }))/float64(n))
			}
			row(m, fmt.Sprintf("mean of %d", n), means)
		}
	}
	return t.String()
}
