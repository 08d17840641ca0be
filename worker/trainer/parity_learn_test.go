//go:build libtorch

package main_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/torchx"
)

// The steps: batches of learnBatch images of learnSide pixels, in turn.
const (
	learnSteps   = 20
	learnBatches = 4
	learnBatch   = 8
	learnSide    = 32
)

// followed are the rates at which PyTorch stays close to itself for 20 steps when its weights
// are moved by a last bit (ATELIER_PARITY_SPREAD=1 shows it), and learns.
type followed struct{ SGD, AdamW float64 }

func ratesOf(arch string) followed {
	switch {
	case strings.HasPrefix(arch, "mobilenet_v3"):
		return followed{3e-3, 5e-5}
	case arch == "mobilenet_v2":
		return followed{1e-3, 5e-5}
	case strings.HasPrefix(arch, "efficientnet"):
		return followed{1e-5, 2e-5}
	case strings.HasPrefix(arch, "vgg"):
		if arch == "vgg11" {
			return followed{1e-3, 3e-5}
		}
		return followed{3e-4, 3e-6} // deeper, and without normalisations
	case arch == "resnet18", arch == "resnet34":
		return followed{1e-4, 5e-5}
	}
	return followed{1e-5, 3e-5} // the bottlenecks: their gradients are large
}

// resting names the weights that stay as they are for the 20 steps, to save time: nine tenths of
// all weights of the larger VGGs lie in two matrices. vgg11 trains all of its.
func resting(arch string) []string {
	if slices.Contains([]string{"vgg13", "vgg16", "vgg19"}, arch) {
		return []string{"classifier.0.weight", "classifier.3.weight"}
	}
	return []string{}
}

