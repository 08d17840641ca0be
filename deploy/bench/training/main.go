// Command training measures the trainer beside PyTorch and torchvision on this
// machine: training steps in turn, peak memory, several runs at once, a whole
// training from image folders, and accuracy over seeds. It prints Markdown
// tables from its journal.
//
// It is pure Go and starts the trainer and Python as processes.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"atelier/deploy/bench/harness"
)

//go:embed peer/*.py
var peer embed.FS

type bench struct {
	*harness.Session

	models, precisions []string
	sizes, threads     []int
	batch              int
	device             string // of the steps; empty: the CPU
	block              time.Duration
	base               string // programs of another build, for builds
	seeds              seedOptions
}

func (b *bench) trainer() string { return filepath.Join(b.Bin, "atelier-trainer") }

func (b *bench) atelier() string { return filepath.Join(b.Bin, "atelier") }

func main() {
	harness.Main("training", os.Args[1:], func(s *harness.Session) {
		b := &bench{Session: s}
		s.BinFlag()
		s.PythonFlag("torch and torchvision")
		s.RoundsFlag(3, "turns each side takes")
		s.JournalFlags("run/bench/training.jsonl")
		s.Strings(&b.models, "models", "architectures", "vanilla", "resnet18", "resnet34", "resnet50", "efficientnet_b0", "mobilenet_v2")
		s.Strings(&b.precisions, "precisions", "fp32, bf16 or both", precisions...)
		s.Numbers(&b.sizes, "sizes", "sides of the images, pixels", 64, 224)
		s.Numbers(&b.threads, "threads", "threads of a process", runtime.NumCPU())
		s.Flags.IntVar(&b.batch, "batch", 32, "images a step")
		s.Flags.StringVar(&b.device, "device", "", "where the steps are done, e.g. cuda; the other parts choose as a training does")
		s.Flags.DurationVar(&b.block, "block", time.Second, "how long a turn lasts, about; never less than a step")
		s.Flags.StringVar(&b.base, "base", "", "`FOLDER` of another build's programs, for builds")
		b.seeds.flags(s.Flags)
		s.Check = b.check
		s.Scripts = peer
		s.Measured = func() []string { return []string{b.trainer(), filepath.Join(b.Bin, "libcgotorch.so")} }
		s.Parts = []harness.Part{
			{Name: "steps", What: "training steps and peak memory, ours and PyTorch in turn", Run: b.besidePyTorch(b.measureSteps), Table: b.table(throughputTables)},
			{Name: "slots", What: "images a second of all slots together, by how the cores are split", Run: b.measureSlots, Table: b.table(slotsTable)},
			{Name: "kernels", What: "training steps with each kernel of ours and without it, in turn", Aside: true, Run: b.measureKernels, Table: b.table(kernelsTable)},
			{Name: "builds", What: "training steps of this build and of another (--base), in turn", Aside: true, Run: b.measureBuilds, Table: b.table(buildsTable)},
			{Name: "end", What: "files on disk to trained and validated, start-up included", Run: b.besidePyTorch(b.measureEnd), Table: b.table(endTable)},
			{Name: "seeds", What: "test accuracy over seeds, with CutMix and without (needs --images)", Aside: true, Run: b.measureSeeds, Table: b.table(seedsTable)},
		}
	})
}

func (b *bench) table(of func(*harness.Journal) string) func() string {
	return func() string { return of(b.Journal) }
}

func (b *bench) check() error {
	if b.batch < 1 || b.block <= 0 {
		return errors.New("--batch and --block must be above 0")
	}
	for _, p := range b.precisions {
		if !slices.Contains(precisions, p) {
			return fmt.Errorf("--precisions: no %q; there are fp32, bf16", p)
		}
	}
	return nil
}

// besidePyTorch measures where Python has what the part needs.
func (b *bench) besidePyTorch(measure func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := exec.CommandContext(ctx, b.Python, "-c", "import torch, torchvision").Run(); err != nil {
			return fmt.Errorf("%s cannot import torch and torchvision (%w); name another with --python, or install python3-torch and python3-torchvision", b.Python, err)
		}
		return measure(ctx)
	}
}
