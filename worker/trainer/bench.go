//go:build libtorch

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

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
	fs.StringVar(&r.Layout, "layout", "channels_last", "default or channels_last")
	fs.StringVar(&r.Precision, "precision", "fp32", "fp32 or bf16")
	fs.StringVar(&r.Device, "device", "cpu", "cpu or cuda")
	if err := fs.Parse(args); err != nil {
		return usageError{err}
	}
	if r.Size < 1 || r.Batch < 1 || r.Steps < 1 || r.Repeats < 1 || r.Threads < 1 {
		return usageError{fmt.Errorf("bench: size, batch, steps, repeats and threads must be at least 1")}
	}
	precision, ok := map[string]torchx.Precision{"fp32": torchx.FP32, "bf16": torchx.BF16}[r.Precision]
	if !ok || (r.Layout != "default" && r.Layout != "channels_last") {
		return usageError{fmt.Errorf("bench: precision is fp32 or bf16, layout default or channels_last")}
	}
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
	pass := &nn.Pass{Training: true}
	steps := func(n int) error {
		for range n {
			err := torchx.Catch(func() error {
				defer pass.Close()
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
	if err := steps(2); err != nil {
		return err
	}
	var rates []float64
	for range r.Repeats {
		t := time.Now()
		if err := steps(r.Steps); err != nil {
			return err
		}
		rates = append(rates, float64(r.Steps*r.Batch)/time.Since(t).Seconds())
	}
	slices.Sort(rates)
	r.Rate = float64(int(rates[len(rates)/2]*10+0.5)) / 10
	return json.NewEncoder(out).Encode(r)
}
