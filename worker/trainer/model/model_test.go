//go:build libtorch

package model_test

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/common/settings"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

func TestParameterCounts(t *testing.T) {
	for arch, want := range map[string]int64{"resnet18": 11_689_512, "mobilenet_v2": 3_504_872, "efficientnet_b0": 5_288_548, "vanilla": 645_896} {
		m := newModel(t, arch, model.Options{Classes: 1000, Dropout: -1})
		if n, err := m.Parameters(); err != nil || n != want {
			t.Errorf("%s has %d parameters, want %d (%v)", arch, n, want, err)
		}
	}
	if _, err := model.New("resnet81", model.Options{Classes: 2}); err == nil || !strings.Contains(err.Error(), "resnet18, resnet34") {
		t.Errorf("unknown name: %v", err)
	}
}

// The settings know every architecture, and only those.
func TestNamesAreTheSettings(t *testing.T) {
	known, built := settings.Models(), model.Names()
	slices.Sort(known)
	slices.Sort(built)
	if !slices.Equal(known, built) {
		t.Errorf("settings know %v, built are %v", known, built)
	}
}

func newModel(t *testing.T, arch string, o model.Options) *model.Model {
	t.Helper()
	m, err := model.New(arch, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	return m
}

// dump is a model's whole state, an entry a string.
func dump(t *testing.T, m *model.Model) (all []string) {
	t.Helper()
	s, err := m.Export(&model.Stage{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s {
		all = append(all, e.Name+" "+string(e.Data))
	}
	return all
}

// Behind global average pooling and one linear layer, the gradient of a logit
// at the last activations sums to W[c,k] over each map: known without any
// other program.
func TestWatchedLayerHasTheExactGradient(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// One a family; VGG and MobileNetV3 have more behind the pooling.
	for _, arch := range []string{"vanilla", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0"} {
		if err := torchx.Seed(1); err != nil {
			t.Fatal(err)
		}
		m := newModel(t, arch, model.Options{Classes: 3, Dropout: -1})
		target, err := nn.Find(m.Root, m.CAM)
		if err != nil {
			t.Fatal(err)
		}
		head, err := nn.Find(m.Root, m.Head)
		if err != nil {
			t.Fatal(err)
		}
		weight, err := torchx.Floats(head.(*nn.Linear).Weight)
		if err != nil {
			t.Fatal(err)
		}
		p := &nn.Pass{}
		p.Watch(target)
		err = torchx.Catch(func() error {
			x := p.Keep(torch.RandN([]int64{1, 3, 64, 64}, false))
			logits := m.Forward(p, x)
			score := p.Keep(logits.Index(0, 1))
			maps, ok := p.Watched(target)
			if !ok {
				t.Fatalf("%s: %s did not run", arch, m.CAM)
			}
			g := p.KeepOr(torchx.GradOf(score, maps))
			i, err := torchx.Describe(g)
			if err != nil {
				return err
			}
			got, err := torchx.Floats(g)
			if err != nil {
				return err
			}
			k, area := i.Shape[1], i.Shape[2]*i.Shape[3]
			// Vanilla pools once more in between: single places differ, each map's sum does not.
			for c := range k {
				sum := 0.0
				for _, v := range got[c*area : (c+1)*area] {
					sum += float64(v)
				}
				if want := float64(weight[k+c]); math.Abs(sum-want) > 1e-5 {
					t.Fatalf("%s: gradient of map %d sums to %g, want %g", arch, c, sum, want)
				}
			}
			return nil
		})
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Evaluation neither draws, nor counts batches, nor moves statistics.
func TestEvaluationChangesNothing(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := newModel(t, "vanilla", model.Options{Classes: 3, Dropout: -1})
	run := func(training bool) {
		p := &nn.Pass{Training: training}
		defer p.Close()
		if err := torchx.Catch(func() error {
			m.Forward(p, p.Keep(torch.RandN([]int64{4, 3, 32, 32}, false)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	before := dump(t, m)
	run(false)
	if !slices.Equal(before, dump(t, m)) {
		t.Error("evaluation changed the state")
	}
	run(true)
	if slices.Equal(before, dump(t, m)) {
		t.Error("training did not move the running statistics: the test shows nothing")
	}
}

// Every architecture's paths lead to a layer, its head to one of the class
// count asked for. (Building all costs seconds: VGG has 130 million weights.)
func TestPaths(t *testing.T) {
	for _, arch := range []string{"resnet34", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b1", "vgg11"} {
		m := newModel(t, arch, model.Options{Classes: 4, Dropout: -1})
		if _, err := nn.Find(m.Root, m.CAM); err != nil {
			t.Errorf("%s: %v", arch, err)
		}
		head, err := nn.Find(m.Root, m.Head)
		if l, ok := head.(*nn.Linear); err != nil || !ok || l.Out != 4 {
			t.Errorf("%s: head %s is %v (%v)", arch, m.Head, head, err)
		}
	}
}

// A frozen model trains its head only; the rest answers in training as in
// evaluation and stays as it is.
func TestFrozenFeatures(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, arch := range []string{"resnet18", "efficientnet_b0", "mobilenet_v3_small"} {
		m := newModel(t, arch, model.Options{Classes: 3, Dropout: 0, Freeze: true})
		if n := len(m.Weights()); n != 2 {
			t.Errorf("%s trains %d tensors, want weight and bias of the head", arch, n)
		}
		before := dump(t, m)
		var logits [2][]float32
		for i, training := range []bool{false, true} {
			if err := torchx.Seed(3); err != nil {
				t.Fatal(err)
			}
			p := &nn.Pass{Training: training}
			err := torchx.Catch(func() error {
				out := m.Forward(p, p.Keep(torch.RandN([]int64{4, 3, 64, 64}, false)))
				var err error
				if logits[i], err = torchx.Floats(out); err != nil {
					return err
				}
				y := p.KeepOr(torchx.Labels([]int64{0, 1, 2, 0}, torchx.CPU))
				return torchx.Backward(p.KeepOr(torchx.CrossEntropy(out, y, torchx.Tensor{}, 0)))
			})
			p.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(logits[0], logits[1]) {
			t.Errorf("%s: frozen features answer differently in training", arch)
		}
		if !slices.Equal(before, dump(t, m)) {
			t.Errorf("%s: a training step changed frozen state", arch)
		}
		for _, e := range m.State() {
			if e.Kind != nn.Weight {
				continue
			}
			g, ok, err := torchx.Grad(e.Tensor)
			torchx.Free(g)
			if want := strings.HasPrefix(e.Name, m.Head); err != nil || ok != want {
				t.Errorf("%s: %s has a gradient: %v, want %v (%v)", arch, e.Name, ok, want, err)
			}
		}
	}
}
