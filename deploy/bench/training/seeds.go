package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"atelier/deploy/bench/harness"
)

// seedOptions say what is trained again and again.
type seedOptions struct {
	images string // folder with a subfolder of images a class
	runs   int
	set    settingList
}

// settingList is a flag that may be given again.
type settingList []string

func (l *settingList) String() string { return strings.Join(*l, " ") }

func (l *settingList) Set(pair string) error {
	if !strings.Contains(pair, "=") {
		return errors.New("want KEY=VALUE")
	}
	*l = append(*l, pair)
	return nil
}

func (s *seedOptions) flags(flags *flag.FlagSet) {
	flags.StringVar(&s.images, "images", "", "seeds: folder with one subfolder of images per class; 60 % are trained on, 20 % validated on, 20 % tested on")
	flags.IntVar(&s.runs, "seeds", 5, "seeds: train with seeds 1 to this number")
	flags.Var(&s.set, "set", "seeds: a training setting KEY=VALUE over those of seedSettings (may be given again)")
}

// seedSettings were chosen on the validation images of one seed.
var seedSettings = []string{
	"model=resnet18", "image_size=64", "precision=bf16", "batch_size=32", "epochs=40", "patience=0",
	"optimizer=sgd", "lr=0.02", "weight_decay=0.0005", "schedule=cosine", "warmup_epochs=3", "label_smoothing=0.1",
	"augmentation.crop=pad", "augmentation.flip=true", "augmentation.rotation=10",
	"augmentation.jitter.brightness=0.2", "augmentation.jitter.contrast=0.2", "augmentation.jitter.saturation=0.2", "augmentation.jitter.hue=0.02",
}

// splitSeed says which images are tested on: the same for every seed of a
// training.
const splitSeed = 1

// outcome of a training with a seed.
type outcome struct {
	TestAcc    float64 `json:"test_acc"` // of the model with the lowest validation loss
	TestImages int     `json:"test_images"`
	BestValAcc float64 `json:"best_val_acc"`
	BestEpoch  int     `json:"best_epoch"`
	Runtime    float64 `json:"runtime_seconds"`
	Status     string  `json:"status"`
}

// seedKey names a training; settings are part of it, images by their folder's
// name.
func seedKey(images string, settings []string, cutmix bool, seed int) string {
	return fmt.Sprintf("seeds images=%s cutmix=%t seed=%d %s", filepath.Base(images), cutmix, seed, strings.Join(settings, " "))
}

// measureSeeds trains with each seed, with CutMix and without, one training a
// core.
func (b *bench) measureSeeds(ctx context.Context) error {
	if b.seeds.images == "" {
		return errors.New("seeds: give a folder of images with --images, one subfolder per class")
	}
	if b.seeds.runs < 1 {
		return errors.New("--seeds must be above 0")
	}
	settings := slices.Concat(seedSettings, b.seeds.set)
	data := filepath.Join(b.Dir, "split")
	if err := splitImages(b.seeds.images, data); err != nil {
		return err
	}
	if err := atOnce(runtime.NumCPU(), b.seeds.runs*2, func(i int) error {
		seed, cutmix := 1+i/2, i%2 == 1
		_, err := harness.Measure(b.Session, seedKey(b.seeds.images, settings, cutmix, seed), func() (outcome, error) {
			return b.trainSeed(ctx, data, settings, cutmix, seed)
		})
		return err
	}); err != nil {
		return err
	}
	return nil
}

