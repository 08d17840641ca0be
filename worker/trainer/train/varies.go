//go:build libtorch

package train

import (
	"errors"
	"fmt"
	"strings"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

const noVariance = "a batch, or a shard of one, of one image leaves batch normalisation a single value a channel at this image_size, which has no variance"

// varies refuses, before the first epoch, batches of one image where the
// network shrinks an image to a single place in front of a normalisation: a
// running variance of one value is NaN. One image through a model like the
// run's tells; where every batch has two images there is nothing to ask.
func (r *run) varies() (err error) {
	n := r.data.train.Len()
	smallest := n
	all := newPlan(make([]int, n), make([]int64, n), r.settings.BatchSize, r.settings.Shards, 1, criterion{})
	for _, p := range all.all() {
		smallest = min(smallest, p.len())
	}
	if smallest > 1 {
		return nil
	}
	defer func() {
		var torch *torchx.Error
		if !errors.As(err, &torch) || !strings.Contains(torch.Text, "more than one value a channel") {
			return
		}
		way := "take batch_size 2 or more"
		if r.settings.Shards > 1 {
			way = fmt.Sprintf("take batch_size %d or more, two images for each of %d shards", 2*r.settings.Shards, r.settings.Shards)
		}
		if n == 1 {
			way = "put more than one image into data.train"
		}
		err = badSpec("%s (%s, image_size %d): %s, or a larger image_size", noVariance, r.settings.Model, r.settings.ImageSize, way)
	}()
	return r.drawingNothing(func() error {
		like, err := r.alike()
		if err != nil {
			return err
		}
		defer like.Free()
		s := r.settings
		one := []float32{1, 1, 1}
		x, err := torchx.Images(make([]byte, s.ImageSize*s.ImageSize*3), 1, s.ImageSize, s.ImageSize, one, one, r.device, r.data.channelsLast)
		if err != nil {
			return err
		}
		defer torchx.Free(x)
		return torchx.Catch(func() error {
			return torchx.NoGrad(func() error {
				p := &nn.Pass{Training: true}
				defer p.Close()
				like.Forward(p, x)
				return nil
			})
		})
	})
}

// drawingNothing runs f and puts the generators back to where they were.
func (r *run) drawingNothing(f func() error) error {
	devices := r.generators()
	states := make([][]byte, len(devices))
	var err error
	for i, d := range devices {
		if states[i], err = torchx.RandomState(d); err != nil {
			return err
		}
	}
	err = f()
	for i, d := range devices {
		if back := torchx.SetRandomState(d, states[i]); err == nil {
			err = back
		}
	}
	return err
}
