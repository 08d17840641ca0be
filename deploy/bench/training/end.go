package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"atelier/deploy/bench/harness"
)

// What is trained end to end, on both sides.
const (
	endImages     = 500 // to train on; a fifth as many to validate on
	endStyles     = 5
	endSize       = 64
	endEpochs     = 5
	endModel      = "resnet18"
	endValidation = endImages / 5
)

// barEnd is what ours over PyTorch is held to.
const barEnd = 2.0

// endSides take turns; the first and third are the figure, the others say
// where it comes from.
var endSides = []struct {
	name, who, layout, precision string
	packed                       bool
}{
	{"ours", "ours", "auto", "fp32", false},
	{"ours, set packed before", "ours", "auto", "fp32", true},
	{"PyTorch", "pytorch", "default", "fp32", false},
	{"PyTorch, channels_last", "pytorch", "channels_last", "fp32", false},
	{"ours, bf16", "ours", "auto", "bf16", false},
	{"PyTorch, bf16", "pytorch", "default", "bf16", false},
}

func endKey(side string, round int) string {
	return fmt.Sprintf("end model=%s images=%d size=%d epochs=%d side=%q round=%d", endModel, endImages, endSize, endEpochs, side, round)
}

// training is one process from its start to its end.
type training struct {
	harness.Used
	Epochs   []float64 `json:"epochs"` // what each took, training and validation, seconds
	Accuracy float64   `json:"val_acc"`
}

// measureEnd lets the sides take turns, in an order that turns round.
func (b *bench) measureEnd(ctx context.Context) error {
	data, packed, err := b.drawImages(ctx)
	if err != nil {
		return err
	}
	return harness.Turns(b.Rounds, len(endSides), func(round, i int) error {
		side := endSides[i]
		_, err := harness.Measure(b.Session, endKey(side.name, round+1), func() (one training, err error) {
			dir, err := os.MkdirTemp(b.Dir, "end-")
			if err != nil {
				return one, err
			}
			defer os.RemoveAll(dir)
			if side.who == "pytorch" {
				return b.trainPython(ctx, data, dir, side.layout, side.precision)
			}
			cache := filepath.Join(dir, "cache")
			if side.packed {
				cache = packed
			}
			return b.trainOurs(ctx, data, dir, cache, side.precision)
		})
		return err
	})
}

// drawImages makes the folders to train from, and packs a copy of them.
func (b *bench) drawImages(ctx context.Context) (data, packed string, err error) {
	data, packed = filepath.Join(b.Dir, "facades"), filepath.Join(b.Dir, "packed")
	draw := []string{"data", "synth", data, "--train", strconv.Itoa(endImages / endStyles), "--validation", strconv.Itoa(endValidation / endStyles), "--test", "0", "--size", strconv.Itoa(endSize)}
	for _, style := range []string{"american_craftsman", "gothic", "modernist", "tudor", "victorian"} {
		draw = append(draw, "--style", style)
	}
	for _, args := range [][]string{draw,
		{"data", "pack", filepath.Join(data, "train"), "--size", strconv.Itoa(endSize), "--cache", packed},
		{"data", "pack", filepath.Join(data, "validation"), "--size", strconv.Itoa(endSize), "--cache", packed}} {
		if out, err := exec.CommandContext(ctx, b.atelier(), args...).CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("atelier %s: %w\n%s", strings.Join(args, " "), err, harness.Tail(out))
		}
	}
	return data, packed, nil
}