// atOnce calls do with 0 to n-1, some at a time, until one fails; those under
// way are waited for.
func atOnce(some, n int, do func(i int) error) error {
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		next   int
		failed error
	)
	for range min(some, n) {
		wait.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := failed != nil || i >= n
				mu.Unlock()
				if stop {
					return
				}
				if err := do(i); err != nil {
					mu.Lock()
					failed = cmp.Or(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return failed
}

// trainSeed runs atelier train and reads its history.
func (b *bench) trainSeed(ctx context.Context, data string, settings []string, cutmix bool, seed int) (o outcome, err error) {
	out, err := os.MkdirTemp(b.Dir, "seed-")
	if err != nil {
		return o, err
	}
	defer os.RemoveAll(out)
	args := []string{"train", "--data", data, "--out", filepath.Join(out, "results"), "--seed", strconv.Itoa(seed), "--no-mlflow", "--quiet", "--trainer-bin", b.trainer(),
		"--set", "threads=1", "--set", "augmentation.cutmix.enabled=" + strconv.FormatBool(cutmix)}
	for _, pair := range settings {
		args = append(args, "--set", pair)
	}
	if _, _, err := harness.Use(b.trainCommand(ctx, args)); err != nil {
		return o, err
	}
	history, err := os.ReadFile(filepath.Join(out, "results", "training_history.json"))
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(history, &o); err != nil {
		return o, fmt.Errorf("training_history.json: %w", err)
	}
	if o.Status != "finished" || o.TestImages == 0 {
		return o, fmt.Errorf("the training ended %q after testing on %d images, want finished and some", o.Status, o.TestImages)
	}
	return o, nil
}

// trainCommand is atelier outside any cluster and configuration.
func (b *bench) trainCommand(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.atelier(), args...)
	cmd.Dir = b.Dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ATELIER_") })
	return cmd
}

// splitImages copies the images of each class into train, validation and
// test below to: of each class 60, 20 and 20 in a hundred, drawn by splitSeed
// from the sorted names.
func splitImages(from, to string) error {
	classes, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("seeds: %w", err)
	}
	found := 0
	for _, class := range classes {
		if !class.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(from, class.Name()))
		if err != nil {
			return fmt.Errorf("seeds: %w", err)
		}
		n := len(files)
		if n < 5 {
			return fmt.Errorf("seeds: class %s has %d images; 5 are the fewest that can be split", class.Name(), n)
		}
		found++
		rand.New(rand.NewPCG(splitSeed, uint64(found))).Shuffle(n, func(i, j int) { files[i], files[j] = files[j], files[i] })
		for i, f := range files {
			part := "train"
			switch {
			case i >= share60(n)+share20(n):
				part = "test"
			case i >= share60(n):
				part = "validation"
			}
			data, err := os.ReadFile(filepath.Join(from, class.Name(), f.Name()))
			if err != nil {
				return fmt.Errorf("seeds: %w", err)
			}
			dir := filepath.Join(to, part, class.Name())
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, f.Name()), data, 0o644); err != nil {
				return err
			}
		}
	}
	if found < 2 {
		return fmt.Errorf("seeds: %s has %d subfolders of images; a classifier needs at least 2", from, found)
	}
	return nil
}

func share60(n int) int { return int(math.Round(0.6 * float64(n))) }

func share20(n int) int { return int(math.Round(0.2 * float64(n))) }

// seedsTable is Markdown, two rows for each set of settings.
func seedsTable(j *harness.Journal) string {
	type group struct {
		settings string
		cutmix   bool
	}
	var groups []group
	found := map[group][]outcome{}
	for _, key := range slices.Sorted(slices.Values(j.Keys("seeds"))) { // without CutMix first
		head, rest, _ := strings.Cut(key, " cutmix=")
		cutmix, rest, _ := strings.Cut(rest, " ")
		_, settings, _ := strings.Cut(rest, " ") // after seed=
		var o outcome
		if !j.Newest(key, &o) {
			continue
		}
		g := group{strings.TrimPrefix(head, "seeds images=") + ": " + settings, cutmix == "true"}
		if found[g] == nil {
			groups = append(groups, g)
		}
		found[g] = append(found[g], o)
	}
	if len(groups) == 0 {
		return ""
	}
	table := harness.NewTable("CutMix", "seeds", "test accuracy, mean", "deviation", "each", "validation accuracy, mean", "test images")
	var told []string
	for _, g := range groups {
		test := harness.Of(found[g], func(o outcome) float64 { return o.TestAcc })
		mean, deviation := harness.MeanDeviation(test)
		validation, _ := harness.MeanDeviation(harness.Of(found[g], func(o outcome) float64 { return o.BestValAcc }))
		onOff := map[bool]string{true: "on", false: "off"}[g.cutmix]
		table.Row("%s | %d | **%.3f** | %.3f | %s | %.3f | %d", onOff, len(test), mean, deviation, each("%.3f", test), validation, found[g][0].TestImages)
		if !slices.Contains(told, g.settings) {
			told = append(told, g.settings)
		}
	}
	return fmt.Sprintf("### Test accuracy over seeds\n\n%s\nSettings: `%s`.\n\n", table, strings.Join(told, "`; `"))
}
