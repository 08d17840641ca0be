//go:build libtorch

// Package nn builds networks from gotorch's functional layers: modules with
// PyTorch's names, initialisation and state, and a forward pass that frees
// each activation as soon as Python would.
//
// A module's Forward leaves its input alone; whoever made a tensor drops it.
// Layers panic with libtorch's error (torchx.Must); torchx.Catch around the
// step turns that back into an error.
//
// The package refuses to know training: no data, no loss, no optimiser.
package nn

import (
	"fmt"

	"atelier/common/onnx"
	"atelier/worker/trainer/torchx"
)

// Tensor is gotorch's tensor, owned by whoever holds it.
type Tensor = torchx.Tensor

// Kind of an entry of a module's state.
type Kind uint8

// Kinds.
const (
	Weight  Kind = iota // trained
	Buffer              // stored, not trained: running statistics
	Counter             // an int64 scalar kept on the Go side
)

// Entry is one named part of a module's state.
type Entry struct {
	Name   string // "weight"; with its path in State: "layer1.0.conv1.weight"
	Kind   Kind
	Tensor Tensor // of a Weight or Buffer
	Count  *int64 // of a Counter
}

// Child is a named part of a module.
type Child struct {
	Name string
	Module
}

// Module is a layer or a tree of layers.
type Module interface {
	Forward(p *Pass, x Tensor) Tensor
	Entries() []Entry  // its own, in PyTorch's order
	Children() []Child // in PyTorch's order of registration

	// Graph adds to an ONNX graph what Forward does in evaluation.
	Graph(g *Graph, x onnx.Value) onnx.Value
}

// State lists a module's whole state under PyTorch's names and in its order.
func State(m Module) []Entry { return state("", m, nil) }

func state(prefix string, m Module, out []Entry) []Entry {
	for _, e := range m.Entries() {
		e.Name = prefix + e.Name
		out = append(out, e)
	}
	for _, c := range m.Children() {
		out = state(prefix+c.Name+".", c.Module, out)
	}
	return out
}

// Find returns the module at a dotted path; an empty path is the root.
func Find(m Module, path string) (Module, error) {
	rest := path
	for rest != "" {
		name := rest
		for i := range rest {
			if rest[i] == '.' {
				name = rest[:i]
				break
			}
		}
		next := Module(nil)
		for _, c := range m.Children() {
			if c.Name == name {
				next = c.Module
			}
		}
		if next == nil {
			return nil, fmt.Errorf("no module %q: there is no %q", path, name)
		}
		m = next
		rest = rest[min(len(name)+1, len(rest)):]
	}
	return m, nil
}

// Walk calls f on a module and everything below it, parents first.
func Walk(m Module, f func(Module)) {
	f(m)
	for _, c := range m.Children() {
		Walk(c.Module, f)
	}
}

// Pass is one forward pass: whether it trains, and the tensors made on the
// way. Close frees what is left of them.
type Pass struct {
	Training bool

	live    []Tensor
	watched map[Module]Tensor
	leaves  map[Module]bool
}

// Watch keeps a module's output until Close, for Grad-CAM and the like. Call
// it before Forward and Watched after.
func (p *Pass) Watch(m Module) {
	if p.watched == nil {
		p.watched = map[Module]Tensor{}
	}
	p.watched[m] = Tensor{}
}

// WatchGrad watches a module whose output shall be a leaf that has a gradient:
// autograd records from there on. What lies before must not ask for one.
func (p *Pass) WatchGrad(m Module) {
	p.Watch(m)
	if p.leaves == nil {
		p.leaves = map[Module]bool{}
	}
	p.leaves[m] = true
}

// Watched returns a watched module's output, ok false if it did not run.
func (p *Pass) Watched(m Module) (out Tensor, ok bool) {
	out = p.watched[m]
	return out, out.T != nil
}

// Forward runs a module. Containers call it, not Module.Forward, so that
// watching works at any depth.
func (p *Pass) Forward(m Module, x Tensor) Tensor {
	return p.note(m, m.Forward(p, x))
}

func (p *Pass) watches(m Module) bool {
	_, wanted := p.watched[m]
	return wanted
}

// note keeps a module's output if it is watched.
func (p *Pass) note(m Module, y Tensor) Tensor {
	if p.watches(m) {
		p.watched[m] = y
		if p.leaves[m] {
			torchx.Must(torchx.RequireGrad(y, true))
		}
	}
	return y
}

// Chain runs modules one after the other and drops what lies between. A
// normalisation takes the activation behind it along, unless it is watched.
func (p *Pass) Chain(x Tensor, ms ...Module) Tensor {
	first := x
	for i := 0; i < len(ms); i++ {
		var y Tensor
		if norm, ok := ms[i].(*BatchNorm2d); ok && i+1 < len(ms) && follower(ms[i+1]) && !p.watches(norm) {
			i++
			y = p.note(ms[i], norm.ForwardInto(p, x, Behind{Activation: ms[i]}))
		} else {
			y = p.Forward(ms[i], x)
		}
		if x.T != first.T && x.T != y.T {
			p.Drop(x)
		}
		x = y
	}
	return x
}

// Keep notes a new tensor of this pass, from gotorch or torchx, and takes
// gotorch's finalizer off it.
func (p *Pass) Keep(t Tensor) Tensor {
	torchx.Own(t)
	p.live = append(p.live, t)
	return t
}

// KeepOr is Keep for calls with an error, which it panics with.
func (p *Pass) KeepOr(t Tensor, err error) Tensor {
	torchx.Must(err)
	return p.Keep(t)
}

// Drop frees a tensor of this pass ahead of Close, unless it is watched.
func (p *Pass) Drop(t Tensor) {
	for _, w := range p.watched {
		if w.T == t.T {
			return
		}
	}
	torchx.Free(t)
}

// Close frees what the pass made. Its outputs go too: take them out first.
func (p *Pass) Close() {
	torchx.Free(p.live...)
	p.live = p.live[:0]
	p.watched, p.leaves = nil, nil
}
