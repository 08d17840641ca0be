//go:build libtorch

package main_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/torchx"
)

const python = "/usr/bin/python3"

// architectures that torchvision has too.
var architectures = []string{"resnet18"}

func torchvision(t *testing.T, args ...string) []byte {
	t.Helper()
	if err := exec.Command(python, "-c", "import torch, torchvision").Run(); err != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", err)
	}
	cmd := exec.Command(python, append([]string{"testdata/parity.py"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/parity.py %v: %v", args, err)
	}
	return out
}

func tensors(t *testing.T, path string) []checkpoint.Tensor {
	t.Helper()
	file, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	all, err := checkpoint.StateDict(file.Root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func floats(t *testing.T, path string) []float32 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// build makes a model ready for training in the default layout.
func build(t *testing.T, arch string, classes int, weights []checkpoint.Tensor) *model.Model {
	t.Helper()
	m, err := model.New(arch, model.Options{Classes: classes, Dropout: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	if err := m.Load(weights); err != nil {
		t.Fatal(err)
	}
	if err := m.Move(torchx.CPU, true); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParityWithTorchvision(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const classes = 7
	for _, arch := range architectures {
		t.Run(arch, func(t *testing.T) {
			dir := t.TempDir()
			torchvision(t, "make", dir, arch, "7")
			if err := torchx.SetThreads(1); err != nil {
				t.Fatal(err)
			}

			t.Run("the same seed draws the same weights", func(t *testing.T) {
				if err := torchx.Seed(5); err != nil {
					t.Fatal(err)
				}
				m, err := model.New(arch, model.Options{Classes: classes, Dropout: -1})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Free()
				got, err := m.Export(&model.Stage{})
				if err != nil {
					t.Fatal(err)
				}
				want := tensors(t, filepath.Join(dir, "initial.pth"))
				if len(got) != len(want) {
					t.Fatalf("%d entries, torchvision has %d", len(got), len(want))
				}
				for i := range want {
					if got[i].Name != want[i].Name || !slices.Equal(got[i].Shape, want[i].Shape) || got[i].DType != want[i].DType {
						t.Errorf("entry %d is %s %v %v, torchvision's %s %v %v", i, got[i].Name, got[i].DType, got[i].Shape, want[i].Name, want[i].DType, want[i].Shape)
					} else if string(got[i].Data) != string(want[i].Data) {
						t.Errorf("%s is drawn differently", got[i].Name)
					}
				}
			})

			weights := tensors(t, filepath.Join(dir, "weights.pth"))
			input := floats(t, filepath.Join(dir, "input.f32"))

			t.Run("logits", func(t *testing.T) {
				want := floats(t, filepath.Join(dir, "logits.f32"))
				for _, layout := range []string{"default", "channels_last"} {
					out, err := exec.Command(trainer, "logits", "--model", arch, "--classes", "7", "--weights", filepath.Join(dir, "weights.pth"),
						"--shape", "8,3,64,64", "--input", filepath.Join(dir, "input.f32"), "--layout", layout).Output()
					if err != nil {
						t.Fatal(err)
					}
					var got struct{ Logits [][]float32 }
					if err := json.Unmarshal(out, &got); err != nil {
						t.Fatal(err)
					}
					worst := 0.0
					for i, v := range slices.Concat(got.Logits...) {
						worst = max(worst, math.Abs(float64(v-want[i])))
					}
					t.Logf("%s: logits differ by at most %.2g", layout, worst)
					if !(worst <= 1e-4) || len(got.Logits) != 8 {
						t.Errorf("%s: logits of %d images differ by up to %g", layout, len(got.Logits), worst)
					}
				}
			})

			// step computes the loss of the whole input and its gradients.
			labels := make([]int64, 8)
			for i := range labels {
				labels[i] = int64(i % classes)
			}
			step := func(t *testing.T, m *model.Model) float64 {
				var value float64
				err := torchx.Catch(func() error {
					p := &nn.Pass{Training: true}
					defer p.Close()
					x := p.KeepOr(torchx.FromFloats(input, 8, 3, 64, 64))
					torchx.Must(torchx.Move(x, torchx.CPU, true))
					y := p.KeepOr(torchx.Labels(labels, torchx.CPU))
					loss := p.KeepOr(torchx.CrossEntropy(m.Forward(p, x), y, 0))
					var err error
					if value, err = torchx.Item(loss); err != nil {
						return err
					}
					return torchx.Backward(loss)
				})
				if err != nil {
					t.Fatal(err)
				}
				return value
			}

			t.Run("gradients", func(t *testing.T) {
				m := build(t, arch, classes, weights)
				step(t, m)
				want := map[string]checkpoint.Tensor{}
				for _, g := range tensors(t, filepath.Join(dir, "gradients.pth")) {
					want[g.Name] = g
				}
				worst, checked := 0.0, 0
				for _, e := range m.State() {
					if e.Kind != nn.Weight {
						continue
					}
					g, ok, err := torchx.Grad(e.Tensor)
					if err != nil || !ok {
						t.Fatalf("%s has no gradient: %v", e.Name, err)
					}
					got, err := torchx.Floats(g)
					torchx.Free(g)
					if err != nil {
						t.Fatal(err)
					}
					w := want[e.Name]
					ref, err := w.Float32s()
					if err != nil {
						t.Fatalf("%s: %v", e.Name, err)
					}
					var diff, norm float64
					for i := range ref {
						diff += math.Pow(float64(got[i]-ref[i]), 2)
						norm += math.Pow(float64(ref[i]), 2)
					}
					if r := math.Sqrt(diff / norm); !(r <= 1e-3) {
						t.Errorf("%s: gradient differs by %.2g of its norm", e.Name, r)
					} else {
						worst = max(worst, r)
					}
					checked++
				}
				t.Logf("%d gradients differ by at most %.2g of their norm", checked, worst)
			})

			var losses map[string][]float64
			b, err := os.ReadFile(filepath.Join(dir, "losses.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &losses); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				config optim.Config
				lr     float64
			}{
				{optim.Config{Name: "sgd", Momentum: 0.9, WeightDecay: 1e-4}, 0.004},
				{optim.Config{Name: "adam", WeightDecay: 1e-4}, 1e-4},
			} {
				t.Run("20 steps of "+c.config.Name, func(t *testing.T) {
					m := build(t, arch, classes, weights)
					opt, err := optim.New(c.config, m.Weights())
					if err != nil {
						t.Fatal(err)
					}
					defer opt.Free()
					want := losses[c.config.Name]
					worst := 0.0
					for i := range 20 {
						worst = max(worst, math.Abs(step(t, m)-want[i]))
						if err := opt.Step(c.lr); err != nil {
							t.Fatal(err)
						}
					}
					t.Logf("losses from %.4f to %.4f differ by at most %.2g", want[0], want[19], worst)
					if !(worst <= 1e-3) || len(want) != 20 {
						t.Errorf("losses differ by up to %g", worst)
					}
				})
			}
		})
	}
}

// A checkpoint of ours opens in Python: model strictly, optimiser and all.
func TestPythonGoesOnFromOurCheckpoint(t *testing.T) {
	job := newJob(t, pictures(t, 8, 3), map[string]any{"model": "resnet18", "epochs": 1, "optimizer": "adam", "batch_size": 8})
	kept := of(finish(t, job), trainerproto.EventCheckpoint)
	var got struct {
		Arch    string
		Classes map[string]int
		Epoch   int
		Steps   []int
	}
	if err := json.Unmarshal(torchvision(t, "load", kept[0].Path, "resnet18", "3"), &got); err != nil {
		t.Fatal(err)
	}
	if got.Arch != "resnet18" || got.Epoch != 1 || got.Classes["timber"] != 2 || !slices.Equal(got.Steps, []int{4}) {
		t.Errorf("Python read %+v", got)
	}
}

func TestLoadRefusesOtherStates(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m, err := model.New("vanilla", model.Options{Classes: 3, Dropout: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	before, err := m.Export(&model.Stage{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func([]checkpoint.Tensor) []checkpoint.Tensor
		want   string
	}{
		"missing":    {func(s []checkpoint.Tensor) []checkpoint.Tensor { return s[1:] }, "features.0.weight is missing"},
		"unexpected": {func(s []checkpoint.Tensor) []checkpoint.Tensor { return append(s, *checkpoint.NewF32([]float32{1}, 1)) }, "is unexpected"},
		"shape": {func(s []checkpoint.Tensor) []checkpoint.Tensor {
			s[0] = *checkpoint.NewF32(make([]float32, 4), 4)
			s[0].Name = "features.0.weight"
			return s
		}, "features.0.weight has shape [4]; want [32 3 3 3]"},
		"type": {func(s []checkpoint.Tensor) []checkpoint.Tensor {
			t := checkpoint.NewI64(make([]int64, 32*27), 32, 3, 3, 3)
			t.Name = "features.0.weight"
			s[0] = *t
			return s
		}, "want floating point"},
	} {
		err := m.Load(c.change(slices.Clone(before)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want it to say %q", name, err, c.want)
		}
	}
	after, err := m.Export(&model.Stage{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if string(before[i].Data) != string(after[i].Data) {
			t.Errorf("a refused state changed %s", before[i].Name)
		}
	}
}
