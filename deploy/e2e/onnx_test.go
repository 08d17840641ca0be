package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/checkpoint/arch"
)

// A model file becomes an ONNX file by one command; what cannot become one is refused in words, and nothing is
// written over unasked. That the network computes the same is tested beside the trainer.
func TestConvertToONNX(t *testing.T) {
	t.Setenv("ATELIER_TRAINER_BIN", torch(t)[1])
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "vanilla.pth"), filepath.Join(dir, "vanilla.onnx")
	var state []checkpoint.Tensor
	for _, p := range arch.Known("vanilla") {
		n := int64(1)
		shape := append([]int64(nil), p.Shape...)
		for i, d := range shape {
			if d == 0 {
				shape[i] = 7 // classes
			}
			n *= shape[i]
		}
		x := checkpoint.Tensor{DType: checkpoint.I64, Data: make([]byte, 8)}
		if !strings.HasSuffix(p.Name, "num_batches_tracked") {
			x = *checkpoint.NewF32(make([]float32, n), shape...)
		}
		x.Name = p.Name
		state = append(state, x)
	}
	_, err := checkpoint.Save(in, checkpoint.FromStateDict(state))
	must(t, err)

	stdout, stderr, code := atelier(t, ctx, nil, "weights", "convert", in, out, "--image-size", "96")
	if code != 0 || stdout != out+"\n" || !strings.Contains(stderr, "vanilla with 7 classes for images of 96 px") {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	file, err := os.ReadFile(out)
	must(t, err)
	for _, want := range []string{"features.0.weight", "BatchNormalization", "images", "logits", "image_size"} {
		if !strings.Contains(string(file), want) {
			t.Errorf("the file does not contain %q", want)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{in, out}, 2, "--overwrite"},
		{[]string{in, out, "--bare"}, 2, "--bare is not for .onnx files"},
		{[]string{in, filepath.Join(dir, "a.pth"), "--image-size", "96"}, 2, "--image-size is only for .onnx files"},
		{[]string{in, filepath.Join(dir, "b.onnx"), "--model", "resnet18"}, 1, "state is not one of resnet18"},
		{[]string{filepath.Join(dir, "nothing.pth"), filepath.Join(dir, "c.onnx")}, 3, "nothing.pth"},
		{[]string{in, filepath.Join(dir, "none", "d.onnx")}, 1, filepath.Join(dir, "none")},
	} {
		_, stderr, code := atelier(t, ctx, nil, append([]string{"weights", "convert"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("%v: exit %d: %s", c.args, code, stderr)
		}
	}
	if again, err := os.ReadFile(out); err != nil || string(again) != string(file) {
		t.Error("the file was written over:", err)
	}
}
