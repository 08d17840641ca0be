//go:build libtorch

package model

import (
	"fmt"
	"io"

	"atelier/common/checkpoint"
	"atelier/common/version"
	"atelier/worker/trainer/nn"
)

// Names of the graph's input and output.
const (
	ONNXInput  = "images"
	ONNXOutput = "logits"
)

// WriteONNX writes the network in evaluation as an ONNX model: images, float32
// [batch, 3, size, size], colours from 0 to 1 less the mean and divided by the
// standard deviation, to logits [batch, classes]. What is known of the model goes
// into the metadata, in the words of a safetensors file.
func (m *Model) WriteONNX(w io.Writer, size int, known checkpoint.Model) error {
	if size < 1 {
		return fmt.Errorf("images of %d pixels; the side must be at least 1", size)
	}
	g := nn.NewGraph(m.Arch, m.Root)
	g.Output(ONNXOutput, m.Root.Graph(g, g.Input(ONNXInput, 3, int64(size), int64(size))))
	metadata := known.Metadata()
	delete(metadata, checkpoint.FormatKey) // of safetensors
	return g.Write(w, "atelier", version.Version, metadata)
}
