package space

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// MaxParams bounds the number of parameters of a space.
const MaxParams = 1000

// Fault is one thing wrong with a space. Param is the parameter's name and
// Field the field at fault (low, high, log, step, values, choices, when, name).
type Fault struct {
	Param, Field, Message string
}

func (f Fault) Error() string {
	if f.Param == "" {
		return f.Message
	}
	return fmt.Sprintf("%s: %s: %s", f.Param, f.Field, f.Message)
}

// Validate reports everything that is wrong with the space, as joined Faults.
func (s *Space) Validate() error {
	var faults []error
	for _, f := range s.Faults() {
		faults = append(faults, f)
	}
	return errors.Join(faults...)
}

// Faults lists everything that is wrong with the space.
func (s *Space) Faults() []Fault {
	if len(s.Params) == 0 {
		return []Fault{{Message: "the space has no parameter; give at least one"}}
	}
	if len(s.Params) > MaxParams {
		return []Fault{{Message: fmt.Sprintf("the space has %d parameters; the limit is %d", len(s.Params), MaxParams)}}
	}
	var faults []Fault
	for i := range s.Params {
		a := &s.Params[i]
		add := func(field, format string, args ...any) {
			faults = append(faults, Fault{a.Name, field, fmt.Sprintf(format, args...)})
		}
		switch first, ok := s.Lookup(a.Name); {
		case a.Name == "" || !utf8.ValidString(a.Name):
			add("name", "a parameter needs a name in valid UTF-8")
		case ok && first < i:
			add("name", "appears twice in the space")
		}
		switch a.Kind {
		case KindFloat, KindInt:
			a.validateNumber(add)
		case KindCategorical:
			a.validateChoices(add)
		default:
			add("type", "unknown kind %d", a.Kind)
		}
		s.validateConditions(i, add)
	}
	if len(faults) == 0 {
		if _, err := s.Enumerate(); errors.Is(err, errEntangled) {
			faults = append(faults, Fault{Message: err.Error()})
		}
	}
	return faults
}

// addFault records a fault of one field of a parameter.
type addFault func(field, format string, args ...any)

// validateNumber stops where a further fault would only follow from the first.
func (a *Parameter) validateNumber(add addFault) {
	finite := func(field string, f float64) bool {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			add(field, "is %v; give a finite number", f)
			return false
		}
		return true
	}
	if !finite("low", a.Low) || !finite("high", a.High) || !finite("step", a.Step) {
		return
	}
	if len(a.Choices) > 0 {
		add("choices", "only a categorical parameter has choices; a number takes values")
	}
	if a.Low > a.High {
		add("low", "%s is above high %s; swap them", Float(a.Low), Float(a.High))
		return
	}
	if math.IsInf(a.High-a.Low, 0) {
		add("high", "the range from low to high is too wide for a float64")
		return
	}
	if a.Log && a.Low <= 0 {
		add("low", "a log scale needs low above 0, not %s", Float(a.Low))
	}
	if a.Kind == KindInt {
		for _, b := range []struct {
			field string
			f     float64
		}{{"low", a.Low}, {"high", a.High}, {"step", a.Step}} {
			if b.f != math.Trunc(b.f) {
				add(b.field, "%s is not a whole number, which type int needs", Float(b.f))
			} else if math.Abs(b.f) > maxExact {
				add(b.field, "%s is beyond ±2^53", Float(b.f))
			}
		}
	}
	switch {
	case a.Step < 0:
		add("step", "%s is negative", Float(a.Step))
	case a.Step > 0 && a.Log && !(a.Kind == KindInt && a.Step == 1):
		add("step", "a log scale takes no step; give steps (a number of points) or values")
	case a.Step > 0 && a.Kind == KindFloat && (a.High-a.Low)/a.Step > maxExact:
		add("step", "%s is too fine for the range", Float(a.Step))
	case a.Step > 0 && len(a.Values) > 0:
		add("step", "values name every allowed value already; drop one of the two")
	}
	a.validateValues(add)
}

// validateValues wants values in ascending order, so that a value's number is known by search.
func (a *Parameter) validateValues(add addFault) {
	before := math.Inf(-1)
	for i, v := range a.Values {
		f, ok := v.Number()
		switch {
		case !ok || (a.Kind == KindInt) != (v.kind == intValue):
			add("values", "item %d, %s, is no %s", i+1, v, a.Kind)
			return
		case math.IsNaN(f) || math.IsInf(f, 0):
			add("values", "item %d is %v; give finite numbers", i+1, f)
			return
		case f == before:
			add("values", "%s appears twice", v)
			return
		case f < before:
			add("values", "must ascend, but %s follows %s", v, Float(before))
			return
		case f < a.Low || f > a.High:
			add("values", "%s is outside [%s, %s]", v, Float(a.Low), Float(a.High))
			return
		}
		before = f
	}
}

// validateChoices tells choices apart by how they are written, as points are.
func (a *Parameter) validateChoices(add addFault) {
	if len(a.Choices) == 0 {
		add("choices", "is empty; give at least one choice")
	}
	if a.Log || a.Step != 0 || len(a.Values) > 0 || a.Low != 0 || a.High != 0 {
		add("choices", "a categorical parameter takes choices only, no low, high, log, step or values")
	}
	seen := make(map[string]bool, len(a.Choices))
	for i, c := range a.Choices {
		if f, ok := c.Number(); c.IsAbsent() || ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			add("choices", "item %d is %v; give finite numbers, strings or bools", i+1, c.Any())
			continue
		}
		if t, ok := c.Text(); ok && !utf8.ValidString(t) {
			add("choices", "item %d is not valid UTF-8", i+1)
			continue
		}
		if seen[c.String()] {
			add("choices", "%s appears twice", c)
		}
		seen[c.String()] = true
	}
}

// validateConditions wants parents before their children: then one pass decides what is active, and
// no cycle can be.
func (s *Space) validateConditions(i int, add addFault) {
	for _, c := range s.Params[i].When {
		parent, ok := s.Lookup(c.Parent)
		switch {
		case !ok:
			add("when", "names %q, which is not a parameter of the space", c.Parent)
			continue
		case parent >= i:
			add("when", "refers to %q, which does not come before it; move %q up", c.Parent, c.Parent)
			continue
		case s.Params[parent].Kind != KindCategorical:
			add("when", "names %q, which is %s; a condition needs a categorical parameter", c.Parent, s.Params[parent].Kind)
			continue
		}
		if len(c.Any) == 0 {
			add("when", "lists no value of %q", c.Parent)
		}
		choices := make(map[Value]bool, len(s.Params[parent].Choices)) // looked up only
		for _, v := range s.Params[parent].Choices {
			choices[v] = true
		}
		for _, v := range c.Any {
			if !choices[v] {
				add("when", "%s is not one of the choices of %q", v, c.Parent)
			}
		}
	}
}
