//go:build libtorch

package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
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

// architectures that torchvision has too, with its parameters at 1000 classes.
var architectures = map[string]int64{
	"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
	"efficientnet_b0": 5_288_548, "efficientnet_b1": 7_794_184, "efficientnet_b2": 9_109_994, "efficientnet_b3": 12_233_232,
	"efficientnet_b4": 19_341_616,
	"mobilenet_v2":    3_504_872, "mobilenet_v3_small": 2_542_856, "mobilenet_v3_large": 5_483_032,
	"vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
}

// trained are the architectures whose losses are followed over 20 steps of
// each of these optimisers, by PyTorch's name.
var trained = map[string][]string{
	"resnet18": {"sgd", "adam", "adamw"},
}

// big ones do not travel back through a file: half a gigabyte each, and their
// smaller sisters do.
var big = []string{"resnet152", "vgg13", "vgg16", "vgg19"}

// reference is what torchvision made of an architecture.
type reference struct {
	Initial [][4]any // name, type, shape, SHA-256
	Loss    float64
	Losses  map[string][]float64
}

const (
	parityClasses = 7
	parityImages  = 4
	paritySide    = 64
)

func TestParityWithTorchvision(t *testing.T) {
	python := newPeer(t)
	for _, arch := range slices.Sorted(maps.Keys(architectures)) {
		t.Run(arch, func(t *testing.T) {
			runtime.LockOSThread() // a subtest is a goroutine of its own; grad mode and threads belong to the thread
			defer runtime.UnlockOSThread()
			if err := torchx.SetThreads(1); err != nil {
				t.Fatal(err)
			}
			c := &comparison{t: t, arch: arch, dir: t.TempDir()}
			python.t = t
			python.ask(map[string]any{"do": "make", "arch": arch, "dir": c.dir, "classes": parityClasses, "images": parityImages,
				"optimisers": trained[arch]})
			python.answer(&c.want)
			if err := torchx.Seed(5); err != nil {
				t.Fatal(err)
			}
			var err error
			c.m, err = model.New(arch, model.Options{Classes: parityClasses, Dropout: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer c.m.Free()
			c.initial()
			c.count(architectures[arch])
			c.weights = tensors(t, filepath.Join(c.dir, "weights.pth"))
			c.input = floats(t, filepath.Join(c.dir, "input.f32"))
			c.load()
			if !slices.Contains(big, arch) {
				c.back(python)
			}
			for _, channelsLast := range []bool{true, false} {
				c.load()
				if err := c.m.Move(torchx.CPU, channelsLast); err != nil {
					t.Fatal(err)
				}
				c.logits()
			}
			c.step()
			for _, o := range []struct {
				config optim.Config
				lr     float64
			}{
				{optim.Config{Name: "sgd", Momentum: 0.9, WeightDecay: 1e-4}, 0.004},
				{optim.Config{Name: "adam", WeightDecay: 1e-4}, 1e-4},
				{optim.Config{Name: "adamw", WeightDecay: 1e-2}, 1e-4},
			} {
				if c.want.Losses[o.config.Name] != nil {
					c.train(o.config, o.lr)
				}
			}
		})
	}
}

// comparison is one architecture, theirs and ours.
type comparison struct {
	t       *testing.T
	arch    string
	dir     string
	want    reference
	m       *model.Model
	weights []checkpoint.Tensor
	input   []float32
}

func (c *comparison) load() {
	c.t.Helper()
	if err := c.m.Load(c.weights); err != nil {
		c.t.Fatal(err)
	}
}

func (c *comparison) export() []checkpoint.Tensor {
	c.t.Helper()
	s, err := c.m.Export(&model.Stage{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// initial: the same seed draws the same weights, under the same names, in the
// same order.
func (c *comparison) initial() {
	got := c.export()
	if len(got) != len(c.want.Initial) {
		c.t.Fatalf("%d entries, torchvision has %d", len(got), len(c.want.Initial))
	}
	types := map[checkpoint.DType]string{checkpoint.F32: "torch.float32", checkpoint.I64: "torch.int64"}
	for i, w := range c.want.Initial {
		shape := []any{}
		for _, d := range got[i].Shape {
			shape = append(shape, float64(d))
		}
		if got[i].Name != w[0] || types[got[i].DType] != w[1] || !slices.Equal(shape, w[2].([]any)) {
			c.t.Fatalf("entry %d is %s %v %v, torchvision's %v", i, got[i].Name, got[i].DType, got[i].Shape, w[:3])
		}
		if sum := sha256.Sum256(got[i].Data); hex.EncodeToString(sum[:]) != w[3] {
			c.t.Errorf("%s is drawn differently", got[i].Name)
		}
	}
}

// count: a head of 7 classes lacks 993 rows of weights and a bias each.
func (c *comparison) count(want int64) {
	n, err := c.m.Parameters()
	if err != nil {
		c.t.Fatal(err)
	}
	head, err := nn.Find(c.m.Root, c.m.Head)
	if err != nil {
		c.t.Fatal(err)
	}
	if n += (1000 - parityClasses) * (head.(*nn.Linear).In + 1); n != want {
		c.t.Errorf("%d parameters at 1000 classes, torchvision has %d", n, want)
	}
}

// back: Python loads our file strictly and finds what it gave us.
func (c *comparison) back(python *peer) {
	c.t.Helper()
	path := filepath.Join(c.dir, "ours.pth")
	if _, err := checkpoint.Save(path, checkpoint.FromStateDict(c.export())); err != nil {
		c.t.Fatal(err)
	}
	python.ask(map[string]any{"do": "strict", "file": path, "dir": c.dir})
	var answer struct{ Same bool }
	if python.answer(&answer); !answer.Same {
		c.t.Error("weights differ after a round trip")
	}
}

func (c *comparison) batch(p *nn.Pass) torchx.Tensor {
	x := p.KeepOr(torchx.FromFloats(c.input, parityImages, 3, paritySide, paritySide))
	torchx.Must(torchx.Move(x, torchx.CPU, c.m.ChannelsLast()))
	return x
}

// layout the model is in, for messages.
func (c *comparison) layout() string {
	if c.m.ChannelsLast() {
		return "channels_last"
	}
	return "default"
}

// logits of evaluation mode.
func (c *comparison) logits() {
	want := floats(c.t, filepath.Join(c.dir, "logits.f32"))
	var got []float32
	err := torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{}
			defer p.Close()
			var err error
			got, err = torchx.Floats(c.m.Forward(p, c.batch(p)))
			return err
		})
	})
	if err != nil {
		c.t.Fatal(err)
	}
	worst, size := 0.0, 0.0
	for i, v := range got {
		worst, size = max(worst, math.Abs(float64(v-want[i]))), max(size, math.Abs(float64(want[i])))
	}
	c.t.Logf("%s: logits up to %.3g differ by at most %.2g", c.layout(), size, worst)
	// Of small logits the first three digits have to agree as well.
	if !(worst <= min(1e-4, 1e-3*size)) || len(got) != parityImages*parityClasses || len(want) != len(got) {
		c.t.Errorf("%s: %d logits differ by up to %g", c.layout(), len(got), worst)
	}
}

// loss of the whole input in training, and its gradients.
func (c *comparison) loss() float64 {
	c.t.Helper()
	labels := make([]int64, parityImages)
	for i := range labels {
		labels[i] = int64(i % parityClasses)
	}
	var value float64
	err := torchx.Catch(func() error {
		p := &nn.Pass{Training: true}
		defer p.Close()
		y := p.KeepOr(torchx.Labels(labels, torchx.CPU))
		loss := p.KeepOr(torchx.CrossEntropy(c.m.Forward(p, c.batch(p)), y, torchx.Tensor{}, 0))
		var err error
		if value, err = torchx.Item(loss); err != nil {
			return err
		}
		return torchx.Backward(loss)
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return value
}

// step compares loss, gradients and running statistics of one training step,
// in the layout Python has: in the other, sums come in another order, and what
// is exactly zero (the gradient of a bias before a batch normalisation) or
// close to a kink of ReLU has no digits to compare. Dropout and stochastic
// depth are at their own rates: both sides draw the same numbers from the same
// seed.
func (c *comparison) step() {
	if err := torchx.Seed(9); err != nil {
		c.t.Fatal(err)
	}
	loss := c.loss()
	if !(math.Abs(loss-c.want.Loss) <= 1e-4) {
		c.t.Errorf("loss %g, torchvision's %g", loss, c.want.Loss)
	}
	want := map[string]checkpoint.Tensor{}
	for _, g := range tensors(c.t, filepath.Join(c.dir, "step.pth")) {
		want[g.Name] = g
	}
	worst := 0.0
	for _, e := range c.m.State() {
		if e.Kind == nn.Counter {
			continue
		}
		got := c.moved(e)
		w := want[e.Name]
		ref, err := w.Float32s()
		if err != nil {
			c.t.Fatalf("%s: %v", e.Name, err)
		}
		every := 1
		if len(got) > 1<<20 {
			every = 16
		}
		if len(ref) != (len(got)+every-1)/every {
			c.t.Fatalf("%s: %d values, want %d", e.Name, len(got), len(ref))
		}
		var diff, norm float64
		for i := range ref {
			d, r := float64(got[i*every]-ref[i]), float64(ref[i])
			diff, norm = diff+d*d, norm+r*r
		}
		r := 0.0
		if diff != 0 {
			r = math.Sqrt(diff / norm)
		}
		worst = max(worst, r)
		if !(r <= 1e-3) {
			c.t.Errorf("%s: differs by %.2g of its norm %.2g", e.Name, r, math.Sqrt(norm))
		}
	}
	if err := torchx.DropGrads(c.m.Weights()); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("loss %.4f differs by %.2g, %d gradients and statistics by at most %.2g of their norm", loss, math.Abs(loss-c.want.Loss), len(want), worst)
}

// moved is what a step made of an entry: a weight's gradient, a statistic
// itself.
func (c *comparison) moved(e nn.Entry) []float32 {
	c.t.Helper()
	t := e.Tensor
	if e.Kind == nn.Weight {
		g, ok, err := torchx.Grad(e.Tensor)
		if err != nil || !ok {
			c.t.Fatalf("%s has no gradient: %v", e.Name, err)
		}
		defer torchx.Free(g)
		t = g
	}
	v, err := torchx.Floats(t)
	if err != nil {
		c.t.Fatalf("%s: %v", e.Name, err)
	}
	return v
}

// train follows the loss of 20 steps.
func (c *comparison) train(config optim.Config, lr float64) {
	c.load()
	if err := torchx.Seed(9); err != nil {
		c.t.Fatal(err)
	}
	opt, err := optim.New(config, c.m.Weights())
	if err != nil {
		c.t.Fatal(err)
	}
	defer opt.Free()
	want := c.want.Losses[config.Name]
	worst := 0.0
	for i := range 20 {
		worst = max(worst, math.Abs(c.loss()-want[i]))
		if err := opt.Step(lr); err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Logf("%s: losses from %.4f to %.4f differ by at most %.2g", config.Name, want[0], want[19], worst)
	if !(worst <= 1e-3) || len(want) != 20 {
		c.t.Errorf("%s: losses differ by up to %g", config.Name, worst)
	}
}

// The command for comparisons from outside answers as the model here does.
func TestLogitsCommandParity(t *testing.T) {
	dir := t.TempDir()
	python := newPeer(t)
	python.ask(map[string]any{"do": "make", "arch": "resnet18", "dir": dir, "classes": 7, "images": 2, "optimisers": nil})
	var want reference
	python.answer(&want)
	out, err := exec.Command(trainer, "logits", "--model", "resnet18", "--classes", "7", "--weights", filepath.Join(dir, "weights.pth"),
		"--shape", "2,3,64,64", "--input", filepath.Join(dir, "input.f32")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Logits [][]float32 }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Logits) != 2 {
		t.Fatalf("logits of %d images, want 2", len(got.Logits))
	}
	for i, v := range floats(t, filepath.Join(dir, "logits.f32")) {
		if d := math.Abs(float64(v - got.Logits[i/7][i%7])); !(d <= 1e-4) {
			t.Errorf("logit %d of image %d differs by %g", i%7, i/7, d)
		}
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
	python := newPeer(t)
	python.ask(map[string]any{"do": "resume", "arch": "resnet18", "file": kept[0].Path, "classes": 3})
	python.answer(&got)
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
