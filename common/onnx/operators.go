package onnx

import "fmt"

// window is the side of what a window of a kernel's size makes of n values.
func window(n, kernel, stride, padding int64) int64 { return (n+2*padding-kernel)/stride + 1 }

// image reports whether v is [c, h, w], and keeps a mistake where it is not.
func (g *Graph) image(op string, v Value) bool {
	if len(v.Shape) == 3 {
		return true
	}
	g.fail("onnx: %s needs [channels, height, width], not %v", op, v.Shape)
	return false
}

// Conv is a 2-d convolution with a square kernel; bias may be the zero Value.
func (g *Graph) Conv(x, weight, bias Value, stride, padding, groups int64) Value {
	if !g.image("Conv", x) || len(weight.Shape) != 4 {
		return x
	}
	out, k := weight.Shape[0], weight.Shape[2]
	inputs := []Value{x, weight}
	if bias.name != "" {
		inputs = append(inputs, bias)
	}
	return g.add("Conv", inputs, []int64{out, window(x.Shape[1], k, stride, padding), window(x.Shape[2], k, stride, padding)},
		integers("kernel_shape", k, k), integers("strides", stride, stride),
		integers("pads", padding, padding, padding, padding), integer("group", groups))
}

// BatchNormalization is (x-mean)/sqrt(variance+eps)*weight + bias, a channel
// each.
func (g *Graph) BatchNormalization(x, weight, bias, mean, variance Value, eps float64) Value {
	return g.add("BatchNormalization", []Value{x, weight, bias, mean, variance}, x.Shape, float("epsilon", eps))
}

// Relu is max(x, 0).
func (g *Graph) Relu(x Value) Value { return g.add("Relu", []Value{x}, x.Shape) }

// Relu6 is min(max(x, 0), 6).
func (g *Graph) Relu6(x Value) Value {
	return g.add("Clip", []Value{x, g.Constant("zero", nil, 0), g.Constant("six", nil, 6)}, x.Shape)
}

// Sigmoid is 1/(1+exp(-x)).
func (g *Graph) Sigmoid(x Value) Value { return g.add("Sigmoid", []Value{x}, x.Shape) }

// HardSigmoid is relu6(x+3)/6.
func (g *Graph) HardSigmoid(x Value) Value {
	return g.add("HardSigmoid", []Value{x}, x.Shape, float("alpha", 1.0/6), float("beta", 0.5))
}

// HardSwish is x relu6(x+3)/6.
func (g *Graph) HardSwish(x Value) Value { return g.add("HardSwish", []Value{x}, x.Shape) }

// Mul multiplies element by element; sides of one in b stand for all of a's.
func (g *Graph) Mul(a, b Value) Value { return g.add("Mul", []Value{a, b}, a.Shape) }

// Add adds two tensors of one shape.
func (g *Graph) Add(a, b Value) Value {
	if fmt.Sprint(a.Shape) != fmt.Sprint(b.Shape) {
		g.fail("onnx: Add of %v and %v", a.Shape, b.Shape)
	}
	return g.add("Add", []Value{a, b}, a.Shape)
}

// MaxPool takes the maximum of each square window.
func (g *Graph) MaxPool(x Value, kernel, stride, padding int64) Value {
	if !g.image("MaxPool", x) {
		return x
	}
	return g.add("MaxPool", []Value{x}, []int64{x.Shape[0], window(x.Shape[1], kernel, stride, padding), window(x.Shape[2], kernel, stride, padding)},
		integers("kernel_shape", kernel, kernel), integers("strides", stride, stride), integers("pads", padding, padding, padding, padding))
}

// GlobalAveragePool averages each channel: [c, h, w] to [c, 1, 1].
func (g *Graph) GlobalAveragePool(x Value) Value {
	if !g.image("GlobalAveragePool", x) {
		return x
	}
	return g.add("GlobalAveragePool", []Value{x}, []int64{x.Shape[0], 1, 1})
}

// AdaptiveAveragePool is PyTorch's AdaptiveAvgPool2d: side x side windows that
// share the image, which overlap where side does not divide it. ONNX has no such
// operator. Where the windows are equal it is AveragePool; else the averages are
// products with two constant matrices, which hold each window's weights.
func (g *Graph) AdaptiveAveragePool(x Value, side int64) Value {
	if side == 1 || !g.image("AdaptiveAveragePool", x) {
		return g.GlobalAveragePool(x)
	}
	c, h, w := x.Shape[0], x.Shape[1], x.Shape[2]
	out := []int64{c, side, side}
	if h%side == 0 && w%side == 0 {
		return g.add("AveragePool", []Value{x}, out, integers("kernel_shape", h/side, w/side), integers("strides", h/side, w/side))
	}
	rows := g.add("MatMul", []Value{g.Constant(fmt.Sprintf("rows_%d_%d", h, side), []int64{side, h}, shares(h, side)...), x}, []int64{c, side, w})
	return g.add("MatMul", []Value{rows, g.Constant(fmt.Sprintf("columns_%d_%d", w, side), []int64{w, side}, transposed(shares(w, side), side)...)}, out)
}

// shares is the matrix [side, n] of averages over the windows
// floor(i n/side) to ceil((i+1) n/side).
func shares(n, side int64) []float32 {
	m := make([]float32, side*n)
	for i := range side {
		from, to := i*n/side, ((i+1)*n+side-1)/side
		for k := from; k < to; k++ {
			m[i*n+k] = 1 / float32(to-from)
		}
	}
	return m
}

// transposed turns a matrix of the given number of rows.
func transposed(m []float32, rows int64) []float32 {
	columns := int64(len(m)) / rows
	out := make([]float32, len(m))
	for i := range rows {
		for k := range columns {
			out[k*rows+i] = m[i*columns+k]
		}
	}
	return out
}

// Flatten makes [n] of each image's values.
func (g *Graph) Flatten(x Value) Value {
	n := int64(1)
	for _, d := range x.Shape {
		n *= d
	}
	return g.add("Flatten", []Value{x}, []int64{n}, integer("axis", 1))
}

// Linear maps [in] to [out] by a weight of [out, in] and a bias of [out].
func (g *Graph) Linear(x, weight, bias Value) Value {
	if len(x.Shape) != 1 || len(weight.Shape) != 2 || weight.Shape[1] != x.Shape[0] {
		g.fail("onnx: a linear layer of %v on %v", weight.Shape, x.Shape)
		return x
	}
	return g.add("Gemm", []Value{x, weight, bias}, []int64{weight.Shape[0]}, integer("transB", 1))
}
