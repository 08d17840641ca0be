//go:build libtorch

// Package explain predicts batches of images and shows where the model looked:
// Grad-CAM maps and the passes that quality metrics need. DESIGN.md says how a
// whole batch costs one forward pass. It refuses to train.
package explain

import (
	"fmt"
	"math"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/common/checkpoint"
	"atelier/common/metadata"
	"atelier/worker/trainer/explain/cam"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// Explainer asks one model. Threads may call it at the same time: a pass keeps
// what it makes to itself, and gradient mode and autocast belong to a thread.
type Explainer struct {
	model     *model.Model
	target    nn.Module
	precision torchx.Precision
}

// New readies a model: evaluation only, none of its weights asks for a
// gradient from here on.
func New(m *model.Model, precision torchx.Precision) (*Explainer, error) {
	target, err := nn.Find(m.Root, m.CAM)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", m.Arch, err)
	}
	for _, e := range m.State() {
		if e.Kind == nn.Weight {
			if err := torchx.RequireGrad(e.Tensor, false); err != nil {
				return nil, err
			}
		}
	}
	return &Explainer{model: m, target: target, precision: precision}, nil
}

// Predict returns the softmax of the logits, [n][classes], of a normalised
// batch [n, 3, h, w] in the model's layout.
func (e *Explainer) Predict(x torchx.Tensor) (probs [][]float64, err error) {
	err = torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{}
			defer p.Close()
			logits, err := e.forward(p, x)
			if err != nil {
				return err
			}
			probs, err = softmax(logits, e.model.Classes)
			return err
		})
	})
	return probs, err
}

func (e *Explainer) forward(p *nn.Pass, x torchx.Tensor) (logits torchx.Tensor, err error) {
	err = torchx.Autocast(e.model.Device(), e.precision, func() error {
		logits = e.model.Forward(p, x)
		return nil
	})
	return logits, err
}

// Look is what the model says of one image and where it looked.
type Look struct {
	Probs  []float64
	Logits []float32
	// Maps[i] is the class activation map of the i-th class asked for, of the
	// layer's size, not scaled.
	Maps []cam.Map
}

// Explain predicts a batch as Predict does and makes one map for each class
// that pick names for an image. Images may name different numbers of classes.
func (e *Explainer) Explain(x torchx.Tensor, pick func(image int, probs []float64) []int) ([]Look, error) {
	var looks []Look
	err := torchx.Catch(func() error {
		p := &nn.Pass{}
		defer p.Close()
		p.WatchGrad(e.target)
		logits, err := e.forward(p, x)
		if err != nil {
			return err
		}
		probs, err := softmax(logits, e.model.Classes)
		if err != nil {
			return err
		}
		raw, err := floats(logits)
		if err != nil {
			return err
		}
		at, info, err := e.watched(p)
		if err != nil {
			return err
		}
		activation, err := floats(at)
		if err != nil {
			return err
		}
		classes := e.model.Classes
		looks = make([]Look, len(probs))
		wanted, rounds := make([][]int, len(probs)), 0
		for i := range probs {
			looks[i] = Look{Probs: probs[i], Logits: raw[i*classes : (i+1)*classes]}
			wanted[i] = pick(i, probs[i])
			rounds = max(rounds, len(wanted[i]))
		}
		for round := range rounds {
			gradient, err := e.gradient(p, logits, at, wanted, round)
			if err != nil {
				return err
			}
			k, h, w := int(info.Shape[1]), int(info.Shape[2]), int(info.Shape[3])
			for i := range looks {
				if round < len(wanted[i]) {
					from, to := i*k*h*w, (i+1)*k*h*w
					looks[i].Maps = append(looks[i].Maps, cam.Weigh(activation[from:to], gradient[from:to], k, h, w))
				}
			}
		}
		return nil
	})
	return looks, err
}

// MapSize is the size of the maps that Explain makes of images like x.
func (e *Explainer) MapSize(x torchx.Tensor) (size metadata.MapSize, err error) {
	err = torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{}
			defer p.Close()
			p.Watch(e.target)
			if _, err := e.forward(p, x); err != nil {
				return err
			}
			_, info, err := e.watched(p)
			if err == nil {
				size = metadata.MapSize{Width: int(info.Shape[3]), Height: int(info.Shape[2])}
			}
			return err
		})
	})
	return size, err
}

// watched is the output of the layer that maps are made from, and its shape
// [images, channels, height, width].
func (e *Explainer) watched(p *nn.Pass) (at torchx.Tensor, info torchx.Info, err error) {
	at, ok := p.Watched(e.target)
	if !ok {
		return at, info, fmt.Errorf("explain %s: layer %s did not run", e.model.Arch, e.model.CAM)
	}
	if info, err = torchx.Describe(at); err != nil {
		return at, info, err
	}
	if len(info.Shape) != 4 {
		err = fmt.Errorf("explain %s: layer %s gives shape %v; Grad-CAM needs maps", e.model.Arch, e.model.CAM, info.Shape)
	}
	return at, info, err
}

