//go:build libtorch

// Package model holds the architectures, one file a family, with
// torchvision's parameter names, shapes, initialisation (the same seed draws
// the same weights) and, for Grad-CAM, the layer to look at.
//
// A family registers its builders in an init function; nothing else needs to
// know of it. The package refuses names it does not have and says which it
// has.
package model

import (
	"fmt"
	"slices"
	"strings"

	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// Options of every architecture.
type Options struct {
	Classes int
	// Dropout in the classifier; negative is the architecture's own rate.
	Dropout float64
	// Freeze leaves only the head to be trained. The rest is a fixed function
	// of the image: its batch normalisation takes the running statistics and
	// stochastic depth drops nothing, in training too.
	Freeze bool
}

// rate is the dropout asked for, else the architecture's own.
func (o Options) rate(own float64) float64 {
	if o.Dropout < 0 {
		return own
	}
	return o.Dropout
}

// Net is what a builder returns.
type Net struct {
	Root nn.Module
	// CAM is the path of the layer whose output Grad-CAM weighs.
	CAM string
	// Head is the path of the last linear layer, replaced when class counts differ.
	Head string
}

type builder struct {
	name  string
	build func(Options) Net
}

var builders []builder

// register adds an architecture; families call it from init.
func register(name string, build func(Options) Net) {
	builders = append(builders, builder{name, build})
	slices.SortFunc(builders, func(a, b builder) int { return strings.Compare(a.name, b.name) })
}

// Names of all architectures, sorted.
func Names() []string {
	names := make([]string, len(builders))
	for i, b := range builders {
		names[i] = b.name
	}
	return names
}

// Model is a network on a device.
type Model struct {
	Net
	Arch    string
	Classes int

	device       torchx.Device
	channelsLast bool
	state        []nn.Entry
	weights      []torchx.Tensor
}

// New builds an architecture on the CPU, drawing initial weights from the CPU
// generator (torchx.Seed).
func New(arch string, o Options) (*Model, error) {
	if o.Classes < 1 {
		return nil, fmt.Errorf("model %s: %d classes; at least one is needed", arch, o.Classes)
	}
	for _, b := range builders {
		if b.name != arch {
			continue
		}
		m := &Model{Arch: arch, Classes: o.Classes, device: torchx.CPU}
		err := torchx.Catch(func() error { m.Net = b.build(o); return nil })
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", arch, err)
		}
		m.state = nn.State(m.Root)
		if err := m.choose(o.Freeze); err != nil {
			m.Free()
			return nil, fmt.Errorf("build %s: %w", arch, err)
		}
		return m, nil
	}
	return nil, fmt.Errorf("no model %q; there are %s", arch, strings.Join(Names(), ", "))
}

// State lists parameters and buffers under torchvision's names, in its order.
func (m *Model) State() []nn.Entry { return m.state }

// choose lists what is trained and freezes the rest.
func (m *Model) choose(freeze bool) error {
	for _, e := range m.state {
		if e.Kind != nn.Weight {
			continue
		}
		if !freeze || strings.HasPrefix(e.Name, m.Head+".") {
			m.weights = append(m.weights, e.Tensor)
		} else if err := torchx.RequireGrad(e.Tensor, false); err != nil {
			return err
		}
	}
	if freeze {
		nn.Walk(m.Root, func(x nn.Module) {
			switch x := x.(type) {
			case *nn.BatchNorm2d:
				x.Frozen = true
			case *nn.StochasticDepth:
				x.Frozen = true
			}
		})
	}
	return nil
}

// Weights lists the trained parameters in order: all, or those of the head
// when the rest is frozen.
func (m *Model) Weights() []torchx.Tensor { return slices.Clone(m.weights) }

// Parameters counts trained values.
func (m *Model) Parameters() (int64, error) {
	var n int64
	for _, w := range m.Weights() {
		i, err := torchx.Describe(w)
		if err != nil {
			return 0, err
		}
		n += i.Len()
	}
	return n, nil
}

// Move puts the model on a device and its convolutions into a layout.
func (m *Model) Move(d torchx.Device, channelsLast bool) error {
	for _, e := range m.state {
		if e.Kind == nn.Counter {
			continue
		}
		if err := torchx.Move(e.Tensor, d, channelsLast); err != nil {
			return fmt.Errorf("move %s to %s: %w", e.Name, d, err)
		}
	}
	m.device, m.channelsLast = d, channelsLast
	return nil
}

// Device the model is on.
func (m *Model) Device() torchx.Device { return m.device }

// ChannelsLast reports whether its input should lie channels last in memory.
func (m *Model) ChannelsLast() bool { return m.channelsLast }

// Forward returns logits [n, classes] for a batch [n, 3, h, w]. They live
// until p is closed.
func (m *Model) Forward(p *nn.Pass, x torchx.Tensor) torchx.Tensor { return p.Forward(m.Root, x) }

// Free gives the weights up.
func (m *Model) Free() {
	for _, e := range m.state {
		torchx.Free(e.Tensor)
	}
}