// trainOurs runs atelier train, which leaves checkpoints, charts of batches and
// a history, and packs the images first unless cache holds them.
func (b *bench) trainOurs(ctx context.Context, data, dir, cache, precision string) (one training, err error) {
	out := filepath.Join(dir, "results")
	args := []string{"train", "--data", data, "--out", out, "--no-mlflow", "--quiet", "--trainer-bin", b.trainer(), "--seed", "1",
		"--model", endModel, "--epochs", strconv.Itoa(endEpochs), "--batch-size", "32", "--lr", "0.01"}
	for _, pair := range []string{"optimizer=sgd", "image_size=" + strconv.Itoa(endSize), "precision=" + precision, "cache_dir=" + cache,
		"augmentation.crop=pad", "augmentation.flip=true", "augmentation.rotation=10",
		"augmentation.jitter.brightness=0.2", "augmentation.jitter.contrast=0.2", "augmentation.jitter.saturation=0.2", "augmentation.jitter.hue=0.05"} {
		args = append(args, "--set", pair)
	}
	if _, one.Used, err = harness.Use(b.trainCommand(ctx, args)); err != nil {
		return one, err
	}
	var h struct {
		Seconds  []float64 `json:"epoch_seconds"`
		Accuracy []float64 `json:"val_acc"`
	}
	history, err := os.ReadFile(filepath.Join(out, "training_history.json"))
	if err != nil {
		return one, err
	}
	if err := json.Unmarshal(history, &h); err != nil {
		return one, fmt.Errorf("training_history.json: %w", err)
	}
	if one.Epochs = h.Seconds; len(h.Accuracy) > 0 {
		one.Accuracy = h.Accuracy[len(h.Accuracy)-1]
	}
	return one, one.whole()
}

func (b *bench) trainPython(ctx context.Context, data, dir, layout, precision string) (one training, err error) {
	cmd := exec.CommandContext(ctx, b.Python, filepath.Join(b.Dir, "peer", "folder.py"), "--train", filepath.Join(data, "train"), "--validation", filepath.Join(data, "validation"), "--out", dir,
		"--model", endModel, "--epochs", strconv.Itoa(endEpochs), "--size", strconv.Itoa(endSize), "--layout", layout, "--precision", precision)
	var out []byte
	if out, one.Used, err = harness.Use(cmd); err != nil {
		return one, err
	}
	for line := range bytes.Lines(out) {
		var e struct {
			Event    string  `json:"event"`
			Seconds  float64 `json:"seconds"`
			Accuracy float64 `json:"val_acc"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return one, fmt.Errorf("line %q: %w", line, err)
		}
		if e.Event == "epoch" {
			one.Epochs = append(one.Epochs, e.Seconds)
			one.Accuracy = e.Accuracy
		}
	}
	return one, one.whole()
}

func (t training) whole() error {
	if len(t.Epochs) != endEpochs {
		return fmt.Errorf("reported %d epochs, want %d", len(t.Epochs), endEpochs)
	}
	return nil
}

// endTable is Markdown: each side's median, and where the time goes.
func endTable(j *harness.Journal) string {
	if len(j.Keys("end")) == 0 {
		return ""
	}
	table := harness.NewTable("side", "seconds (all rounds)", "an epoch", "all but epochs", "accuracy", "processor seconds", "peak MiB, largest process")
	seconds := map[string][]float64{}
	for _, side := range endSides {
		var all []training
		for one := (training{}); j.Newest(endKey(side.name, len(all)+1), &one); one = (training{}) {
			all = append(all, one)
		}
		if len(all) == 0 {
			continue
		}
		seconds[side.name] = harness.Of(all, func(t training) float64 { return t.Wall })
		table.Row("%s | %.1f (%s) | %.2f | %.2f | %.2f | %.1f | %.0f", side.name, harness.Median(seconds[side.name]), each("%.1f", seconds[side.name]),
			harness.MedianOf(all, func(t training) float64 { return harness.Median(t.Epochs) }), harness.MedianOf(all, func(t training) float64 { return t.Wall - harness.Sum(t.Epochs) }),
			harness.MedianOf(all, func(t training) float64 { return t.Accuracy }), harness.MedianOf(all, func(t training) float64 { return t.CPU }), harness.MedianOf(all, func(t training) float64 { return t.Peak }))
	}
	q := harness.Ratio(seconds["PyTorch"], seconds["ours"])
	return fmt.Sprintf("### End to end: %s, %d images of %d px (and %d to validate on), %d epochs, files on disk to the end of the process\n\n%s\n"+
		"PyTorch / ours: %s (bar %.1f); against PyTorch with channels_last %.2f; both in bf16 %.2f. %s", endModel, endImages, endSize, endValidation, endEpochs, table, bold(q, barEnd), barEnd,
		harness.Ratio(seconds["PyTorch, channels_last"], seconds["ours"]), harness.Ratio(seconds["PyTorch, bf16"], seconds["ours, bf16"]), j.Conditions("end"))
}
