//go:build libtorch

// Package optim updates parameters: SGD with momentum and Adam, by PyTorch's
// formulas, in one pass over memory (torchx), with all state open to the
// checkpoint writer.
//
// gotorch's optimisers are not used: their momentum buffers cannot be read or
// written, so a resumed run could not continue exactly, and an exception in
// their step ends the process.
package optim

import (
	"fmt"

	"atelier/worker/trainer/torchx"
)

// Tensor is gotorch's tensor.
type Tensor = torchx.Tensor

// Config chooses and sets an optimiser.
type Config struct {
	Name        string // sgd or adam
	Momentum    float64
	WeightDecay float64
}

// Adam's other constants, PyTorch's defaults.
const (
	Beta1 = 0.9
	Beta2 = 0.999
	Eps   = 1e-8
)

// Slot is one kind of per-parameter state under PyTorch's name.
type Slot struct {
	Name    string // momentum_buffer, exp_avg, exp_avg_sq
	Tensors []Tensor
}

// Optimizer holds parameters and their state.
type Optimizer struct {
	Config Config
	Steps  int64 // taken so far
	params []Tensor
	slots  []Slot
}

// New makes an optimiser over parameters that already are on their device and
// in their layout: state tensors are made alike.
func New(c Config, params []Tensor) (*Optimizer, error) {
	o := &Optimizer{Config: c, params: params}
	var names []string
	switch {
	case c.Name == "sgd" && c.Momentum != 0:
		names = []string{"momentum_buffer"}
	case c.Name == "sgd":
	case c.Name == "adam":
		names = []string{"exp_avg", "exp_avg_sq"}
	default:
		return nil, fmt.Errorf("no optimizer %q; there are sgd and adam", c.Name)
	}
	for _, n := range names {
		s := Slot{Name: n}
		for _, p := range params {
			z, err := torchx.ZerosLike(p)
			if err != nil {
				o.Free()
				torchx.Free(s.Tensors...)
				return nil, fmt.Errorf("optimizer state: %w", err)
			}
			s.Tensors = append(s.Tensors, z)
		}
		o.slots = append(o.slots, s)
	}
	return o, nil
}

// Step moves the parameters by their gradients and forgets these.
func (o *Optimizer) Step(lr float64) error {
	o.Steps++
	var err error
	switch {
	case o.Config.Name == "adam":
		err = torchx.AdamStep(o.params, o.slots[0].Tensors, o.slots[1].Tensors, o.Steps, lr, Beta1, Beta2, Eps, o.Config.WeightDecay)
	case len(o.slots) == 0:
		err = torchx.SGDStep(o.params, nil, lr, 0, o.Config.WeightDecay)
	default:
		err = torchx.SGDStep(o.params, o.slots[0].Tensors, lr, o.Config.Momentum, o.Config.WeightDecay)
	}
	if err != nil {
		return err
	}
	return torchx.DropGrads(o.params)
}

// State lists the per-parameter state; tensors are in the parameters' order.
func (o *Optimizer) State() []Slot { return o.slots }

// Free gives the state up.
func (o *Optimizer) Free() {
	for _, s := range o.slots {
		torchx.Free(s.Tensors...)
	}
}
