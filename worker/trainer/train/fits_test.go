//go:build libtorch

package train

import (
	"runtime"
	"testing"

	"atelier/common/settings"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/torchx"
)

// The bound below which nothing is measured holds for those architectures that
// keep most for an image, EfficientNet before all.
func TestNoStepTakesMore(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := torchx.Init(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		arch         string
		channelsLast bool
	}{{"resnet50", true}, {"efficientnet_b4", false}, {"mobilenet_v3_large", false}, {"vanilla", false}} {
		t.Run(c.arch, func(t *testing.T) {
			r := &run{settings: settings.Settings{Model: c.arch, ImageSize: 64, DropoutRate: -1, Optimizer: "adam"}, device: torchx.CPU,
				data: &data{classes: []string{"a", "b"}, channelsLast: c.channelsLast}}
			if err := torchx.Seed(3); err != nil {
				t.Fatal(err)
			}
			state, err := torchx.RandomState(torchx.CPU)
			if err != nil {
				t.Fatal(err)
			}
			before := torchx.MemoryNow().Live
			m, err := r.measureStep()
			if err != nil {
				t.Fatal(err)
			}
			if after, err := torchx.RandomState(torchx.CPU); err != nil || string(after) != string(state) {
				t.Errorf("the generator was moved (%v)", err)
			}
			if left := torchx.MemoryNow().Live; left > before+1<<20 {
				t.Errorf("%d bytes are left over", left-before)
			}
			like, err := model.New(c.arch, model.Options{Classes: 2, Dropout: -1})
			if err != nil {
				t.Fatal(err)
			}
			n, err := like.Parameters()
			like.Free()
			if err != nil {
				t.Fatal(err)
			}
			image, fixed := m.image/(4*3*64*64), m.fixed/(4*float64(n))
			t.Logf("an image takes %.0f times its input, the rest is %.1f times the weights", image, fixed)
			if image > stepOverInput || fixed > stepOverWeights || image < 20 {
				t.Errorf("an image takes %.0f times its input (bound %d), the rest is %.1f times the weights (bound %d)", image, stepOverInput, fixed, stepOverWeights)
			}
		})
	}
}