// gradient is that of the sum of each image's round-th class score: images do
// not mix in evaluation, so it is each one's own.
func (e *Explainer) gradient(p *nn.Pass, logits, at torchx.Tensor, wanted [][]int, round int) ([]float32, error) {
	classes := e.model.Classes
	chosen := make([]float32, len(wanted)*classes)
	for i, w := range wanted {
		if round >= len(w) {
			continue
		}
		if w[round] < 0 || w[round] >= classes {
			return nil, fmt.Errorf("explain: class %d of %d", w[round], classes)
		}
		chosen[i*classes+w[round]] = 1
	}
	mask, err := torchx.FromFloats(chosen, int64(len(wanted)), int64(classes))
	if err != nil {
		return nil, err
	}
	p.Keep(mask)
	if err := torchx.Move(mask, e.model.Device(), false); err != nil {
		return nil, err
	}
	score := p.Keep(p.Keep(torch.Mul(logits, mask)).Sum())
	return floats(p.KeepOr(torchx.GradOf(score, at)))
}

// floats are a tensor's elements, widened where autocast made them narrower.
func floats(t torchx.Tensor) ([]float32, error) {
	info, err := torchx.Describe(t)
	if err != nil {
		return nil, err
	}
	narrow, ok := map[torchx.DType]checkpoint.DType{torchx.BF16Type: checkpoint.BF16, torchx.F16: checkpoint.F16}[info.DType]
	if !ok {
		return torchx.Floats(t)
	}
	raw, err := torchx.Bytes(t)
	if err != nil {
		return nil, err
	}
	return (&checkpoint.Tensor{DType: narrow, Shape: info.Shape, Data: raw}).Float32s()
}

// NotANumber says that a model's output has no meaning. Broken weights make it
// so, and float16 where the model needs more range.
type NotANumber struct{ Class int }

func (e *NotANumber) Error() string {
	return fmt.Sprintf("the model's output for class %d is not a number", e.Class)
}

// softmax of each row, in float64 so that confidences close to 1 keep apart.
// The error is a *NotANumber where a row has none.
func softmax(logits torchx.Tensor, classes int) ([][]float64, error) {
	values, err := floats(logits)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, len(values)/classes)
	for i := range out {
		row := values[i*classes : (i+1)*classes]
		top := float32(math.Inf(-1))
		for k, v := range row {
			if v != v || math.IsInf(float64(v), 1) {
				return nil, &NotANumber{k}
			}
			top = max(top, v)
		}
		out[i] = make([]float64, classes)
		sum := 0.0
		for k, v := range row {
			out[i][k] = math.Exp(float64(v) - float64(top))
			sum += out[i][k]
		}
		for k := range row {
			if out[i][k] /= sum; math.IsNaN(out[i][k]) {
				return nil, &NotANumber{k}
			}
		}
	}
	return out, nil
}

// Masked is a batch multiplied by a map an image, or by what each map leaves
// out (hidden). Maps have the images' size. The caller frees it.
func (e *Explainer) Masked(x torchx.Tensor, maps []cam.Map, hidden bool) (torchx.Tensor, error) {
	var flat []float32
	for _, m := range maps {
		if !hidden {
			flat = append(flat, m.Values...)
			continue
		}
		for _, v := range m.Values {
			flat = append(flat, 1-v)
		}
	}
	mask, err := torchx.FromFloats(flat, int64(len(maps)), 1, int64(maps[0].Height), int64(maps[0].Width))
	if err != nil {
		return torchx.Tensor{}, err
	}
	defer torchx.Free(mask)
	if err := torchx.Move(mask, e.model.Device(), false); err != nil {
		return torchx.Tensor{}, err
	}
	var out torchx.Tensor
	err = torchx.Catch(func() error {
		out = torchx.Own(torch.Mul(x, mask))
		return nil
	})
	return out, err
}

// Quality holds the three probabilities of one image's class and what they and
// the map say.
type Quality struct {
	Class         int
	Full          float64 // softmax of the class on the image
	Only          float64 // on the image times the map
	Hidden        float64 // on the image times 1 - map
	Concentration float64
	Coverage      float64
}

// Qualities measures maps (scaled, of the images' size), one an image, for the
// given classes. probs are the predictions on the whole images.
func (e *Explainer) Qualities(x torchx.Tensor, maps []cam.Map, classes []int, probs [][]float64) ([]Quality, error) {
	out := make([]Quality, len(maps))
	var passes [2][][]float64
	for i, hidden := range []bool{false, true} {
		masked, err := e.Masked(x, maps, hidden)
		if err != nil {
			return nil, err
		}
		passes[i], err = e.Predict(masked)
		torchx.Free(masked)
		if err != nil {
			return nil, err
		}
	}
	for i, m := range maps {
		c := classes[i]
		out[i] = Quality{Class: c, Full: probs[i][c], Only: passes[0][i][c], Hidden: passes[1][i][c], Concentration: m.Concentration(), Coverage: m.Coverage(0.5)}
	}
	return out, nil
}
