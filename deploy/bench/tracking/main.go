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
	"fmt"
	"log"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/mlflow/mlflowtest"
	"atelier/deploy/bench/harness"
	"atelier/tuner/data/synth"
)

type settings struct {
	*harness.Session
	atelier, trainer string
	images, epochs   int
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
	harness.Main("tracking", os.Args[1:], func(s *harness.Session) {
		o := &settings{Session: s}
		s.RoundsFlag(10, "rounds of four trainings and one more")
		s.Flags.StringVar(&o.atelier, "atelier", "bin/atelier", "the command")
		s.Flags.StringVar(&o.trainer, "trainer", "bin/atelier-trainer", "its trainer")
		s.Flags.IntVar(&o.images, "images", 1000, "images to train on")
		s.Flags.IntVar(&o.epochs, "epochs", 20, "epochs of a training")
		s.Check = func() (err error) {
			o.images -= o.images % len(synth.DefaultStyles) // as many of each style
			for _, p := range []*string{&o.atelier, &o.trainer} {
				if *p, err = filepath.Abs(*p); err != nil {
					return err
				}
			}
			return nil
		}
		s.Parts = []harness.Part{{Name: "tracking", Run: o.measure}}
	})
}

func (s *settings) measure(ctx context.Context) error {
	data := filepath.Join(s.Dir, "facades")
	s.Say("drawing %d images", s.images)
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
		{"mlruns folder", []string{"--mlflow", "--set", "mlflow.tracking_uri=" + filepath.Join(s.Dir, "mlruns")}},
		{"tracking server", []string{"--mlflow", "--set", "mlflow.tracking_uri=" + server.URL}},
	}
	if _, err := train(ctx, s, data, sides[0].args); err != nil { // packs the images, warms the disk
		return err
	}
	next := func(i int) (one, error) {
		x, err := train(ctx, s, data, sides[i].args)
		if err != nil {
			return x, fmt.Errorf("%s: %w", sides[i].name, err)
		}
		s.Say("%-16s %8.0f images/s, %.2f s of the processor, %.2f s", sides[i].name, x.rate, x.cpu, x.wall)
		return x, nil
	}
	began := time.Now()
	before, err := next(0)
	if err != nil {
		return err
	}
	plain := []one{before}
	tracked, ratios := make([][]one, len(sides)), make([][]one, len(sides))
	if err := harness.Turns(s.Rounds, len(sides)-1, func(round, tracker int) error {
		i := tracker + 1
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
		s.Say("round %d of %d, %.0f s so far", round+1, s.Rounds, time.Since(began).Seconds())
		return nil
	}); err != nil {
		return err
	}
	s.Printf("vanilla at 32 px, batch 32, 1 thread, %d images, %d epochs, %d rounds, each tracked training between two without, %d cores, %s\n\n", s.images, s.epochs, s.Rounds, runtime.NumCPU(), time.Now().UTC().Format("2006-01-02"))
	table := harness.NewTable("", "images/s in epochs (median)", "over no tracking", "processor, s (median)", "over no tracking", "whole command, s (median)", "over no tracking")
	parts := []func(one) float64{func(x one) float64 { return x.rate }, func(x one) float64 { return x.cpu }, func(x one) float64 { return x.wall }}
	tracked[0] = plain
	for i, side := range sides {
		cells := []string{side.name}
		for k, part := range parts {
			cells = append(cells, fmt.Sprintf("%.*f", []int{0, 2, 2}[k], harness.MedianOf(tracked[i], part)), spread(harness.Of(ratios[i], part)))
		}
		table.Cells(cells...)
	}
	s.Printf("%s", table)
	return nil
}

// spread is the mean of ratios and two standard errors of it, and the median.
func spread(v []float64) string {
	switch len(v) {
	case 0:
		return "1"
	case 1:
		return fmt.Sprintf("%.4f", v[0])
	}
	mean, deviation := harness.MeanDeviation(v)
	return fmt.Sprintf("%.4f ± %.4f, median %.4f", mean, 2*deviation/math.Sqrt(float64(len(v))), harness.Median(v))
}

func train(ctx context.Context, s *settings, data string, args []string) (one, error) {
	out, err := os.MkdirTemp(s.Dir, "run-")
	if err != nil {
		return one{}, err
	}
	defer os.RemoveAll(out)
	folder := filepath.Join(out, "results")
	cmd := exec.CommandContext(ctx, s.atelier, append([]string{"train", "-q", "--model", "vanilla", "--data", data, "--epochs", strconv.Itoa(s.epochs), "--batch-size", "32", "--patience", "0",
		"--seed", "1", "--out", folder, "--trainer-bin", s.trainer, "--set", "image_size=32", "--set", "threads=1"}, args...)...)
	cmd.Dir = s.Dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ATELIER_ADDR=") }) // here, not on a cluster
	cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+filepath.Join(s.Dir, "state"))
	_, u, err := harness.Use(cmd)
	if err != nil {
		return one{}, err
	}
	x := one{wall: u.Wall, cpu: u.CPU}
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
	x.rate = float64(s.images*s.epochs) / harness.Sum(h.Seconds)
	return x, nil
}

func draw(dir string, s *settings) error {
	n := len(synth.DefaultStyles)
	_, err := synth.Draw(context.Background(), dir, synth.Options{Train: s.images / n, Validation: 10, Size: 32, Seed: 1})
	return err
}
