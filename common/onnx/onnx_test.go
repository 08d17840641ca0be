package onnx_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"atelier/common/onnx"
)

// fields takes a message apart: the values of each field, in order. Numbers are varints as bytes.
func fields(t *testing.T, b []byte) map[protowire.Number][][]byte {
	t.Helper()
	out := map[protowire.Number][][]byte{}
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		b = b[size:]
		v := b
		if kind == protowire.BytesType {
			v, size = protowire.ConsumeBytes(b)
		} else if size = protowire.ConsumeFieldValue(n, kind, b); size >= 0 {
			v = b[:size]
		}
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		out[n] = append(out[n], v)
		b = b[size:]
	}
	return out
}

func small() *onnx.Graph {
	g := onnx.New("small")
	x := g.Input("images", 2, 5, 5)
	w := g.Constant("weight", []int64{3, 2, 3, 3}, make([]float32, 54)...)
	x = g.Relu(g.Conv(x, w, onnx.Value{}, 2, 1, 1))
	x = g.Flatten(g.AdaptiveAveragePool(x, 2))
	g.Output("logits", g.Linear(x, g.Constant("fc.weight", []int64{4, 12}, make([]float32, 48)...), g.Constant("fc.bias", []int64{4}, 1, 2, 3, 4)))
	return g
}

// The file is what onnx.proto describes: nodes in the order in which they run, each weight once, the metadata sorted,
// the same bytes each time. That runtimes compute the right thing is tested in worker/trainer.
func TestFile(t *testing.T) {
	var file, again bytes.Buffer
	metadata := map[string]string{"mean": "[0.5]", "arch": "small"}
	for _, w := range []*bytes.Buffer{&file, &again} {
		if err := small().Write(w, "test", "1", metadata); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Error("two files of one graph differ")
	}
	m := fields(t, file.Bytes())
	if got := m[1][0]; !slices.Equal(got, []byte{onnx.IRVersion}) {
		t.Errorf("IR version %v", got)
	}
	if got := fields(t, m[8][0])[2][0]; !slices.Equal(got, []byte{onnx.Opset}) {
		t.Errorf("opset %v", got)
	}
	if len(m[14]) != 2 || string(fields(t, m[14][0])[1][0]) != "arch" || string(fields(t, m[14][1])[2][0]) != "[0.5]" {
		t.Errorf("metadata %q", m[14])
	}
	g := fields(t, m[7][0])
	var operators, weights []string
	made := map[string]bool{"images": true}
	for _, w := range g[5] {
		f := fields(t, w)
		weights = append(weights, string(f[8][0]))
		made[string(f[8][0])] = true
		n := 4
		for _, d := range f[1] {
			v, _ := protowire.ConsumeVarint(d)
			n *= int(v)
		}
		if len(f[9][0]) != n {
			t.Errorf("%s has %d bytes, its shape needs %d", f[8][0], len(f[9][0]), n)
		}
	}
	for _, n := range g[1] {
		f := fields(t, n)
		operators = append(operators, string(f[4][0]))
		for _, in := range f[1] {
			if !made[string(in)] {
				t.Errorf("%s takes %q before it is made", f[4][0], in)
			}
		}
		made[string(f[2][0])] = true
	}
	if got := strings.Join(operators, " "); got != "Conv Relu MatMul MatMul Flatten Gemm Identity" {
		t.Errorf("operators: %s", got)
	}
	if got := strings.Join(weights, " "); got != "weight rows_3_2 columns_3_2 fc.weight fc.bias" {
		t.Errorf("weights: %s", got)
	}
}

// A graph that cannot be right is an error, and nothing is written.
func TestMistakes(t *testing.T) {
	broken := errors.New("no bytes")
	for name, c := range map[string]struct {
		build func(g *onnx.Graph, x onnx.Value) onnx.Value
		want  string
	}{
		"flat image": {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.MaxPool(g.Flatten(x), 2, 2, 0) }, "MaxPool needs [channels, height, width]"},
		"linear layer": {func(g *onnx.Graph, x onnx.Value) onnx.Value {
			return g.Linear(x, g.Constant("w", []int64{2, 3}, 1), onnx.Value{})
		}, "a linear layer of [2 3] on [2 4 4]"},
		"sum":           {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Add(x, g.GlobalAveragePool(x)) }, "Add of [2 4 4] and [2 1 1]"},
		"no such value": {func(g *onnx.Graph, x onnx.Value) onnx.Value { return g.Mul(x, onnx.Value{}) }, "Mul takes a value that no node made"},
		"said":          {func(g *onnx.Graph, x onnx.Value) onnx.Value { g.Fail(broken); return x }, "no bytes"},
		"bytes": {func(g *onnx.Graph, x onnx.Value) onnx.Value {
			return g.Mul(x, g.Weight("w", []int64{2}, func() ([]byte, error) { return nil, nil }))
		}, "a tensor has 0 bytes, its shape needs 8"},
		"too large": {func(g *onnx.Graph, x onnx.Value) onnx.Value {
			return g.Mul(x, g.Weight("w", []int64{1 << 30}, nil))
		}, "an ONNX file without external data has at most"},
	} {
		g := onnx.New(name)
		g.Output("y", c.build(g, g.Input("x", 2, 4, 4)))
		var b bytes.Buffer
		if err := g.Write(&b, "test", "1", nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := onnx.New("empty").Write(&bytes.Buffer{}, "test", "1", nil); err == nil {
		t.Error("a graph without input and output was written")
	}
}
