//go:build libtorch

package infer

import (
	"errors"
	"image"

	"atelier/worker/trainer/explain"
	"atelier/worker/trainer/explain/cam"
	"atelier/worker/trainer/torchx"
)

// Prepare decodes an image for a model of an image size, and for the eye.
func Prepare(b []byte, size int) (pixels []byte, shown *image.RGBA, err error) {
	return prepare(b, size, true)
}

// Seen is what a model says of one image.
type Seen struct {
	Probs   []float64
	Top     []int     // the best classes, best first
	Maps    []cam.Map // of those, not scaled
	Quality explain.Quality
}

// Look asks about prepared images: the best tops[i] classes of the i-th, a map
// of each, and the quality of the best one's.
func (p *Predictor) Look(pixels [][]byte, tops []int) ([]Seen, error) {
	return inParts(p, pixels, func(x torchx.Tensor, from, to int) ([]Seen, error) { return p.look(x, tops[from:to]) })
}

func (p *Predictor) look(x torchx.Tensor, tops []int) ([]Seen, error) {
	seen := make([]Seen, len(tops))
	looks, err := p.e.Explain(x, func(i int, probs []float64) []int {
		seen[i].Top = topOf(probs, max(tops[i], 1))
		return seen[i].Top
	})
	if err != nil {
		return nil, err
	}
	size := p.About.ImageSize
	maps, classes, probs := make([]cam.Map, len(looks)), make([]int, len(looks)), make([][]float64, len(looks))
	for i, l := range looks {
		seen[i].Probs, seen[i].Maps = l.Probs, l.Maps
		maps[i], classes[i], probs[i] = l.Maps[0].Scaled().Resized(size, size), seen[i].Top[0], l.Probs
	}
	quality, err := p.e.Qualities(x, maps, classes, probs)
	if err != nil {
		return nil, err
	}
	for i, q := range quality {
		seen[i].Quality = q
	}
	return seen, nil
}

// inParts calls f with the normalised images from up to to, perhaps several
// times at once, and puts together what it returns of each.
func inParts[T any](p *Predictor, pixels [][]byte, f func(x torchx.Tensor, from, to int) ([]T, error)) ([]T, error) {
	out := make([]T, len(pixels))
	err := p.pool.each(len(pixels), func(from, to int) error {
		x, err := p.input(pixels[from:to])
		if err != nil {
			return err
		}
		defer torchx.Free(x)
		part, err := f(x, from, to)
		copy(out[from:to], part)
		var broken *explain.NotANumber
		if errors.As(err, &broken) {
			return fault("%s: the model's output for class %q is not a number; are its weights sound? (In precision fp16: does fp32 do better?)",
				p.Path, p.About.Classes[broken.Class])
		}
		return err
	})
	return out, err
}
