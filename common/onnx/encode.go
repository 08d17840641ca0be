package onnx

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers and constants are those of onnx.proto.
const (
	dataTypeFloat = 1
	attributeF    = 1
	attributeI    = 2
	attributeInts = 7
)

func appendInt(b []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// valueInfo appends a ValueInfoProto of float32 [batch, shape...].
func valueInfo(b []byte, field protowire.Number, name string, shape []int64) []byte {
	dims := appendBytes(nil, 1, appendText(nil, 2, "batch"))
	for _, d := range shape {
		dims = appendBytes(dims, 1, appendInt(nil, 1, d))
	}
	tensor := appendBytes(appendInt(nil, 1, dataTypeFloat), 2, dims)
	return appendBytes(b, field, appendBytes(appendText(nil, 1, name), 2, appendBytes(nil, 1, tensor)))
}

// The attributes of a node.
func integer(name string, v int64) []byte {
	return appendInt(appendInt(appendText(nil, 1, name), 3, v), 20, attributeI)
}

func float(name string, v float64) []byte {
	b := protowire.AppendTag(appendText(nil, 1, name), 2, protowire.Fixed32Type)
	return appendInt(protowire.AppendFixed32(b, math.Float32bits(float32(v))), 20, attributeF)
}

func integers(name string, v ...int64) []byte {
	b := appendText(nil, 1, name)
	for _, x := range v {
		b = appendInt(b, 8, x)
	}
	return appendInt(b, 20, attributeInts)
}
