package weights

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"atelier/common/openmp"
)

// ONNX asks the trainer, which alone knows the networks, for a model as an ONNX file.
type ONNX struct {
	Trainer   string // program
	In, Out   string // a checkpoint of any form; the file to write
	Arch      string // "" = what the file says
	ImageSize int    // pixels; 0 = what the file says, else ImageNet's 224
}

// Exported is what was written.
type Exported struct {
	Model     string `json:"model"`
	Classes   int    `json:"classes"`
	ImageSize int    `json:"image_size"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
}

// Write runs the trainer. Out is whole under its name, or as it was.
func (o ONNX) Write(ctx context.Context) (Exported, error) {
	args := []string{"onnx", "--checkpoint", o.In, "--out", o.Out}
	if o.Arch != "" {
		args = append(args, "--model", o.Arch)
	}
	if o.ImageSize > 0 {
		args = append(args, "--image-size", strconv.Itoa(o.ImageSize))
	}
	cmd := exec.CommandContext(ctx, o.Trainer, args...)
	cmd.Env = openmp.Environ()
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return Exported{}, ctx.Err()
		}
		if text := strings.TrimPrefix(strings.TrimSpace(words.String()), "atelier-trainer: "); text != "" {
			return Exported{}, errors.New(text)
		}
		return Exported{}, fmt.Errorf("%s: %w", o.Trainer, err)
	}
	var e Exported
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		return Exported{}, fmt.Errorf("%s answers %q: %w", o.Trainer, out.String(), err)
	}
	return e, nil
}
