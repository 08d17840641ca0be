// Package onnx writes ONNX model files (https://onnx.ai, onnx.proto): a graph of
// operators over float32 tensors, opset 17, IR version 8, which onnxruntime
// reads from 1.12 on and most other runtimes do too.
//
// It knows the format and the operators that our architectures need, not the
// architectures: a graph is put together by whoever knows the network. It reads
// nothing and computes nothing.
package onnx

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// IRVersion and Opset are the oldest that all runtimes in use read.
	IRVersion = 8
	Opset     = 17
	// maxFile is what one protocol buffer message can hold, bytes.
	maxFile = math.MaxInt32
)

// Value is a tensor of the graph: an input, a weight or what a node makes.
type Value struct {
	name string
	// Shape is that of one image, without the batch: [c, h, w], or [n].
	Shape []int64
}

// Graph is a network under construction. Its methods return the value that the
// new node makes; the first mistake is kept and returned by Write.
type Graph struct {
	name    string
	parts   []part // fields of GraphProto, in order of their making
	weights []part
	known   map[string]bool // weights
	count   map[string]int  // nodes of each operator
	inputs  []byte
	outputs []byte
	err     error
}

// part is an encoded field; the bytes of a large tensor are asked for when they
// are written.
type part struct {
	head []byte
	size int // of data
	data func() ([]byte, error)
}

// New begins a graph; the name is what viewers show.
func New(name string) *Graph {
	return &Graph{name: name, known: map[string]bool{}, count: map[string]int{}}
}

// fail keeps the first mistake.
func (g *Graph) fail(format string, a ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, a...)
	}
}

// Fail keeps an error for Write.
func (g *Graph) Fail(err error) {
	if err != nil {
		g.fail("%w", err)
	}
}

// Input declares the graph's input, float32 [batch, shape...].
func (g *Graph) Input(name string, shape ...int64) Value {
	g.inputs = valueInfo(g.inputs, 11, name, shape)
	return Value{name, shape}
}

// Output declares that v is the graph's output under a name of its own.
func (g *Graph) Output(name string, v Value) {
	g.node("Identity", []Value{v}, name)
	g.outputs = valueInfo(g.outputs, 12, name, v.Shape)
}

// Weight adds a float32 tensor; data gives its little-endian bytes when the file
// is written. A tensor that two nodes use is added once, under its name.
func (g *Graph) Weight(name string, shape []int64, data func() ([]byte, error)) Value {
	if g.known[name] {
		return Value{name, shape}
	}
	g.known[name] = true
	n := 4
	var head []byte
	for _, d := range shape {
		n *= int(d)
		head = appendInt(head, 1, d)
	}
	head = appendInt(head, 2, dataTypeFloat)
	head = appendText(head, 8, name)
	head = protowire.AppendTag(head, 9, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(n))
	field := protowire.AppendTag(nil, 5, protowire.BytesType)
	field = protowire.AppendVarint(field, uint64(len(head)+n))
	g.weights = append(g.weights, part{append(field, head...), n, data})
	return Value{name, shape}
}

// Constant is a Weight of few numbers, named after its use.
func (g *Graph) Constant(name string, shape []int64, v ...float32) Value {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		bits := math.Float32bits(x)
		b = append(b, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24))
	}
	return g.Weight(name, shape, func() ([]byte, error) { return b, nil })
}

// node adds a node that makes one value of the given name.
func (g *Graph) node(op string, inputs []Value, output string, attributes ...[]byte) {
	var b []byte
	for _, in := range inputs {
		if in.name == "" {
			g.fail("onnx: %s takes a value that no node made", op)
		}
		b = appendText(b, 1, in.name)
	}
	b = appendText(b, 2, output)
	b = appendText(b, 3, "node_"+output)
	b = appendText(b, 4, op)
	for _, a := range attributes {
		b = appendBytes(b, 5, a)
	}
	g.parts = append(g.parts, part{head: appendBytes(nil, 1, b)})
}

// add adds a node and names what it makes after the operator.
func (g *Graph) add(op string, inputs []Value, shape []int64, attributes ...[]byte) Value {
	g.count[op]++
	v := Value{fmt.Sprintf("%s_%d", op, g.count[op]), shape}
	g.node(op, inputs, v.name, attributes...)
	return v
}

// Write writes the file. The metadata, sorted by key, is what onnxruntime gives
// as custom metadata. Nothing is written where the graph has a mistake or would
// be too large for the format.
func (g *Graph) Write(w io.Writer, producer, version string, metadata map[string]string) error {
	if g.err == nil && (g.inputs == nil || g.outputs == nil) {
		g.fail("onnx: a graph needs an input and an output")
	}
	if g.err != nil {
		return g.err
	}
	fields := slices.Concat(g.parts, []part{{head: appendText(nil, 2, g.name)}}, g.weights, []part{{head: g.inputs}, {head: g.outputs}})
	size := 0
	for _, p := range fields {
		size += len(p.head) + p.size
	}
	head := appendInt(nil, 1, IRVersion)
	head = appendText(head, 2, producer)
	head = appendText(head, 3, version)
	head = protowire.AppendTag(head, 7, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	tail := appendBytes(nil, 8, appendInt(nil, 2, Opset))
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		tail = appendBytes(tail, 14, appendText(appendText(nil, 1, key), 2, metadata[key]))
	}
	if size += len(head) + len(tail); size > maxFile {
		return fmt.Errorf("the model needs %d bytes; an ONNX file without external data has at most %d", size, maxFile)
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, p := range fields {
		if _, err := w.Write(p.head); err != nil {
			return err
		}
		if p.data == nil {
			continue
		}
		data, err := p.data()
		if err != nil {
			return err
		}
		if len(data) != p.size {
			return fmt.Errorf("onnx: a tensor has %d bytes, its shape needs %d", len(data), p.size)
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	_, err := w.Write(tail)
	return err
}
