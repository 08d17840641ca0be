// Command training measures the trainer beside PyTorch and torchvision on this
// machine: training steps in turn, peak memory, several runs at once, a whole
// training from image folders, and accuracy over seeds. It prints Markdown
// tables; every measurement is a line of a journal, and what stands there for
// the same programs is not measured again, so an interrupted session goes on.
//
// It is pure Go and starts the trainer and Python as processes. Absolute
// figures drift on a shared machine, hence the turns: compare ratios.
package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed peer/*.py
var peer embed.FS

// part is one measurement.
type part struct {
	name string
	what string
	peer bool // needs PyTorch
	run  func(ctx context.Context, b *bench) error
}

var parts = []part{
	{"steps", "training steps and peak memory, ours and PyTorch in turn", true, throughputPart},
	{"slots", "images a second of all slots together, by how the cores are split", false, slotsPart},
	{"kernels", "training steps with each kernel of ours and without it, in turn", false, kernelsPart},
	{"end", "files on disk to trained and validated, start-up included", true, endPart},
	{"seeds", "test accuracy over seeds, with CutMix and without (needs --images)", false, seedsPart},
}

type bench struct {
	dir     string // scratch
	trainer string
	atelier string
	python  string
	journal *journal
	out     io.Writer

	models, precisions []string
	sizes, threads     []int
	batch, rounds      int
	device             string // of the steps; empty: the CPU
	block              time.Duration
	again              bool
	seeds              seedOptions
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (b *bench) print(table string) error {
	_, err := io.WriteString(b.out, table)
	return err
}

// peer is the path of one of the Python scripts.
func (b *bench) peer(name string) string { return filepath.Join(b.dir, "peer", name) }

// measure takes one measurement and writes it down, unless it stands already.
func measure[T any](b *bench, key string, take func() (T, error)) error {
	var earlier T
	if !b.again && b.journal.last(key, &earlier) {
		b.say("%s: measured earlier", key)
		return nil
	}
	at, load := time.Now(), loadAverage()
	result, err := take()
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	b.say("%s: %.0f s, load %.1f", key, time.Since(at).Seconds(), load)
	return b.journal.add(key, at, load, result)
}

// loadAverage of the last minute; 0 where the system does not tell.
func loadAverage() float64 {
	data, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(data), " ")
	v, _ := strconv.ParseFloat(first, 64)
	return v
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "training:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{out: os.Stdout}
	only := flag.String("parts", "steps,slots,end", "what to measure, a comma list of steps, slots, kernels, end, seeds")
	bin := flag.String("bin", "bin", "folder of the programs")
	path := flag.String("journal", "run/bench/training.jsonl", "file that takes every measurement")
	printOnly := flag.Bool("print", false, "print the tables of what the journal holds; measure nothing")
	flag.BoolVar(&b.again, "again", false, "measure again what the journal holds")
	flag.StringVar(&b.python, "python", "/usr/bin/python3", "Python with torch and torchvision")
	models := flag.String("models", "vanilla,resnet18,resnet34,resnet50,efficientnet_b0,mobilenet_v2", "architectures, a comma list")
	precisionList := flag.String("precisions", "fp32,bf16", "fp32, bf16 or both")
	sizes := flag.String("sizes", "64,224", "sides of the images, pixels, a comma list")
	threads := flag.String("threads", strconv.Itoa(runtime.NumCPU()), "threads of a process, a comma list")
	flag.IntVar(&b.batch, "batch", 32, "images a step")
	flag.StringVar(&b.device, "device", "", "where the steps are done, e.g. cuda; the other parts choose as a training does")
	flag.IntVar(&b.rounds, "rounds", 3, "turns each side takes")
	flag.DurationVar(&b.block, "block", time.Second, "how long a turn lasts, about; never less than a step")
	b.seeds.flags(flag.CommandLine)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q; all is said with flags", flag.Arg(0))
	}

	wanted := split(*only)
	for _, w := range wanted {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == w }) {
			return fmt.Errorf("no part %q; there are steps, slots, kernels, end, seeds", w)
		}
	}
	b.models, b.precisions = split(*models), split(*precisionList)
	var err error
	if b.sizes, err = numbers("--sizes", *sizes); err != nil {
		return err
	}
	if b.threads, err = numbers("--threads", *threads); err != nil {
		return err
	}
	if b.batch < 1 || b.rounds < 1 || b.block <= 0 {
		return errors.New("--batch, --rounds and --block must be above 0")
	}
	for _, p := range b.precisions {
		if !slices.Contains(precisions, p) {
			return fmt.Errorf("--precisions: no %q; there are fp32, bf16", p)
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if b.dir, err = os.MkdirTemp("", "atelier-bench-training-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	digest, err := b.programs(*bin)
	if err != nil {
		return err
	}
	if b.journal, err = openJournal(*path, digest); err != nil {
		return err
	}
	defer b.journal.close()
	if *printOnly {
		return b.print(throughputTables(b.journal) + slotsTable(b.journal) + kernelsTable(b.journal) + endTable(b.journal) + seedsTable(b.journal))
	}
	needsPeer := slices.ContainsFunc(parts, func(p part) bool { return p.peer && slices.Contains(wanted, p.name) })
	if err := exec.CommandContext(ctx, b.python, "-c", "import torch, torchvision").Run(); needsPeer && err != nil {
		return fmt.Errorf("%s cannot import torch and torchvision (%w); name another with --python, or install python3-torch and python3-torchvision", b.python, err)
	}
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		b.say("== %s: %s", p.name, p.what)
		if err := p.run(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// programs finds what is measured and writes the scripts out; the digest
// changes with any of them.
func (b *bench) programs(bin string) (digest string, err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return "", err
	}
	b.trainer, b.atelier = filepath.Join(bin, "atelier-trainer"), filepath.Join(bin, "atelier")
	h := sha256.New()
	for _, name := range []string{b.trainer, filepath.Join(bin, "libcgotorch.so")} {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("%w; make build makes the programs, --bin says where they are", err)
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	if err := os.CopyFS(b.dir, peer); err != nil {
		return "", err
	}
	scripts, err := peer.ReadDir("peer")
	if err != nil {
		return "", err
	}
	for _, s := range scripts {
		text, err := peer.ReadFile("peer/" + s.Name())
		if err != nil {
			return "", err
		}
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func split(list string) []string {
	var out []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func numbers(name, list string) ([]int, error) {
	var out []int
	for _, item := range split(list) {
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s: want numbers above 0, got %q", name, item)
		}
		out = append(out, n)
	}
	return out, nil
}
