package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/trainerproto"
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
	Seconds  float64   `json:"seconds"`
	Epochs   []float64 `json:"epochs"` // when each had been trained and validated, seconds from the start
	Accuracy float64   `json:"val_acc"`
	Peak     float64   `json:"peak_mib"` // of the largest process
}

// endPart lets the sides take turns, in an order that turns round.
func endPart(ctx context.Context, b *bench) error {
	data, packed, err := b.drawImages(ctx)
	if err != nil {
		return err
	}
	order := make([]int, len(endSides))
	for i := range order {
		order[i] = i
	}
	for round := range b.rounds {
		for _, i := range order {
			side := endSides[i]
			if err := measure(b, endKey(side.name, round+1), func() (one training, err error) {
				dir, err := os.MkdirTemp(b.dir, "end-")
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
			}); err != nil {
				return err
			}
		}
		slices.Reverse(order)
	}
	return b.print(endTable(b.journal))
}

// drawImages makes the folders to train from, and packs a copy of them.
func (b *bench) drawImages(ctx context.Context) (data, packed string, err error) {
	data, packed = filepath.Join(b.dir, "facades"), filepath.Join(b.dir, "packed")
	draw := []string{"data", "synth", data, "--train", strconv.Itoa(endImages / endStyles), "--validation", strconv.Itoa(endValidation / endStyles), "--test", "0", "--size", strconv.Itoa(endSize)}
	for _, style := range []string{"american_craftsman", "gothic", "modernist", "tudor", "victorian"} {
		draw = append(draw, "--style", style)
	}
	for _, args := range [][]string{draw,
		{"data", "pack", filepath.Join(data, "train"), "--size", strconv.Itoa(endSize), "--cache", packed},
		{"data", "pack", filepath.Join(data, "validation"), "--size", strconv.Itoa(endSize), "--cache", packed}} {
		if out, err := exec.CommandContext(ctx, b.atelier, args...).CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("atelier %s: %w\n%s", strings.Join(args, " "), err, tail(out))
		}
	}
	return data, packed, nil
}

// trainOurs runs atelier-trainer on one job, as a worker does.
func (b *bench) trainOurs(ctx context.Context, data, dir, cache, precision string) (one training, err error) {
	settings, err := json.Marshal(map[string]any{"model": endModel, "epochs": endEpochs, "image_size": endSize, "optimizer": "sgd", "lr": 0.01, "precision": precision,
		"augmentation": map[string]any{"crop": "pad", "flip": true, "rotation": 10,
			"jitter": map[string]any{"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}},
		"data": map[string]any{"train": filepath.Join(data, "train"), "validation": filepath.Join(data, "validation")}})
	if err != nil {
		return one, err
	}
	out := filepath.Join(dir, "checkpoints")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return one, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return one, err
	}
	defer r.Close()
	var job bytes.Buffer
	if err := trainerproto.NewWriter(&job).Send(trainerproto.Job{Protocol: trainerproto.Version, Sweep: "bench", Trial: 1, Run: 1, Seed: 1, Params: json.RawMessage("{}"),
		Training: settings, Metric: "val_loss", Device: "cpu", Threads: b.threads[0], Dir: out, BaseDir: data, CacheDir: cache}); err != nil {
		return one, err
	}
	var fault bytes.Buffer
	cmd := exec.CommandContext(ctx, b.trainer, "train")
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = &job, &fault, []*os.File{w}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return one, err
	}
	w.Close()
	for events := trainerproto.NewReader(r); ; {
		e, err := events.Event()
		if err != nil {
			break
		}
		if e.Kind == trainerproto.EventEpoch {
			one.Epochs = append(one.Epochs, time.Since(started).Seconds())
			one.Accuracy, _ = e.Metrics.Get("val_acc")
		}
	}
	if err := cmd.Wait(); err != nil {
		return one, fmt.Errorf("%w\n%s", err, tail(fault.Bytes()))
	}
	one.Seconds, one.Peak = time.Since(started).Seconds(), peak(cmd.ProcessState)
	return one, one.whole()
}

func (b *bench) trainPython(ctx context.Context, data, dir, layout, precision string) (one training, err error) {
	var fault bytes.Buffer
	cmd := exec.CommandContext(ctx, b.python, b.peer("folder.py"), "--train", filepath.Join(data, "train"), "--validation", filepath.Join(data, "validation"), "--out", dir,
		"--model", endModel, "--epochs", strconv.Itoa(endEpochs), "--size", strconv.Itoa(endSize), "--layout", layout, "--precision", precision)
	cmd.Stderr = &fault
	out, err := cmd.StdoutPipe()
	if err != nil {
		return one, err
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return one, err
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		var e struct {
			Event    string  `json:"event"`
			Accuracy float64 `json:"val_acc"`
		}
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			return one, fmt.Errorf("line %q: %w", s.Text(), err)
		}
		if e.Event == "epoch" {
			one.Epochs = append(one.Epochs, time.Since(started).Seconds())
			one.Accuracy = e.Accuracy
		}
	}
	if err := cmd.Wait(); err != nil {
		return one, fmt.Errorf("%w\n%s", err, tail(fault.Bytes()))
	}
	one.Seconds, one.Peak = time.Since(started).Seconds(), peak(cmd.ProcessState)
	return one, one.whole()
}

func (t training) whole() error {
	if len(t.Epochs) != endEpochs {
		return fmt.Errorf("told of %d epochs, want %d", len(t.Epochs), endEpochs)
	}
	return nil
}

// endTable is Markdown: each side's median, and where the time goes.
func endTable(j *journal) string {
	if len(j.keys("end")) == 0 {
		return ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "### End to end: %s, %d images of %d px (and %d to validate on), %d epochs, files on disk to the end of the process\n\n", endModel, endImages, endSize, endValidation, endEpochs)
	out.WriteString("| side | seconds (all rounds) | first epoch validated after | a later epoch | accuracy | peak MiB, largest process |\n|---|---|---|---|---|---|\n")
	seconds := map[string][]float64{}
	for _, side := range endSides {
		var first, later, accuracy, mib []float64
		var each []string
		var one training
		for round := 1; j.newest(endKey(side.name, round), &one); round++ {
			seconds[side.name] = append(seconds[side.name], one.Seconds)
			each = append(each, fmt.Sprintf("%.1f", one.Seconds))
			first = append(first, one.Epochs[0])
			later = append(later, (one.Epochs[len(one.Epochs)-1]-one.Epochs[0])/float64(len(one.Epochs)-1))
			accuracy, mib = append(accuracy, one.Accuracy), append(mib, one.Peak)
		}
		if len(each) == 0 {
			continue
		}
		fmt.Fprintf(&out, "| %s | %.1f (%s) | %.2f | %.2f | %.2f | %.0f |\n", side.name, median(seconds[side.name]), strings.Join(each, " "), median(first), median(later), median(accuracy), median(mib))
	}
	q := ratio(seconds["PyTorch"], seconds["ours"])
	fmt.Fprintf(&out, "\nPyTorch / ours: %s (bar %.1f); against PyTorch with channels_last %.2f; both in bf16 %.2f. ", bold(q, barEnd), barEnd,
		ratio(seconds["PyTorch, channels_last"], seconds["ours"]), ratio(seconds["PyTorch, bf16"], seconds["ours, bf16"]))
	return out.String() + j.conditions("end")
}
