package space

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

type valueKind uint8

const (
	absent valueKind = iota
	floatValue
	intValue
	stringValue
	boolValue
)

// Value is a float64, an int64, a string, a bool or absent (the zero Value).
// Values are comparable with ==; 0 and -0 are one value.
type Value struct {
	kind valueKind
	bits uint64
	str  string
}

// Float returns a real value. NaN and infinities can be held but neither
// validated nor encoded.
func Float(f float64) Value {
	if f == 0 {
		f = 0 // drops the sign of -0
	}
	return Value{kind: floatValue, bits: math.Float64bits(f)}
}

// Int returns a whole value.
func Int(i int64) Value { return Value{kind: intValue, bits: uint64(i)} }

// String returns a text value.
func String(s string) Value { return Value{kind: stringValue, str: s} }

// Bool returns a truth value.
func Bool(b bool) Value {
	v := Value{kind: boolValue}
	if b {
		v.bits = 1
	}
	return v
}

// IsAbsent reports whether v is the zero Value, that of an inactive parameter.
func (v Value) IsAbsent() bool { return v.kind == absent }

// Float returns the value if it is a float64.
func (v Value) Float() (float64, bool) {
	return math.Float64frombits(v.bits), v.kind == floatValue
}

// Int returns the value if it is an int64.
func (v Value) Int() (int64, bool) { return int64(v.bits), v.kind == intValue }

// Text returns the value if it is a string.
func (v Value) Text() (string, bool) { return v.str, v.kind == stringValue }

// Bool returns the value if it is a bool.
func (v Value) Bool() (value, ok bool) { return v.bits == 1, v.kind == boolValue }

// Number returns a float or int value as a float64.
func (v Value) Number() (float64, bool) {
	switch v.kind {
	case floatValue:
		return math.Float64frombits(v.bits), true
	case intValue:
		return float64(int64(v.bits)), true
	}
	return 0, false
}

// Any returns the value as a Go float64, int64, string or bool, or nil.
func (v Value) Any() any {
	switch v.kind {
	case floatValue:
		return math.Float64frombits(v.bits)
	case intValue:
		return int64(v.bits)
	case stringValue:
		return v.str
	case boolValue:
		return v.bits == 1
	}
	return nil
}

// String returns the value as a JSON literal, null when absent: floats in the
// shortest form that reads back the same.
func (v Value) String() string { return string(v.append(nil)) }

// append writes the JSON literal.
func (v Value) append(b []byte) []byte {
	switch v.kind {
	case floatValue:
		return appendFloat(b, math.Float64frombits(v.bits))
	case intValue:
		return strconv.AppendInt(b, int64(v.bits), 10)
	case stringValue:
		return appendString(b, v.str)
	case boolValue:
		return strconv.AppendBool(b, v.bits == 1)
	}
	return append(b, "null"...)
}

// appendFloat writes f as encoding/json does: shortest digits that round trip.
func appendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	from := len(b)
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if n := len(b); format == 'e' && n-from >= 4 && b[n-4] == 'e' && b[n-2] == '0' {
		b[n-2] = b[n-1] // e-09 to e-9
		b = b[:n-1]
	}
	return b
}

// appendString leaves <, > and & as they are.
func appendString(b []byte, s string) []byte {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return strconv.AppendQuote(b, s)
	}
	return append(b, strings.TrimSuffix(out.String(), "\n")...)
}
