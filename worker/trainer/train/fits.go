//go:build libtorch

package train

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/headroom"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/torchx"
)

// No architecture takes more for a step than this many times its input and its
// weights (TestNoStepTakesMore): where that much is free, nothing is measured.
const (
	stepOverInput   = 600
	stepOverWeights = 8
)

// fits refuses a batch that memory cannot hold, before the first epoch: two
// small steps of a model like the run's tell what an image takes. On a GPU the
// first step tells as clearly.
func (r *run) fits() error {
	if r.device.CUDA() {
		return nil
	}
	s := r.settings
	batch := min(s.BatchSize/s.Shards, r.data.train.Len())
	if s.Shards == 1 && len(cut(r.data.train.Len(), batch)) == 1 {
		batch = r.data.train.Len() // a last image by itself joins the batch before
	}
	count, err := r.model.Parameters()
	if err != nil {
		return err
	}
	weights, input := 4*float64(count), float64(4*3*s.ImageSize*s.ImageSize)
	beside := weights * float64(copies(s, r.shared()))
	sharers := r.sharers()
	room := headroom.Now(sharers)
	if stepOverInput*input*float64(batch)+stepOverWeights*weights+beside < float64(room.Bytes) {
		return nil
	}
	one, err := r.measureStep()
	if err != nil {
		return err
	}
	one.fixed += beside
	need, free := one.fixed+one.image*float64(batch), float64(room.Bytes)
	r.log.Info("memory of a step", "batch_size", batch, "needs_mib", math.Round(need/(1<<20)), "free_mib", room.Bytes>>20, "of", room.Of)
	if need <= free {
		return nil
	}
	// Advice leaves a tenth free: for scratch memory and what others take meanwhile.
	left := fmt.Sprintf("the %s has %s left", room.Of, gib(free))
	if sharers > 1 {
		left += fmt.Sprintf(" for each of its %d members", sharers)
	}
	advice := "not even two images fit, reduce image_size or take a smaller model"
	what := "batches"
	if s.Shards > 1 {
		what = "shards"
	}
	if most := int((0.9*free - one.fixed) / one.image); most >= 8 {
		advice = fmt.Sprintf("reduce batch_size to %d or less", most/4*4*s.Shards)
	} else if most >= 2 {
		advice = fmt.Sprintf("reduce batch_size to %d or less", most*s.Shards)
	}
	return &Failure{trainerproto.FailedOutOfMemory, fmt.Errorf("out of memory before the first step: %s in %s of %d at %d px takes about %s, %s: %s",
		s.Model, what, batch, s.ImageSize, gib(need), left, advice)}
}

// sharers are the members that begin on this machine together: none of them has
// taken its memory yet. A newcomer finds what the others have taken.
func (r *run) sharers() (n int) {
	g := r.job.Group
	if g == nil || g.Join {
		return 1
	}
	machine := func(member int) string {
		at := slices.IndexFunc(g.Members, func(f trainerproto.Fellow) bool { return f.Member == member })
		if at < 0 {
			return ""
		}
		worker, _, named := strings.Cut(g.Members[at].Name, "/")
		if !named {
			return "" // without workers all are here
		}
		return worker
	}
	for _, f := range g.Members {
		if machine(f.Member) == machine(g.Member) {
			n++
		}
	}
	return max(n, 1)
}

// copies is how many times all parameters a step needs memory for, beside what
// measureStep sees: averages, gradients of the batches before, the sums of shards
// that wait for a neighbour (torchx.Buckets), and, of several members, the whole
// sum and this one's piece of the result where the others read it.
func copies(s settings.Settings, shared bool) (n int) {
	if s.EMADecay > 0 {
		n++
	}
	if s.Accumulate > 1 {
		n++
	}
	if s.Shards > 1 {
		n += bits.Len(uint(s.Shards-1)) + 1
	}
	if shared {
		n += 2
	}
	return n
}

// stepMemory is what a step takes beside the model, in bytes.
type stepMemory struct{ fixed, image float64 }

// measureStep takes two steps on a model of its own, the second with twice the
// images. Generators are left as they were.
func (r *run) measureStep() (m stepMemory, err error) {
	err = r.drawingNothing(func() error {
		m, err = r.measure()
		return err
	})
	return m, err
}

// measure takes two steps of a copy of the model and tells from their peaks what an image takes and
// what does not depend on the batch. A straight line holds: activations grow with the images,
// weights and state do not.
func (r *run) measure() (m stepMemory, err error) {
	like, err := r.alike()
	if err != nil {
		return m, err
	}
	defer like.Free()
	before := torchx.MemoryNow().Live
	opt, err := r.optimizer(like)
	if err != nil {
		return m, err
	}
	defer opt.Free()
	const few = 2 // the fewest that batch normalisation takes
	var peaks [2]float64
	for i := range peaks {
		torchx.MemoryFromHere()
		if err := r.tryStep(like, opt, few*(i+1)); err != nil {
			return m, err
		}
		peaks[i] = float64(torchx.MemoryNow().Peak - before)
	}
	m.image = max(peaks[1]-peaks[0], 1) / few
	m.fixed = max(2*peaks[0]-peaks[1], 0)
	return m, nil
}

// alike is a model like the run's, where that is.
func (r *run) alike() (*model.Model, error) {
	m, err := model.New(r.settings.Model, model.Options{Classes: len(r.data.classes), Dropout: r.settings.DropoutRate, Freeze: r.settings.FreezeFeatures})
	if err != nil {
		return nil, err
	}
	if err := m.Move(r.device, r.data.channelsLast); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// optimizer is one for a model, as the settings have it.
func (r *run) optimizer(m *model.Model) (*optim.Optimizer, error) {
	s := r.settings
	return optim.New(optim.Config{Name: s.Optimizer, Momentum: s.Momentum, Nesterov: s.Nesterov, WeightDecay: s.WeightDecay}, m.Weights())
}

// tryStep is a whole step on grey images.
func (r *run) tryStep(m *model.Model, opt *optim.Optimizer, images int) error {
	size := r.settings.ImageSize
	one := []float32{1, 1, 1}
	x, err := torchx.Images(make([]byte, images*size*size*3), images, size, size, one, one, r.device, r.data.channelsLast)
	if err != nil {
		return err
	}
	defer torchx.Free(x)
	y, err := torchx.Labels(make([]int64, images), r.device)
	if err != nil {
		return err
	}
	defer torchx.Free(y)
	p := &nn.Pass{Training: true}
	defer p.Close()
	var loss torchx.Tensor
	if err := torchx.Autocast(r.device, r.precision, func() error {
		loss = p.KeepOr(torchx.CrossEntropy(m.Forward(p, x), y, torchx.Tensor{}, 0))
		return nil
	}); err != nil {
		return err
	}
	if err := torchx.Backward(loss); err != nil {
		return err
	}
	return opt.Step(0)
}

// gib is a size for people.
func gib(n float64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.0f MiB", n/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", n/(1<<30))
}
