//go:build libtorch

package train

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"atelier/common/files"
	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/torchx"
)

// Before a checkpoint is told of or written, the weights in training, their
// average and the running statistics are looked at.
func TestBrokenStateIsNotCollected(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := torchx.Init(); err != nil {
		t.Fatal(err)
	}
	set := pack(t, 8, 2, 2)
	for _, c := range []struct {
		tensor  string
		value   float32
		average bool // spoil the average, not what is trained
		decay   float64
	}{{"features.0.0.weight", float32(math.NaN()), false, 0}, {"features.18.1.running_var", float32(math.Inf(1)), false, 0}, {"classifier.1.bias", float32(math.NaN()), false, 0.9},
		{"features.3.conv.0.1.running_mean", float32(math.Inf(-1)), true, 0.9}, {"", 0, false, 0.9}} {
		d := open(t, set, augment.Recipe{}, false)
		d.train, d.validation = set, set
		r := &run{settings: settings.Settings{Model: "mobilenet_v2", Optimizer: "sgd", LR: 0.1, EMADecay: c.decay}, device: torchx.CPU, data: d, log: slog.Default(), writer: &checkpointWriter{}}
		var err error
		if r.model, err = model.New("mobilenet_v2", model.Options{Classes: 2, Dropout: -1}); err != nil {
			t.Fatal(err)
		}
		if err := r.prepareLearning(); err != nil {
			t.Fatal(err)
		}
		if r.average != nil {
			if err := r.average.Update(); err != nil {
				t.Fatal(err)
			}
		}
		spoil := func() error {
			for _, e := range r.model.State() {
				if e.Name == c.tensor {
					v, err := torchx.Floats(e.Tensor)
					if err != nil {
						return err
					}
					v[len(v)-1] = c.value
					info, err := torchx.Describe(e.Tensor)
					if err != nil {
						return err
					}
					x, err := torchx.FromFloats(v, info.Shape...)
					if err != nil {
						return err
					}
					defer torchx.Free(x)
					return torchx.Copy([]torchx.Tensor{e.Tensor}, []torchx.Tensor{x})
				}
			}
			return nil
		}
		if c.average {
			err = r.average.Show(spoil)
		} else {
			err = spoil()
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.writer.collect(r, progress{Epoch: 3, Best: 0.5, BestEpoch: 3})
		var f *Failure
		switch {
		case c.tensor == "" && err != nil:
			t.Errorf("a sound state: %v", err)
		case c.tensor != "" && (!errors.As(err, &f) || f.Class != trainerproto.FailedDiverged || !strings.Contains(err.Error(), "epoch 3: "+c.tensor+" is not finite")):
			t.Errorf("%+v: %v", c, err)
		}
		for _, part := range []interface{ Free() }{r.model, r.opt} {
			part.Free()
		}
		if r.average != nil {
			r.average.Free()
		}
	}
}

// What a killed process left half written goes with the next one's start; not with a
// newcomer's, whose folder a member at work may be writing into.
func TestHalfWrittenCheckpoints(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, files.Unfinished("epoch-0003-run-1.pth"))
	half = strings.TrimSuffix(half, "*") + "0123abcd"
	if err := os.WriteFile(half, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, joins := range []bool{true, false} {
		if _, err := openCheckpointWriter(dir, 1, joins); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(half); (err == nil) != joins {
			t.Errorf("joins %t: %v", joins, err)
		}
	}
}
