//go:build libtorch

package model_test

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

func TestParameterCounts(t *testing.T) {
	for arch, want := range map[string]int64{"resnet18": 11_689_512, "vanilla": 645_896} {
		m, err := model.New(arch, model.Options{Classes: 1000, Dropout: -1})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := m.Parameters(); err != nil || n != want {
			t.Errorf("%s has %d parameters, want %d (%v)", arch, n, want, err)
		}
		m.Free()
	}
	if _, err := model.New("resnet81", model.Options{Classes: 2}); err == nil || !strings.Contains(err.Error(), "resnet18, vanilla") {
		t.Errorf("unknown name: %v", err)
	}
}

// Behind global average pooling and one linear layer, the gradient of a logit
// at the last activations sums to W[c,k] over each map: known without any
// other program.
func TestWatchedLayerHasTheExactGradient(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, arch := range model.Names() {
		if err := torchx.Seed(1); err != nil {
			t.Fatal(err)
		}
		m, err := model.New(arch, model.Options{Classes: 3, Dropout: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Free()
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
	m, err := model.New("vanilla", model.Options{Classes: 3, Dropout: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
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
	export := func() (all []string) {
		s, err := m.Export(&model.Stage{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range s {
			all = append(all, e.Name+string(e.Data))
		}
		return all
	}
	before := export()
	run(false)
	if !slices.Equal(before, export()) {
		t.Error("evaluation changed the state")
	}
	run(true)
	if slices.Equal(before, export()) {
		t.Error("training did not move the running statistics: the test shows nothing")
	}
}
