// Command tracking measures what MLflow costs a training: the same short
// training without tracking, with an mlruns folder and with a tracking server
// on this machine, in turn. It prints a Markdown table.
//
// Absolute figures drift on a shared machine, hence the turns: the figure is
// the median, over the rounds, of the ratio to the untracked training beside it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/mlflow/mlflowtest"
	"atelier/tuner/data/synth"
)

type settings struct {
	atelier, trainer       string
	images, epochs, rounds int
	dir                    string
}

// one training: images a second within its epochs; seconds of the whole
// command, and of the processor it and its trainer took.
type one struct{ rate, wall, cpu float64 }

// keeper lets the server of the tests run in a program.
type keeper struct{ ends []func() }

func (k *keeper) Cleanup(f func()) { k.ends = append(k.ends, f) }
func (k *keeper) Error(a ...any)   { log.Print(a...) }
func (k *keeper) Fatal(a ...any)   { log.Fatal(a...) }

func main() {
	log.SetFlags(0)
	var s settings
	flag.StringVar(&s.atelier, "atelier", "bin/atelier", "the command")
	flag.StringVar(&s.trainer, "trainer", "bin/atelier-trainer", "its trainer")
	flag.IntVar(&s.images, "images", 1000, "pictures to train on")
	flag.IntVar(&s.epochs, "epochs", 40, "epochs of a training")
	flag.IntVar(&s.rounds, "rounds", 7, "rounds")
	flag.Parse()
	s.images -= s.images % len(synth.DefaultStyles) // as many of each style
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := measure(ctx, s); err != nil {
		log.Fatal("tracking: ", err)
	}
}

func measure(ctx context.Context, s settings) (err error) {
	if s.dir, err = os.MkdirTemp("", "tracking-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	for _, p := range []*string{&s.atelier, &s.trainer} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	data := filepath.Join(s.dir, "facades")
	log.Printf("drawing %d pictures", s.images)
	if err := draw(data, s); err != nil {
		return err
	}
	k := &keeper{}
	server := mlflowtest.New(k)
	defer func() {
		for _, f := range k.ends {
			f()
		}
	}()
	sides := []struct {
		name string
		args []string
	}{
		{"no tracking", []string{"--no-mlflow"}},
		{"mlruns folder", []string{"--mlflow", "--set", "mlflow.tracking_uri=" + filepath.Join(s.dir, "mlruns")}},
		{"tracking server", []string{"--mlflow", "--set", "mlflow.tracking_uri=" + server.URL}},
	}
	order := []int{0, 1, 2}
	got := make([][]one, len(sides))
	if _, err := train(ctx, s, data, sides[0].args); err != nil { // packs the pictures, warms the disk
		return err
	}
	for round := range s.rounds {
		for _, i := range order {
			x, err := train(ctx, s, data, sides[i].args)
			if err != nil {
				return fmt.Errorf("%s: %w", sides[i].name, err)
			}
			got[i] = append(got[i], x)
			log.Printf("round %d: %-16s %8.0f images/s, %.2f s of the processor, %.2f s", round+1, sides[i].name, x.rate, x.cpu, x.wall)
		}
		order = append(order[1:], order[0]) // nobody is always first
		slices.Reverse(order)
	}
	fmt.Printf("vanilla at 32 px, batch 32, 1 thread, %d pictures, %d epochs, %d rounds in turn, %d cores, %s\n\n", s.images, s.epochs, s.rounds, runtime.NumCPU(), time.Now().UTC().Format("2006-01-02"))
	fmt.Println("| | images/s in epochs (median) | over no tracking | smallest to largest | processor, s (median) | over no tracking | whole command, s (median) | over no tracking |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for i, side := range sides {
		var rates, walls, cpus, rate, wall, cpu []float64
		for r, x := range got[i] {
			base := got[0][r]
			rates, walls, cpus = append(rates, x.rate), append(walls, x.wall), append(cpus, x.cpu)
			rate, wall, cpu = append(rate, x.rate/base.rate), append(wall, x.wall/base.wall), append(cpu, x.cpu/base.cpu)
		}
		fmt.Printf("| %s | %.0f | %.4f | %.4f to %.4f | %.2f | %.4f | %.2f | %.4f |\n", side.name, median(rates), median(rate), slices.Min(rate), slices.Max(rate), median(cpus), median(cpu), median(walls), median(wall))
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return math.NaN()
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

func train(ctx context.Context, s settings, data string, args []string) (one, error) {
	out, err := os.MkdirTemp(s.dir, "run-")
	if err != nil {
		return one{}, err
	}
	defer os.RemoveAll(out)
	folder := filepath.Join(out, "results")
	cmd := exec.CommandContext(ctx, s.atelier, append([]string{"train", "-q", "--model", "vanilla", "--data", data, "--epochs", strconv.Itoa(s.epochs), "--batch-size", "32", "--patience", "0",
		"--seed", "1", "--out", folder, "--trainer-bin", s.trainer, "--set", "image_size=32", "--set", "threads=1"}, args...)...)
	cmd.Dir = s.dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ATELIER_ADDR=") }) // here, not on a cluster
	cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+filepath.Join(s.dir, "state"))
	began := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		return one{}, fmt.Errorf("%w: %s", err, text)
	}
	x := one{wall: time.Since(began).Seconds(), cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	b, err := os.ReadFile(filepath.Join(folder, "training_history.json"))
	if err != nil {
		return x, err
	}
	var h struct {
		Seconds []float64 `json:"epoch_seconds"`
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return x, err
	}
	if len(h.Seconds) != s.epochs {
		return x, fmt.Errorf("%d epochs in the history, want %d", len(h.Seconds), s.epochs)
	}
	total := 0.0
	for _, e := range h.Seconds {
		total += e
	}
	x.rate = float64(s.images*s.epochs) / total
	return x, nil
}

func draw(dir string, s settings) error {
	n := len(synth.DefaultStyles)
	_, err := synth.Draw(context.Background(), dir, synth.Options{Train: s.images / n, Validation: 10, Size: 32, Seed: 1})
	return err
}
