// Package space holds the search space of a sweep: ordered parameters, their
// scales, conditions and points, and the one JSON form in which a point is
// stored, sent and shown.
//
// It refuses maps: parameters and points are slices in the order of the spec,
// so that no map order can reach a log, a hash or a random stream. It draws no
// random numbers and knows no search method.
package space

// Kind says what values a parameter takes.
type Kind uint8

const (
	KindFloat       Kind = iota + 1 // real numbers in [Low, High]
	KindInt                         // whole numbers in [Low, High]
	KindCategorical                 // one of Choices, without order
)

func (k Kind) String() string {
	switch k {
	case KindFloat:
		return "float"
	case KindInt:
		return "int"
	case KindCategorical:
		return "categorical"
	}
	return "unknown kind"
}

// Condition holds where the parameter Parent is active and its value is one of
// Any. Parent is an earlier, categorical parameter of the same space.
type Condition struct {
	Parent string
	Any    []Value
}

// Parameter is one axis of a space. Which fields count depends on Kind:
// numbers use Low, High (both included), Log, Step and Values; a categorical
// parameter uses Choices.
type Parameter struct {
	Name string
	Kind Kind

	Low, High float64 // included; of an int parameter whole and within ±2^53
	Log       bool    // the axis is even in the logarithm; needs Low > 0
	Step      float64 // distance of the allowed values from Low on; 0 = any (float) or 1 (int)
	Values    []Value // when not empty: the only values a number may take, ascending within [Low, High]

	Choices []Value // of a categorical parameter: distinct numbers, strings or bools

	When []Condition // all must hold, else the parameter is inactive
}

// Space is the set of points a sweep may try.
type Space struct{ Params []Parameter }

// Point is one value a parameter, aligned with Space.Params; absent where the
// parameter is inactive.
type Point []Value

// Lookup returns the position of the named parameter.
func (s *Space) Lookup(name string) (int, bool) {
	for i := range s.Params {
		if s.Params[i].Name == name {
			return i, true
		}
	}
	return -1, false
}

// Active reports whether parameter i is active at p; only values of earlier
// parameters count.
func (s *Space) Active(p Point, i int) bool {
	for _, c := range s.Params[i].When {
		parent, ok := s.Lookup(c.Parent)
		if !ok || parent >= i || parent >= len(p) || !contains(c.Any, p[parent]) {
			return false
		}
	}
	return true
}

// Canonical returns a copy of p in which inactive parameters are absent. Two
// points are the same trial exactly when their canonical forms are equal.
func (s *Space) Canonical(p Point) Point {
	out := make(Point, len(s.Params))
	copy(out, p)
	for i := range s.Params {
		if len(s.Params[i].When) > 0 && !s.Active(out, i) {
			out[i] = Value{}
		}
	}
	return out
}

// Conditional reports whether any parameter has a condition.
func (s *Space) Conditional() bool {
	for i := range s.Params {
		if len(s.Params[i].When) > 0 {
			return true
		}
	}
	return false
}

func contains(values []Value, v Value) bool {
	if v.IsAbsent() {
		return false
	}
	for _, w := range values {
		if w == v {
			return true
		}
	}
	return false
}

// Equal reports whether two points hold the same values.
func (p Point) Equal(q Point) bool {
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != q[i] {
			return false
		}
	}
	return true
}

// Clone returns a copy that shares nothing with p.
func (p Point) Clone() Point { return append(Point(nil), p...) }
