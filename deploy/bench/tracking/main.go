// Command tracking measures what MLflow costs a training: the same short
// training without tracking, with an mlruns folder and with a tracking server
// on this machine, in turn. It prints a Markdown table.
//
// Absolute figures drift on a shared machine, hence the turns: untracked
// trainings stand before and after each tracked one, and the figure is the ratio
// to the mean of these two, in which a steady drift is none. Over the rounds it
// is told with two standard errors of its mean: where these are 1 % or less, the
// run can tell a difference of 1 %.
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
	flag.IntVar(&s.epochs, "epochs", 20, "epochs of a training")
	flag.IntVar(&s.rounds, "rounds", 10, "rounds of four trainings and one more")
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
	if _, err := train(ctx, s, data, sides[0].args); err != nil { // packs the pictures, warms the disk
		return err
	}
	next := func(i int) (one, error) {
		x, err := train(ctx, s, data, sides[i].args)
		if err != nil {
			return x, fmt.Errorf("%s: %w", sides[i].name, err)
		}
		log.Printf("%-16s %8.0f images/s, %.2f s of the processor, %.2f s", sides[i].name, x.rate, x.cpu, x.wall)
		return x, nil
	}
	began := time.Now()
	before, err := next(0)
	if err != nil {
		return err
	}
	plain := []one{before}
	tracked, ratios := make([][]one, len(sides)), make([][]one, len(sides))
	for round := range s.rounds {
		order := []int{1, 2}
		if round%2 != 0 {
			slices.Reverse(order)
		}
		for _, i := range order {
			x, err := next(i)
			if err != nil {
				return err
			}
			after, err := next(0)
			if err != nil {
				return err
			}
			plain, tracked[i] = append(plain, after), append(tracked[i], x)
			ratios[i] = append(ratios[i], one{2 * x.rate / (before.rate + after.rate), 2 * x.wall / (before.wall + after.wall), 2 * x.cpu / (before.cpu + after.cpu)})
			before = after
		}
		log.Printf("round %d of %d, %.0f s so far", round+1, s.rounds, time.Since(began).Seconds())
	}
	fmt.Printf("vanilla at 32 px, batch 32, 1 thread, %d pictures, %d epochs, %d rounds, each tracked training between two without, %d cores, %s\n\n", s.images, s.epochs, s.rounds, runtime.NumCPU(), time.Now().UTC().Format("2006-01-02"))
	fmt.Println("| | images/s in epochs (median) | over no tracking | processor, s (median) | over no tracking | whole command, s (median) | over no tracking |")
	fmt.Println("|---|---|---|---|---|---|---|")
	parts := []func(one) float64{func(x one) float64 { return x.rate }, func(x one) float64 { return x.cpu }, func(x one) float64 { return x.wall }}
	tracked[0] = plain
	for i, side := range sides {
		fmt.Printf("| %s |", side.name)
		for k, part := range parts {
			fmt.Printf(" %.*f | %s |", []int{0, 2, 2}[k], median(of(tracked[i], part)), spread(of(ratios[i], part)))
		}
		fmt.Println()
	}
	return nil
}

func of(all []one, part func(one) float64) (v []float64) {
	for _, x := range all {
		v = append(v, part(x))
	}
	return v
}

// spread is the mean of ratios and two standard errors of it, and the median.
func spread(v []float64) string {
	switch len(v) {
	case 0:
		return "1"
	case 1:
		return fmt.Sprintf("%.4f", v[0])
	}
	mean, square := 0.0, 0.0
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		square += (x - mean) * (x - mean)
	}
	return fmt.Sprintf("%.4f ± %.4f, median %.4f", mean, 2*math.Sqrt(square/float64(len(v)-1)/float64(len(v))), median(v))
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
