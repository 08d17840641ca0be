// Command atelier-local shows the whole thing on one machine: three
// coordinators, Redis and two workers as real processes, a data set, one sweep
// for each search method, and their leaderboards.
//
// It drives the atelier command like a person would and prints what it calls,
// so that each step can be done again by hand. It is for trying out and for
// tests; on several machines the programs are started one by one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/setting"
	"atelier/common/stdio"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	stdio.Guard()
	out := stdio.Output()
	out.GoOn()
	m := &Main{Out: out, Err: stdio.Err(), Terminal: screens()}
	err := m.ParseFlags(os.Args[1:])
	if err == nil {
		err = m.Run(ctx)
	}
	code := m.exit(ctx, err) // asks whether ctx was interrupted, and stop ends it
	stop()
	os.Exit(code)
}

// Main is one run of the program.
type Main struct {
	Out, Err io.Writer
	Terminal terminals

	Data     string // image folder; "" = drawn facades
	Dir      string
	BinDir   string
	Keep     bool
	Methods  []string
	Recipe   recipe
	PerClass int
	Share    float64
	Limit    time.Duration

	Coordinators, Workers, Slots, Threads int

	cluster *local.Cluster
	sweeps  []sweepRun
}

type sweepRun struct{ method, id string }

var errUsage = errors.New("usage")

