//go:build libtorch

package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"atelier/common/kernels"
	"atelier/common/settings"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/torchx"
)

// benchResult is the line bench prints.
type benchResult struct {
	Model     string  `json:"model"`
	Size      int     `json:"size"`
	Batch     int     `json:"batch"`
	Classes   int     `json:"classes"`
	Steps     int     `json:"steps"`
	Repeats   int     `json:"repeats"`
	Threads   int     `json:"threads"`
	Layout    string  `json:"layout"`
	Precision string  `json:"precision"`
	Kernels   string  `json:"kernels"` // of ours that were on
	Device    string  `json:"device"`
	Torch     string  `json:"torch"`
	Rate      float64 `json:"images_per_s"`
}

// bench measures full training steps (forward, cross entropy, backward, SGD
// with momentum) on input already in memory: the work of the PyTorch script it
// is compared with. The figure is the median of the timed blocks.
func bench(args []string, out io.Writer) error {
	r := benchResult{Torch: torchx.Version()}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&r.Model, "model", "resnet18", "architecture")
	fs.IntVar(&r.Size, "size", 64, "side of the images, pixels")
	fs.IntVar(&r.Batch, "batch", 32, "images a step")
	fs.IntVar(&r.Classes, "classes", 5, "classes")
	fs.IntVar(&r.Steps, "steps", 10, "steps in a timed block")
	fs.IntVar(&r.Repeats, "repeats", 3, "timed blocks")
	fs.IntVar(&r.Threads, "threads", 2, "CPU threads")
	fs.StringVar(&r.Layout, "layout", "channels_last", "default, channels_last or auto (what a training takes)")
	fs.StringVar(&r.Precision, "precision", "fp32", "fp32 or bf16")
	fs.StringVar(&r.Device, "device", "cpu", "cpu or cuda")
	fs.StringVar(&r.Kernels, "kernels", "", "kernels of our own: all, none or a list (-dense,-norm); empty = "+kernels.Environment+", else all")
	augmented := fs.Bool("augmented", false, "change images at each step, as a training with all of augmentation does")
	warmup := fs.Int("warmup", 2, "steps before the first timed block")
	paced := fs.Bool("paced", false, "wait for a line with a number of steps before each timed block, print a line after it; --steps and --repeats do not count")
	if err := fs.Parse(args); err != nil {
		return usageError{err}
	}
	if r.Size < 1 || r.Batch < 1 || r.Steps < 1 || r.Repeats < 1 || r.Threads < 1 || *warmup < 1 {
		return usageError{fmt.Errorf("bench: size, batch, steps, repeats, threads and warmup must be at least 1")}
	}
	automatic := layoutName(settings.Settings{Layout: "auto"}.ChannelsLast())
	if r.Layout == "auto" {
		r.Layout = automatic
	}
	precision, ok := map[string]torchx.Precision{"fp32": torchx.FP32, "bf16": torchx.BF16}[r.Precision]
	if !ok || (r.Layout != "default" && r.Layout != "channels_last") {
		return usageError{fmt.Errorf("bench: precision is fp32 or bf16, layout default, channels_last or auto")}
	}
	choose := kernels.Chosen
	if r.Kernels != "" {
		choose = kernels.Parse
	}
	on, err := choose(r.Kernels)
	if err != nil {
		return usageError{err}
	}
	torchx.UseKernels(on)
	r.Kernels = on.String()
	device, last := torchx.NewDevice(r.Device), r.Layout == "channels_last"
	if err := torchx.DeviceReady(device); err != nil {
		return err
	}
	if err := torchx.SetThreads(r.Threads); err != nil {
		return err
	}
	if err := torchx.Seed(0); err != nil {
		return err
	}
	m, err := model.New(r.Model, model.Options{Classes: r.Classes, Dropout: -1})
	if err != nil {
		return usageError{err}
	}
	if err := m.Move(device, last); err != nil {
		return err
	}
	opt, err := optim.New(optim.Config{Name: "sgd", Momentum: 0.9}, m.Weights())
	if err != nil {
		return err
	}
	pixels, labels := make([]byte, r.Batch*r.Size*r.Size*3), make([]int64, r.Batch)
	for i := range pixels {
		pixels[i] = byte(i * 2654435761 >> 13)
	}
	for i := range labels {
		labels[i] = int64(i % r.Classes)
	}
	k := float32(1. / 64)
	x, err := torchx.Images(pixels, r.Batch, r.Size, r.Size, []float32{k, k, k}, []float32{-2, -2, -2}, device, last)
	if err != nil {
		return err
	}
	y, err := torchx.Labels(labels, device)
	if err != nil {
		return err
	}
	block, err := torchx.NewBlock(r.Batch, r.Size, device)
	if err != nil {
		return err
	}
	defer block.Free()
	copy(block.Pixels, pixels)
	for i := range r.Batch {
		part := max(1, r.Size*7/8)
		block.SetWarp(i, 0, 0, part, part, i%2 == 0, float64(i%21-10))
		block.SetColour(i, 1.1, 0.9, 1.1, 0.02)
	}
	pass := &nn.Pass{Training: true}
	input := func() torchx.Tensor {
		if !*augmented {
			return x
		}
		images, labels, others, err := block.Send([]float32{k, k, k}, []float32{-2, -2, -2},
			torchx.Changes{Warp: true, Colour: true, Order: [4]int32{0, 1, 2, 3}, ChannelsLast: last})
		torchx.Must(err)
		pass.Keep(labels)
		pass.Keep(others)
		return pass.Keep(images)
	}
	steps := func(n int) error {
		for range n {
			err := torchx.Catch(func() error {
				defer pass.Close()
				x := input()
				var loss torchx.Tensor
				if err := torchx.Autocast(device, precision, func() error {
					logits := m.Forward(pass, x)
					loss = pass.KeepOr(torchx.CrossEntropy(logits, y, torchx.Tensor{}, 0))
					return nil
				}); err != nil {
					return err
				}
				if err := torchx.Backward(loss); err != nil {
					return err
				}
				return opt.Step(0.01)
			})
			if err != nil {
				return err
			}
		}
		return torchx.Synchronize(device)
	}
	if err := steps(*warmup); err != nil {
		return err
	}
	timed := func(n int) (float64, error) {
		t := time.Now()
		err := steps(n)
		return float64(n*r.Batch) / time.Since(t).Seconds(), err
	}
	if *paced {
		return pace(os.Stdin, out, automatic, timed)
	}
	var rates []float64
	for range r.Repeats {
		rate, err := timed(r.Steps)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	slices.Sort(rates)
	r.Rate = float64(int(rates[len(rates)/2]*10+0.5)) / 10
	return json.NewEncoder(out).Encode(r)
}

// pace lets another program say when a block of steps is due, so that several
// measurements can take turns: {"ready": true, "auto": layout} at first, then for
// each line with a number of steps {"images_per_s": rate of that block}, until
// the lines end.
func pace(in io.Reader, out io.Writer, automatic string, timed func(steps int) (float64, error)) error {
	lines := json.NewEncoder(out)
	if err := lines.Encode(map[string]any{"ready": true, "auto": automatic}); err != nil {
		return err
	}
	for s := bufio.NewScanner(in); s.Scan(); {
		n, err := strconv.Atoi(s.Text())
		if err != nil || n < 1 {
			return usageError{fmt.Errorf("bench: --paced wants a number of steps a line, got %.40q", s.Text())}
		}
		rate, err := timed(n)
		if err != nil {
			return err
		}
		if err := lines.Encode(map[string]float64{"images_per_s": rate}); err != nil {
			return err
		}
	}
	return nil
}

func layoutName(channelsLast bool) string {
	if channelsLast {
		return "channels_last"
	}
	return "default"
}
