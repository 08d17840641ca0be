//go:build libtorch

package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// logits prints, as JSON, a stored model's answers in evaluation mode to raw
// input: what parity with other programs is checked by.
func logits(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("logits", flag.ContinueOnError)
	arch := fs.String("model", "", "architecture; from the weights' file, else resnet18")
	classes := fs.Int("classes", 0, "classes; from the weights' file, else 1000")
	weights := fs.String("weights", "", "checkpoint (.pth); without one the initial weights of --seed")
	seed := fs.Uint64("seed", 0, "seed of the initial weights")
	shape := fs.String("shape", "", "of the input: images,3,height,width")
	input := fs.String("input", "", "file of little-endian float32 values")
	layout := fs.String("layout", "channels_last", "default or channels_last")
	threads := fs.Int("threads", 2, "CPU threads")
	if err := fs.Parse(args); err != nil {
		return usageError{err}
	}
	var dims []int64
	for _, d := range strings.Split(*shape, ",") {
		n, err := strconv.ParseInt(d, 10, 64)
		if err != nil || n < 1 || n > 1<<20 {
			return usageError{fmt.Errorf("logits: --shape %q: want images,3,height,width", *shape)}
		}
		dims = append(dims, n)
	}
	if len(dims) != 4 || dims[1] != 3 {
		return usageError{fmt.Errorf("logits: --shape %q: want images,3,height,width", *shape)}
	}
	raw, err := os.ReadFile(*input)
	if err != nil {
		return fmt.Errorf("logits: --input: %w", err)
	}
	if err := torchx.SetThreads(max(*threads, 1)); err != nil {
		return err
	}
	if err := torchx.Seed(*seed); err != nil {
		return err
	}
	if *weights != "" {
		file, err := checkpoint.Open(*weights)
		if err != nil {
			return err
		}
		said, _ := file.Model() // a bare state says nothing
		file.Close()
		*arch, *classes = cmp.Or(*arch, said.Arch), cmp.Or(*classes, len(said.Classes))
	}
	*arch, *classes = cmp.Or(*arch, "resnet18"), cmp.Or(*classes, 1000)
	m, err := model.New(*arch, model.Options{Classes: *classes, Dropout: -1})
	if err != nil {
		return usageError{err}
	}
	defer m.Free()
	if *weights != "" {
		if err := loadWeights(m, *weights); err != nil {
			return err
		}
	}
	last := *layout == "channels_last"
	if err := m.Move(torchx.CPU, last); err != nil {
		return err
	}
	x, err := torchx.FromBytes(raw, torchx.F32, dims)
	if err != nil {
		return fmt.Errorf("logits: --input %s: %w", *input, err)
	}
	defer torchx.Free(x)
	if err := torchx.Move(x, torchx.CPU, last); err != nil {
		return err
	}
	var values []float32
	err = torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{}
			defer p.Close()
			var err error
			values, err = torchx.Floats(m.Forward(p, x))
			return err
		})
	})
	if err != nil {
		return err
	}
	rows := make([][]float32, dims[0])
	for i := range rows {
		rows[i] = values[i**classes : (i+1)**classes]
	}
	return json.NewEncoder(out).Encode(map[string]any{"model": *arch, "logits": rows})
}

// loadWeights reads a checkpoint or bare state into a model, strictly.
func loadWeights(m *model.Model, path string) error {
	file, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	state, err := checkpoint.StateDict(file.Root)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := m.Load(state); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
