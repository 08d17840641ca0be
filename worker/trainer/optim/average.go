//go:build libtorch

package optim

import (
	"fmt"

	"atelier/worker/trainer/torchx"
)

// Average is an exponential moving average of a model's state, as
// torch.optim.swa_utils.AveragedModel keeps it with use_buffers: the first
// update copies, each further one moves by 1-decay; running statistics are
// averaged like weights.
type Average struct {
	Updates int64 // so far
	decay   float64
	model   []Tensor // the model's own
	tensors []Tensor
}

// NewAverage makes an average of tensors that already are on their device.
func NewAverage(decay float64, model []Tensor) (*Average, error) {
	t, err := zerosLike(model)
	if err != nil {
		return nil, fmt.Errorf("averaged weights: %w", err)
	}
	return &Average{decay: decay, model: model, tensors: t}, nil
}

// Update takes the model's present values in.
func (a *Average) Update() error {
	a.Updates++
	if a.Updates == 1 {
		return torchx.Copy(a.tensors, a.model)
	}
	return torchx.Average(a.tensors, a.model, a.decay)
}

// Show runs f while the model holds the averages. Nothing is copied: storages
// change places and back, so training goes on with the same bits.
func (a *Average) Show(f func() error) error {
	if err := torchx.Swap(a.model, a.tensors); err != nil {
		return err
	}
	err := f()
	if back := torchx.Swap(a.model, a.tensors); err == nil {
		err = back
	}
	return err
}

// Restore takes the model's present values as the average after so many
// updates.
func (a *Average) Restore(updates int64) error {
	a.Updates = updates
	return torchx.Copy(a.tensors, a.model)
}

// Free gives the averages up.
func (a *Average) Free() { torchx.Free(a.tensors...) }
