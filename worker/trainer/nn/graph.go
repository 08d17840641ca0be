//go:build libtorch

package nn

import (
	"fmt"

	"atelier/common/onnx"
	"atelier/worker/trainer/torchx"
)

// Graph is an ONNX graph that a network is written into by its modules, each of
// which adds what its Forward does in evaluation.
type Graph struct {
	*onnx.Graph
	paths map[Module]string // "layer1.0.conv1."
}

// NewGraph begins the graph of a network; weights get their names of State.
func NewGraph(name string, root Module) *Graph {
	g := &Graph{Graph: onnx.New(name), paths: map[Module]string{}}
	g.walk("", root)
	return g
}

func (g *Graph) walk(path string, m Module) {
	if len(m.Entries()) > 0 {
		g.paths[m] = path
	}
	for _, c := range m.Children() {
		g.walk(path+c.Name+".", c.Module)
	}
}

// weight is an entry of a module's state as a constant of the graph.
func (g *Graph) weight(m Module, name string, t Tensor) onnx.Value {
	path, ok := g.paths[m]
	if !ok {
		g.Fail(fmt.Errorf("%T is not part of the network", m))
		return onnx.Value{}
	}
	i, err := torchx.Describe(t)
	if err == nil && i.DType != torchx.F32 {
		err = fmt.Errorf("%s%s: elements of type %d, not float32", path, name, i.DType)
	}
	if err != nil {
		g.Fail(err)
		return onnx.Value{}
	}
	return g.Weight(path+name, i.Shape, func() ([]byte, error) { return torchx.Bytes(t) })
}

// Chain adds modules one after the other.
func (g *Graph) Chain(x onnx.Value, ms ...Module) onnx.Value {
	for _, m := range ms {
		x = m.Graph(g, x)
	}
	return x
}

// Graph adds a convolution.
func (c *Conv2d) Graph(g *Graph, x onnx.Value) onnx.Value {
	var bias onnx.Value
	if c.Bias.T != nil {
		bias = g.weight(c, "bias", c.Bias)
	}
	return g.Conv(x, g.weight(c, "weight", c.Weight), bias, c.stride, c.padding, c.groups)
}

// Graph adds a normalisation by the running statistics.
func (b *BatchNorm2d) Graph(g *Graph, x onnx.Value) onnx.Value {
	return g.BatchNormalization(x, g.weight(b, "weight", b.Weight), g.weight(b, "bias", b.Bias),
		g.weight(b, "running_mean", b.Mean), g.weight(b, "running_var", b.Var), b.Eps)
}

// Graph adds a linear layer.
func (l *Linear) Graph(g *Graph, x onnx.Value) onnx.Value {
	return g.Linear(x, g.weight(l, "weight", l.Weight), g.weight(l, "bias", l.Bias))
}

// Graph adds the function.
func (*ReLU) Graph(g *Graph, x onnx.Value) onnx.Value { return g.Relu(x) }

// Graph adds the function.
func (*Sigmoid) Graph(g *Graph, x onnx.Value) onnx.Value { return g.Sigmoid(x) }

// Graph adds the pooling.
func (m *MaxPool2d) Graph(g *Graph, x onnx.Value) onnx.Value {
	return g.MaxPool(x, m.Kernel, m.Stride, m.Padding)
}

// Graph adds the pooling and what flattens it.
func (a *AvgPool) Graph(g *Graph, x onnx.Value) onnx.Value {
	return g.Flatten(g.AdaptiveAveragePool(x, a.Side))
}

// Graph adds nothing: in evaluation every element stays.
func (*Dropout) Graph(_ *Graph, x onnx.Value) onnx.Value { return x }

// Graph adds the parts.
func (s *Sequential) Graph(g *Graph, x onnx.Value) onnx.Value { return g.Chain(x, s.parts...) }

// Graph adds the function. SiLU is x times its sigmoid: ONNX has no operator for
// it.
func (a *Activate) Graph(g *Graph, x onnx.Value) onnx.Value {
	switch a.Function {
	case torchx.None:
		return x
	case torchx.ReLU:
		return g.Relu(x)
	case torchx.ReLU6:
		return g.Relu6(x)
	case torchx.SiLU:
		return g.Mul(x, g.Graph.Sigmoid(x))
	case torchx.HardSwish:
		return g.HardSwish(x)
	case torchx.HardSigmoid:
		return g.HardSigmoid(x)
	}
	g.Fail(fmt.Errorf("activation %d has no ONNX form", a.Function))
	return x
}

// Graph adds nothing: in evaluation every row stays.
func (*StochasticDepth) Graph(_ *Graph, x onnx.Value) onnx.Value { return x }

// Graph adds the factors of the channels and their product with the input.
func (s *SqueezeExcitation) Graph(g *Graph, x onnx.Value) onnx.Value {
	return g.Mul(x, g.Chain(g.GlobalAveragePool(x), s.fc1, s.delta, s.fc2, s.sigma))
}