// ParseFlags reads the command line.
func (m *Main) ParseFlags(args []string) error {
	f := flag.NewFlagSet("atelier-local", flag.ContinueOnError)
	f.SetOutput(m.Err)
	methods := ""
	f.StringVar(&m.Data, "data", "", "image `FOLDER`: one subfolder per class, or train/ and validation/ with those (default: facades are drawn)")
	f.StringVar(&m.Dir, "dir", "", "`FOLDER` for data, logs and checkpoints (default: run/ and the time, here)")
	f.StringVar(&m.BinDir, "bin", "", "`FOLDER` of the programs (default: the one of this program)")
	f.BoolVar(&m.Keep, "keep", false, "keep the cluster up until Ctrl-C")
	f.StringVar(&methods, "methods", "grid_search,bayesian,genetic", "search `METHODS`, one sweep each")
	f.StringVar(&m.Recipe.Trainer, "trainer", "torch", "torch, or sim for learning curves without training")
	whole(f, &m.Recipe.Trials, "trials", 8, "trials of each sweep")
	whole(f, &m.Recipe.Epochs, "epochs", 10, "epochs of each trial")
	f.StringVar(&m.Recipe.Model, "model", "vanilla", "vanilla or resnet18")
	whole(f, &m.Recipe.ImageSize, "image-size", 48, "side of the images, in `PIXELS`")
	whole(f, &m.Recipe.Seed, "seed", 42, "seed of the sweeps, the drawing and the split")
	whole(f, &m.PerClass, "per-class", 60, "facades of each style to train on; a third as many validate")
	f.Float64Var(&m.Share, "validation", 0.25, "share of a folder without split that validates")
	whole(f, &m.Coordinators, "coordinators", 3, "coordinators: 1, 3 or 5")
	whole(f, &m.Workers, "workers", 2, "workers")
	whole(f, &m.Slots, "slots", 1, "slots of each worker")
	whole(f, &m.Threads, "threads", 1, "threads of each slot")
	f.DurationVar(&m.Limit, "timeout", 15*time.Minute, "give up after this long")
	f.Usage = func() {
		fmt.Fprintf(m.Err, "atelier-local starts a cluster on this machine and runs sweeps on it.\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if f.NArg() > 0 {
		fmt.Fprintf(m.Err, "atelier-local: unknown argument %q\n", f.Arg(0))
		return errUsage
	}
	m.Methods = strings.Split(methods, ",")
	m.Recipe.Parallelism = max(2, m.Workers*m.Slots)
	for _, x := range []struct {
		name string
		n    int
	}{{"trials", m.Recipe.Trials}, {"epochs", m.Recipe.Epochs}, {"workers", m.Workers}, {"slots", m.Slots}, {"threads", m.Threads}, {"coordinators", m.Coordinators}} {
		if x.n < 1 {
			fmt.Fprintf(m.Err, "atelier-local: --%s %d: want at least 1\n", x.name, x.n)
			return errUsage
		}
	}
	if m.Share <= 0 || m.Share >= 1 {
		fmt.Fprintf(m.Err, "atelier-local: --validation %g: want a share between 0 and 1\n", m.Share)
		return errUsage
	}
	return nil
}

// whole is a flag for a whole number. The library reads 010 as eight.
func whole[T int | uint64](f *flag.FlagSet, to *T, name string, value T, usage string) {
	*to = value
	f.Func(name, fmt.Sprintf("%s (default %d)", usage, value), func(text string) error {
		n, err := setting.Whole(text)
		if err == nil && n < 0 {
			err = fmt.Errorf("%d is below 0", n)
		}
		if err == nil {
			*to = T(n)
		}
		return err
	})
}

// Run does everything and leaves nothing running.
func (m *Main) Run(ctx context.Context) (err error) {
	if m.BinDir == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		m.BinDir = filepath.Dir(self)
	}
	if m.Dir == "" {
		m.Dir = filepath.Join("run", time.Now().Format("20060102-150405"))
	}
	if m.Dir, err = filepath.Abs(m.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return err
	}
	if err := m.needTrainer(); err != nil {
		return err
	}
	begin := time.Now()
	work, cancel := context.WithTimeout(ctx, m.Limit)
	defer cancel()

	// Data first: a folder that cannot be used should not cost a cluster.
	data, err := m.prepareData(work)
	if err != nil {
		return err
	}
	m.title("A cluster on this machine")
	m.cluster, err = local.Start(work, local.Config{Dir: m.Dir, BinDir: m.BinDir, Coordinators: m.Coordinators, Workers: m.Workers,
		SlotsPerWorker: m.Slots, ThreadsPerSlot: m.Threads, Redis: true, RedisPersist: true, Shared: true, Log: m.Out})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(m.Err, "ending the cluster")
		err = errors.Join(err, m.cluster.Close())
	}()
	for i, method := range m.Methods {
		// Each with a seed of its own, else two methods begin with the same points.
		recipe := m.Recipe
		recipe.Seed += uint64(i)
		if err := m.sweep(work, method, recipe, data); err != nil {
			return err
		}
	}
	if err := m.leaderboards(work); err != nil {
		return err
	}
	if err := m.reports(work); err != nil {
		return err
	}
	m.title("Done in " + time.Since(begin).Round(time.Second).String())
	addrs := strings.Join(m.cluster.APIAddrs(), ",")
	m.prose("logs, data and checkpoints: %s\n", m.Dir)
	if !m.Keep {
		m.prose("to keep the cluster up after the sweeps: %s --keep (with make: RUN_FLAGS=--keep)\n", filepath.Join(m.BinDir, "atelier-local"))
		return nil
	}
	fmt.Fprintf(m.Out, "\nThe cluster stays up until Ctrl-C. In another shell:\n  export ATELIER_ADDR=%s\n  export ATELIER_SHARED=%s\n  %s cluster status\n  %s checkpoint pull %s\n",
		addrs, m.cluster.SharedDir, m.atelier(), m.atelier(), m.sweeps[len(m.sweeps)-1].id)
	<-ctx.Done()
	return nil
}

func (m *Main) atelier() string { return filepath.Join(m.BinDir, "atelier") }

func (m *Main) needTrainer() error {
	if m.Recipe.Trainer != "torch" {
		return nil
	}
	path := filepath.Join(m.BinDir, "atelier-trainer")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("no trainer at %s: build it (make trainer), or run without training: --trainer sim", path)
	}
	return nil
}

func (m *Main) title(text string) { fmt.Fprintf(m.Out, "\n== %s ==\n", text) }

func (m *Main) exit(ctx context.Context, err error) int {
	var code *exitCode
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return client.ExitOK
	case errors.Is(err, errUsage):
		return client.ExitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(m.Err, "atelier-local: interrupted")
		return client.ExitInterrupted
	}
	fmt.Fprintf(m.Err, "atelier-local: %v\n", err)
	if m.cluster != nil {
		fmt.Fprintf(m.Err, "logs are in %s\n", filepath.Join(m.Dir, "logs"))
	}
	switch {
	case errors.As(err, &code):
		return code.code
	case errors.Is(err, context.DeadlineExceeded):
		return client.ExitTimeout
	}
	return client.ExitError
}
