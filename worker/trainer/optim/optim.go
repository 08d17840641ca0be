//go:build libtorch

// Package optim updates parameters: SGD, Adam, AdamW and RMSprop by PyTorch's
// formulas, in one pass over memory (torchx), with all state open to the
// checkpoint writer; the learning rate is the caller's (optim/schedule).
// Averages of weights and the scale of float16 losses live here too.
//
// gotorch's optimisers are not used: their momentum buffers cannot be read or
// written, so a resumed run could not continue exactly, and an exception in
// their step ends the process.
package optim

import (
	"fmt"
	"slices"
	"strings"

	"atelier/worker/trainer/torchx"
)

// Tensor is gotorch's tensor.
type Tensor = torchx.Tensor

// Config chooses and sets an optimiser.
type Config struct {
	Name        string  // one of Names
	Momentum    float64 // of sgd and rmsprop
	Nesterov    bool    // of sgd, with a momentum
	WeightDecay float64 // adamw's is apart from the gradient, the others' added to it
}

// Names of the optimisers.
var Names = []string{"sgd", "adam", "adamw", "rmsprop"}

// The other constants, PyTorch's defaults.
const (
	Beta1 = 0.9   // of adam, adamw
	Beta2 = 0.999 // of adam, adamw
	Alpha = 0.99  // of rmsprop
	Eps   = 1e-8
)

// Slot is one kind of per-parameter state under PyTorch's name.
type Slot struct {
	Name    string // momentum_buffer, exp_avg, exp_avg_sq, square_avg
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
	if !slices.Contains(Names, c.Name) {
		return nil, fmt.Errorf("no optimizer %q; there are %s", c.Name, strings.Join(Names, ", "))
	}
	o := &Optimizer{Config: c, params: params}
	var names []string
	switch c.Name {
	case "adam", "adamw":
		names = []string{"exp_avg", "exp_avg_sq"}
	case "rmsprop":
		names = []string{"square_avg"}
	}
	if o.hasMomentum() {
		names = append(names, "momentum_buffer")
	}
	for _, n := range names {
		z, err := zerosLike(params)
		if err != nil {
			o.Free()
			return nil, fmt.Errorf("optimizer state: %w", err)
		}
		o.slots = append(o.slots, Slot{n, z})
	}
	return o, nil
}

func (o *Optimizer) hasMomentum() bool {
	return o.Config.Momentum != 0 && (o.Config.Name == "sgd" || o.Config.Name == "rmsprop")
}

// Step moves the parameters by their gradients and forgets these.
func (o *Optimizer) Step(lr float64) error {
	o.Steps++
	c := o.Config
	var err error
	switch c.Name {
	case "sgd":
		err = torchx.SGDStep(o.params, o.slot("momentum_buffer"), lr, c.Momentum, c.Nesterov, c.WeightDecay)
	case "adam", "adamw":
		err = torchx.AdamStep(o.params, o.slot("exp_avg"), o.slot("exp_avg_sq"), o.Steps, lr, Beta1, Beta2, Eps, c.WeightDecay, c.Name == "adamw")
	case "rmsprop":
		err = torchx.RMSpropStep(o.params, o.slot("square_avg"), o.slot("momentum_buffer"), lr, Alpha, Eps, c.Momentum, c.WeightDecay)
	}
	if err != nil {
		return err
	}
	return o.Drop()
}

// Drop forgets the gradients.
func (o *Optimizer) Drop() error { return torchx.DropGrads(o.params) }

// Clip shrinks the gradients to a norm of at most maxNorm, all together.
func (o *Optimizer) Clip(maxNorm float64) error { return torchx.ClipGrads(o.params, maxNorm) }

// State lists the per-parameter state; tensors are in the parameters' order.
func (o *Optimizer) State() []Slot { return o.slots }

// CountsSteps reports whether PyTorch keeps a step count a parameter.
func (o *Optimizer) CountsSteps() bool { return o.Config.Name != "sgd" }

// Option is one of a parameter group's options, as torch.optim names them.
type Option struct {
	Name  string
	Value any // float64, int64, bool, [2]float64 or nil
}

// Options are those of torch.optim's parameter group, in its order.
func (o *Optimizer) Options(lr float64) []Option {
	c := o.Config
	first := []Option{{"lr", lr}}
	switch c.Name {
	case "sgd":
		first = append(first, Option{"momentum", c.Momentum}, Option{"dampening", int64(0)}, Option{"nesterov", c.Nesterov && o.hasMomentum()})
	case "rmsprop":
		first = append(first, Option{"momentum", c.Momentum}, Option{"alpha", Alpha}, Option{"eps", Eps}, Option{"centered", false})
	default:
		first = append(first, Option{"betas", [2]float64{Beta1, Beta2}}, Option{"eps", Eps}, Option{"amsgrad", false}, Option{"capturable", false})
	}
	return append(first, Option{"weight_decay", c.WeightDecay}, Option{"maximize", false}, Option{"foreach", nil}, Option{"differentiable", false})
}

// Free gives the state up.
func (o *Optimizer) Free() {
	for _, s := range o.slots {
		torchx.Free(s.Tensors...)
	}
}

// slot is the state of a name; empty when this optimiser has none.
func (o *Optimizer) slot(name string) []Tensor {
	for _, s := range o.slots {
		if s.Name == name {
			return s.Tensors
		}
	}
	return nil
}

func zerosLike(params []Tensor) (all []Tensor, err error) {
	for _, p := range params {
		z, err := torchx.ZerosLike(p)
		if err != nil {
			torchx.Free(all...)
			return nil, err
		}
		all = append(all, z)
	}
	return all, nil
}
