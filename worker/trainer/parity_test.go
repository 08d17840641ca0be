//go:build libtorch

package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/kernels"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
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

// big ones do not travel back through a file: half a gigabyte each, and their
// smaller sisters do.
var big = []string{"resnet152", "vgg13", "vgg16", "vgg19"}

const (
	parityClasses = 7
	parityImages  = 4 // of the logits
	paritySide    = 64
)

// TestParityWithTorchvision holds each architecture against torchvision's: what
// is drawn, files there and back, logits, a step's gradients, 20 steps of
// learning. Python's steps and ours are taken at the same time, and Python makes
// the next architecture while we are still at this one.
func TestParityWithTorchvision(t *testing.T) {
	python := askPython(t)
	var found findings
	names, root := slices.Sorted(maps.Keys(architectures)), t.TempDir()
	var ahead *making
	for i, arch := range names {
		t.Run(arch, func(t *testing.T) {
			runtime.LockOSThread() // a subtest is a goroutine of its own; grad mode and threads belong to the thread
			defer runtime.UnlockOSThread()
			if err := torchx.SetThreads(1); err != nil {
				t.Fatal(err)
			}
			if ahead == nil || ahead.arch != arch || python.open != 1 { // else the one answer open is ours
				python.serve(t)
				ahead = python.make(t, root, arch)
			}
			python.t = t
			c := &comparison{t: t, python: python, dir: ahead.dir, row: finding{arch: arch, rates: ratesOf(arch)}}
			t.Cleanup(func() { os.RemoveAll(c.dir) }) // gigabytes
			ahead = nil
			c.whole(arch, func() {
				if i+1 < len(names) {
					ahead = python.make(t, root, names[i+1])
				}
			})
			found = append(found, c.row)
		})
	}
	python.t = t
	if len(found) > 0 {
		t.Logf("greatest differences from PyTorch %s\n%s", torchx.Version(), found)
	}
}

// making is an architecture that Python has been asked to make.
type making struct{ arch, dir string }

func (p *peer) make(t *testing.T, root, arch string) *making {
	t.Helper()
	m := &making{arch, filepath.Join(root, arch)}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.ask(map[string]any{"do": "make", "arch": arch, "dir": m.dir, "classes": parityClasses})
	return m
}

// whole goes through one architecture that was asked for, cheap things first;
// Python learns while we do. next is called once Python has all its work of this one.
func (c *comparison) whole(arch string, next func()) {
	c.t.Helper()
	var drawn struct{ Initial [][4]any } // name, type, shape, SHA-256
	c.python.answer(&drawn)
	if err := torchx.Seed(5); err != nil {
		c.t.Fatal(err)
	}
	var err error
	if c.m, err = model.New(arch, model.Options{Classes: parityClasses, Dropout: -1}); err != nil {
		c.t.Fatal(err)
	}
	defer c.m.Free()
	defer torchx.UseKernels(kernels.Every)
	c.initial(drawn.Initial)
	c.count(architectures[arch])

	weights := tensors(c.t, filepath.Join(c.dir, "weights.pth"))
	c.load(weights)
	back := !slices.Contains(big, arch)
	if back {
		c.back()
	}
	c.askLearning()
	next()
	for _, w := range ways {
		c.load(weights)
		c.take(w)
		c.logits()
	}
	c.learn()
	if back {
		var answer struct{ Same bool }
		if c.python.answer(&answer); !answer.Same {
			c.t.Error("weights differ after a round trip")
		}
	}
	c.compareLearning()
}

// comparison is one architecture, theirs and ours.
type comparison struct {
	t      *testing.T
	python *peer
	dir    string
	m      *model.Model
	row    finding
	ours   learning
	way    way // in which the model runs
}

// way is how a model runs: its layout, and which kernels of ours are on. Without
// kernels every operation is libtorch's, through gotorch where gotorch has it. In
// the default layout none but the optimiser's takes float32.
type way struct {
	channelsLast bool
	kernels      string
}

var ways = []way{{false, "all"}, {true, "all"}, {true, "none"}}

// take puts the model into a layout and turns kernels on or off.
func (c *comparison) take(w way) {
	c.t.Helper()
	on, err := kernels.Parse(w.kernels)
	if err != nil {
		c.t.Fatal(err)
	}
	torchx.UseKernels(on)
	c.layout(w.channelsLast)
	c.way = w
}

func (c *comparison) load(weights []checkpoint.Tensor) {
	c.t.Helper()
	if err := c.m.Load(weights); err != nil {
		c.t.Fatal(err)
	}
}

func (c *comparison) layout(channelsLast bool) {
	c.t.Helper()
	if err := c.m.Move(torchx.CPU, channelsLast); err != nil {
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
func (c *comparison) initial(want [][4]any) {
	got := c.export()
	if len(got) != len(want) {
		c.t.Fatalf("%d entries, torchvision has %d", len(got), len(want))
	}
	types := map[checkpoint.DType]string{checkpoint.F32: "torch.float32", checkpoint.I64: "torch.int64"}
	for i, w := range want {
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

// back: Python loads our file strictly and shall find what it gave us.
func (c *comparison) back() {
	c.t.Helper()
	path := filepath.Join(c.dir, "ours.pth")
	if _, err := checkpoint.Save(path, checkpoint.FromStateDict(c.export())); err != nil {
		c.t.Fatal(err)
	}
	c.python.ask(map[string]any{"do": "strict", "file": path, "dir": c.dir})
}

// logits of evaluation mode.
func (c *comparison) logits() {
	want := floats(c.t, filepath.Join(c.dir, "logits.f32"))
	var got []float32
	err := torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{}
			defer p.Close()
			x := p.KeepOr(torchx.FromFloats(floats(c.t, filepath.Join(c.dir, "input.f32")), parityImages, 3, paritySide, paritySide))
			torchx.Must(torchx.Move(x, torchx.CPU, c.m.ChannelsLast()))
			var err error
			got, err = torchx.Floats(c.m.Forward(p, x))
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
	c.row.logits = max(c.row.logits, worst)
	// Of small logits the first three digits have to agree as well.
	if !(worst <= min(1e-4, 1e-3*size)) || len(got) != parityImages*parityClasses || len(want) != len(got) {
		c.t.Errorf("%+v: %d logits of up to %g differ by up to %g", c.way, len(got), size, worst)
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
