//go:build libtorch

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/model"
)

// defaultSide is the side of the images where neither a flag nor the file gives it, pixels: ImageNet's.
const defaultSide = 224

// onnxReport is what exportONNX prints.
type onnxReport struct {
	Model     string `json:"model"`
	Classes   int    `json:"classes"`
	ImageSize int    `json:"image_size"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
}

// exportONNX writes a stored model as an ONNX file and prints, as JSON, what it wrote.
func exportONNX(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("onnx", flag.ContinueOnError)
	in := fs.String("checkpoint", "", "model file or training checkpoint")
	to := fs.String("out", "", "ONNX file to write")
	arch := fs.String("model", "", "architecture; from the file, else by the shapes of its tensors")
	size := fs.Int("image-size", 0, "side of the images, pixels; 0 = from the file, else 224")
	if err := fs.Parse(args); err != nil {
		return usageError{err}
	}
	if *in == "" || *to == "" || fs.NArg() > 0 {
		return usageError{errors.New("onnx: needs --checkpoint FILE and --out FILE, and takes no arguments")}
	}
	file, err := checkpoint.OpenState(*in)
	if err != nil {
		return err
	}
	defer file.Close()
	known, err := file.Model()
	if err != nil {
		return fmt.Errorf("%s: %w", *in, err)
	}
	known.Arch = cmp.Or(*arch, known.Arch, file.Arch)
	if known.Arch == "" {
		return usageError{fmt.Errorf("%s does not contain the name of its architecture; give it with --model", *in)}
	}
	known.ImageSize = cmp.Or(*size, known.ImageSize, defaultSide)
	classes, err := outputs(known, file.Tensors)
	if err != nil {
		return fmt.Errorf("%s: %w", *in, err)
	}
	m, err := model.New(known.Arch, model.Options{Classes: classes, Dropout: -1})
	if err != nil {
		return err
	}
	defer m.Free()
	if err := m.Load(file.Tensors); err != nil {
		return fmt.Errorf("%s: %w", *in, err)
	}
	info, err := checkpoint.SaveAs(*to, func(w io.Writer) error { return m.WriteONNX(w, known.ImageSize, known) })
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(onnxReport{known.Arch, classes, known.ImageSize, info.Bytes, info.SHA256})
}

// outputs counts a model's classes: those the file names, else the rows of its last matrix.
func outputs(known checkpoint.Model, tensors []checkpoint.Tensor) (int, error) {
	if n := len(known.Classes); n > 0 {
		return n, nil
	}
	for _, t := range slices.Backward(tensors) {
		if len(t.Shape) == 2 {
			return int(t.Shape[0]), nil
		}
	}
	return 0, errors.New("it has no linear layer, so the number of classes is unknown")
}