// moving gives the weights that are trained in the 20 steps; after restore all are again.
func (c *comparison) moving() (weights []torchx.Tensor, restore func()) {
	c.t.Helper()
	var rest []torchx.Tensor
	for _, e := range c.m.State() {
		switch {
		case e.Kind != nn.Weight:
		case slices.Contains(resting(c.row.arch), e.Name):
			rest = append(rest, e.Tensor)
		default:
			weights = append(weights, e.Tensor)
		}
	}
	grad := func(on bool) {
		for _, t := range rest {
			if err := torchx.RequireGrad(t, on); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	grad(false)
	return weights, func() { grad(true) }
}

// learning is what our side came to.
type learning struct {
	steps  map[way]map[string][]float32 // gradients and statistics of one step
	loss   map[way]float64
	losses map[twenty][]float64
}

// twenty is 20 steps of an optimiser.
type twenty struct{ optimiser, kernels string }

func (c *comparison) askLearning() {
	c.t.Helper()
	rates := map[string]float64{"sgd": c.row.rates.SGD, "adamw": c.row.rates.AdamW}
	c.python.ask(map[string]any{"do": "learn", "dir": c.dir, "spread": os.Getenv("ATELIER_PARITY_SPREAD") != "",
		"rates": rates, "rest": resting(c.row.arch)})
}

// learn takes the steps Python takes: one in each way, then 20 with each
// optimiser in the layout that runs have by default, and with sgd 20 without any
// kernel, or 4 of the VGGs: the one kernel that their steps have is the optimiser's.
func (c *comparison) learn() {
	c.t.Helper()
	start := tensors(c.t, filepath.Join(c.dir, "start.pth"))
	pixels := floats(c.t, filepath.Join(c.dir, "batches.f32"))
	c.ours = learning{map[way]map[string][]float32{}, map[way]float64{}, map[twenty][]float64{}}
	for _, w := range ways {
		c.load(start)
		c.take(w)
		c.seed()
		c.ours.loss[w] = c.loss(pixels, 0)
		step := map[string][]float32{}
		for _, e := range c.m.State() {
			if e.Kind != nn.Counter {
				step[e.Name] = c.moved(e)
			}
		}
		c.ours.steps[w] = step
		if err := torchx.DropGrads(c.m.Weights()); err != nil {
			c.t.Fatal(err)
		}
	}
	// Networks without norms amplify the last bit in which layouts differ: they follow in PyTorch's.
	channelsLast := !strings.HasPrefix(c.row.arch, "vgg")
	weights, restore := c.moving()
	defer restore()
	for _, o := range []struct {
		optim.Config
		lr      float64
		kernels string
	}{
		{optim.Config{Name: "sgd", Momentum: 0.9, WeightDecay: 1e-4}, c.row.rates.SGD, "all"},
		{optim.Config{Name: "adamw", WeightDecay: 1e-2}, c.row.rates.AdamW, "all"},
		{optim.Config{Name: "sgd", Momentum: 0.9, WeightDecay: 1e-4}, c.row.rates.SGD, "none"},
	} {
		c.load(start)
		c.take(way{channelsLast, o.kernels})
		ours := twenty{o.Name, o.kernels}
		c.seed()
		opt, err := optim.New(o.Config, weights)
		if err != nil {
			c.t.Fatal(err)
		}
		steps := learnSteps
		if o.kernels == "none" && !channelsLast {
			steps = learnBatches
		}
		for i := range steps {
			c.ours.losses[ours] = append(c.ours.losses[ours], c.loss(pixels, i%learnBatches))
			if err := opt.Step(o.lr); err != nil {
				c.t.Fatal(err)
			}
		}
		opt.Free()
	}
}

func (c *comparison) seed() {
	c.t.Helper()
	if err := torchx.Seed(9); err != nil {
		c.t.Fatal(err)
	}
}

// loss of a batch in training, and its gradients.
func (c *comparison) loss(pixels []float32, batch int) (value float64) {
	c.t.Helper()
	labels := make([]int64, learnBatch)
	for i := range labels {
		labels[i] = int64(i % parityClasses)
	}
	n := learnBatch * 3 * learnSide * learnSide
	err := torchx.Catch(func() error {
		p := &nn.Pass{Training: true}
		defer p.Close()
		x := p.KeepOr(torchx.FromFloats(pixels[batch*n:(batch+1)*n], learnBatch, 3, learnSide, learnSide))
		torchx.Must(torchx.Move(x, torchx.CPU, c.m.ChannelsLast()))
		y := p.KeepOr(torchx.Labels(labels, torchx.CPU))
		loss := p.KeepOr(torchx.CrossEntropy(c.m.Forward(p, x), y, torchx.Tensor{}, 0))
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

// moved is what a step made of an entry, of large ones every 16th value: a
// weight's gradient, a statistic itself.
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
	if len(v) <= 1<<20 {
		return v
	}
	some := make([]float32, 0, len(v)/16+1)
	for i := 0; i < len(v); i += 16 {
		some = append(some, v[i])
	}
	return some
}

// compareLearning holds our steps against Python's. An entry may differ by a
// thousandth of its norm; one whose norm is below a thousandth of the whole
// gradient's, by a thousandth of that: what is zero but for rounding (the
// gradient of a bias that the next batch normalisation takes away) has no
// digits to compare.
func (c *comparison) compareLearning() {
	c.t.Helper()
	var theirs struct {
		Loss, Norm float64
		Losses     map[string][]float64
		Spread     map[string]float64
	}
	c.python.answer(&theirs)
	c.row.spread = theirs.Spread
	for k, w := range ways {
		got := c.ours.steps[w]
		want := tensors(c.t, filepath.Join(c.dir, map[bool]string{false: "step-default.pth", true: "step-channels_last.pth"}[w.channelsLast]))
		if d := math.Abs(c.ours.loss[w] - theirs.Loss); !(d <= 1e-4) {
			c.t.Errorf("%+v: loss %g, PyTorch's %g", w, c.ours.loss[w], theirs.Loss)
		}
		if len(got) != len(want) {
			c.t.Errorf("%d gradients and statistics, PyTorch has %d", len(got), len(want))
		}
		for i := range want {
			entry := &want[i]
			ref, err := entry.Float32s()
			if err != nil || len(ref) != len(got[entry.Name]) {
				c.t.Fatalf("%s: %d values, PyTorch has %d (%v)", entry.Name, len(got[entry.Name]), len(ref), err)
			}
			d, norm := distance(got[entry.Name], ref)
			if !strings.Contains(entry.Name, "running_") {
				norm = max(norm, 1e-3*theirs.Norm)
			}
			if d > 0 {
				d /= norm
			}
			c.row.gradients[k] = max(c.row.gradients[k], d)
			if !(d <= 1e-3) {
				c.t.Errorf("%+v: %s differs by %.2g of %.2g", w, entry.Name, d, norm)
			}
		}
	}
	for ours, got := range c.ours.losses {
		name := ours.optimiser
		ref := theirs.Losses[name]
		if len(ref) != learnSteps {
			c.t.Fatalf("PyTorch took %d steps of %s", len(ref), name)
		}
		worst := 0.0
		for i := range got {
			worst = max(worst, math.Abs(got[i]-ref[i]))
		}
		if !(worst <= 1e-3) {
			c.t.Errorf("%+v: losses differ by up to %.2g", ours, worst)
		}
		// Following somebody who stands still shows nothing: the first batch is seen again in step 17.
		// The figure shown is how far the first batch's loss fell; that weights moved at all
		// shows in the batch whose loss changed most, either way.
		fell, moved := ref[0]-ref[learnSteps-learnBatches], 0.0
		for i := learnBatches; i < learnSteps; i++ {
			moved = max(moved, math.Abs(ref[i]-ref[i%learnBatches]))
		}
		if !(moved > 0.02) {
			c.t.Errorf("%s at %g: PyTorch's losses moved by %.2g only", name, map[string]float64{"sgd": c.row.rates.SGD, "adamw": c.row.rates.AdamW}[name], moved)
		}
		switch ours {
		case twenty{"sgd", "none"}:
			c.row.sgdWithout = worst
		case twenty{"sgd", "all"}:
			c.row.sgd, c.row.sgdFell = worst, fell
		default:
			c.row.adamw, c.row.adamwFell = worst, fell
		}
	}
}

// distance between two vectors, and the norm of the second.
func distance(a, b []float32) (d, norm float64) {
	for i := range b {
		x, y := float64(a[i]-b[i]), float64(b[i])
		d, norm = d+x*x, norm+y*y
	}
	return math.Sqrt(d), math.Sqrt(norm)
}

// finding is a row of the table.
type finding struct {
	arch               string
	rates              followed
	logits             float64    // absolute, any way
	gradients          [3]float64 // relative, by way
	sgdWithout         float64    // as sgd, without kernels
	sgd, adamw         float64    // greatest difference of 20 losses
	sgdFell, adamwFell float64    // PyTorch's loss of the first batch, from step 1 to 17
	spread             map[string]float64
}

type findings []finding

func (f findings) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "architecture\tlogits\tgradients, default\tgradients, channels_last\tno kernels\tsgd, 20 losses\t(lr, fell by)\tno kernels\tadamw, 20 losses\t(lr, fell by)\t")
	if len(f) > 0 && f[0].spread != nil {
		fmt.Fprint(w, "PyTorch and itself, a last bit off: gradient\tsgd\tadamw\t")
	}
	fmt.Fprintln(w)
	for _, r := range f {
		fmt.Fprintf(w, "%s\t%.1e\t%.1e\t%.1e\t%.1e\t", r.arch, r.logits, r.gradients[0], r.gradients[1], r.gradients[2])
		fmt.Fprintf(w, "%.1e\t(%.0e, %.2f)\t%.1e\t%.1e\t(%.0e, %.2f)\t", r.sgd, r.rates.SGD, r.sgdFell, r.sgdWithout, r.adamw, r.rates.AdamW, r.adamwFell)
		if r.spread != nil {
			fmt.Fprintf(w, "%.1e\t%.1e\t%.1e\t", r.spread["gradient"], r.spread["sgd"], r.spread["adamw"])
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return b.String()
}
