package space

import (
	"fmt"
	"math"
	"sort"
	"strconv"
)

// maxExact is the largest whole number up to which every one has a float64.
const maxExact = 1 << 53

// Cells returns how many values the parameter can take; finite is false for a
// float without step or values.
func (a *Parameter) Cells() (n uint64, finite bool) {
	switch {
	case a.Kind == KindCategorical:
		return uint64(len(a.Choices)), true
	case len(a.Values) > 0:
		return uint64(len(a.Values)), true
	case a.Low == a.High:
		return 1, true
	case a.Kind == KindInt:
		return uint64((int64(a.High)-int64(a.Low))/a.intStep()) + 1, true
	case a.Step > 0:
		return uint64(math.Floor((a.High-a.Low)/a.Step+1e-9)) + 1, true
	}
	return 0, false
}

// intStep is the distance of ints, 1 where none is given.
func (a *Parameter) intStep() int64 {
	if a.Step >= 1 {
		return int64(a.Step)
	}
	return 1
}

// At returns value i of a finite parameter, ascending for numbers, in the
// order of Choices else; i is below Cells.
func (a *Parameter) At(i uint64) Value {
	switch {
	case a.Kind == KindCategorical:
		return a.Choices[i]
	case len(a.Values) > 0:
		return a.Values[i]
	case a.Kind == KindInt:
		return Int(int64(a.Low) + int64(i)*a.intStep())
	case i == 0:
		return Float(a.Low)
	}
	f := tidy(a.Low + float64(i)*a.Step)
	if f > a.High || a.High-f < 1e-6*a.Step { // the last step is meant to land on High
		f = a.High
	}
	return Float(f)
}

// tidy drops the rounding noise of a step (0.30000000000000004) from f.
func tidy(f float64) float64 {
	t, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 15, 64), 64)
	if err != nil {
		return f
	}
	return t
}

// Index returns the position of v among the values of a finite parameter.
func (a *Parameter) Index(v Value) (uint64, bool) {
	n, finite := a.Cells()
	if !finite || v.IsAbsent() {
		return 0, false
	}
	switch {
	case a.Kind == KindCategorical:
		for i, c := range a.Choices {
			if c == v {
				return uint64(i), true
			}
		}
		return 0, false
	case len(a.Values) > 0:
		f, ok := v.Number()
		if !ok {
			return 0, false
		}
		i := sort.Search(len(a.Values), func(i int) bool {
			w, _ := a.Values[i].Number()
			return w >= f
		})
		return uint64(i), i < len(a.Values) && a.Values[i] == v
	}
	f, ok := v.Number()
	if !ok || !(f >= a.Low && f <= a.High) {
		return 0, false
	}
	i := a.nearestIndex(f, n)
	return i, a.At(i) == v
}

// nearestIndex is for ints and stepped floats without Values.
func (a *Parameter) nearestIndex(f float64, n uint64) uint64 {
	if n <= 1 || !(f > a.Low) {
		return 0
	}
	step := a.Step
	if a.Kind == KindInt {
		step = float64(a.intStep())
	}
	i := math.Round((f - a.Low) / step)
	if i >= float64(n-1) {
		return n - 1
	}
	return uint64(i)
}

// Nearest returns the parameter's value that is nearest to the number f, on
// the parameter's scale. A categorical parameter takes f as an index.
func (a *Parameter) Nearest(f float64) Value {
	if math.IsNaN(f) {
		f = a.Low
	}
	n, finite := a.Cells()
	switch {
	case a.Kind == KindCategorical:
		return a.Choices[int(math.Max(0, math.Min(math.Round(f), float64(n-1))))]
	case len(a.Values) > 0:
		return a.Values[a.nearestListed(f)]
	case finite:
		return a.At(a.nearestIndex(f, n))
	}
	return Float(math.Max(a.Low, math.Min(a.High, f)))
}

// nearestListed is the listed value next to f, on the parameter's scale; the lower of two that are
// as near.
func (a *Parameter) nearestListed(f float64) int {
	at := func(i int) float64 { w, _ := a.Values[i].Number(); return w }
	i := sort.Search(len(a.Values), func(i int) bool { return at(i) >= f })
	if i == 0 {
		return 0
	}
	if i == len(a.Values) {
		return i - 1
	}
	below, above := f-at(i-1), at(i)-f
	if a.Log && f > 0 {
		below, above = math.Log(f/at(i-1)), math.Log(at(i)/f)
	}
	if below <= above {
		return i - 1
	}
	return i
}

// snap returns the allowed value that f stands for up to rounding.
func (a *Parameter) snap(f float64) (Value, bool) {
	if _, finite := a.Cells(); !finite || a.Kind == KindCategorical {
		return Value{}, false
	}
	v := a.Nearest(f)
	w, _ := v.Number()
	return v, math.Abs(w-f) <= 1e-12*math.Max(math.Abs(w), math.Abs(f))
}

// FromUnit maps u in [0, 1] to a value: even over the scale for floats, even
// over the cells for everything finite (log ints: cells even in the logarithm).
func (a *Parameter) FromUnit(u float64) Value {
	if math.IsNaN(u) {
		u = 0.5
	}
	u = math.Max(0, math.Min(1, u))
	n, finite := a.Cells()
	if finite && a.evenCells() {
		return a.At(uint64(math.Min(math.Floor(u*float64(n)), float64(n-1))))
	}
	if finite { // an int on a log scale
		low, width := a.logIntRange()
		return a.Nearest(math.Exp(low + u*width))
	}
	if a.Log {
		low, high := math.Log(a.Low), math.Log(a.High)
		return Float(math.Max(a.Low, math.Min(a.High, math.Exp(low+u*(high-low)))))
	}
	return Float(math.Max(a.Low, math.Min(a.High, a.Low+u*(a.High-a.Low))))
}

// ToUnit maps a value to [0, 1] so that FromUnit gives it back: the middle of
// its cell for finite parameters. An absent or foreign value gives 0.5.
func (a *Parameter) ToUnit(v Value) float64 {
	n, finite := a.Cells()
	if finite && a.evenCells() {
		if i, ok := a.Index(v); ok {
			return (float64(i) + 0.5) / float64(n)
		}
		return 0.5
	}
	f, ok := v.Number()
	if !ok || !(f >= a.Low && f <= a.High) {
		return 0.5
	}
	switch {
	case finite:
		low, width := a.logIntRange()
		return (math.Log(f) - low) / width
	case a.Log:
		low, high := math.Log(a.Low), math.Log(a.High)
		return (math.Log(f) - low) / (high - low)
	}
	return (f - a.Low) / (a.High - a.Low)
}

// evenCells reports whether the values share [0, 1] evenly; an int on a log scale
// gives small numbers more room.
func (a *Parameter) evenCells() bool {
	return !(a.Kind == KindInt && a.Log && len(a.Values) == 0 && a.Low != a.High)
}

// logIntRange gives the first and last int as much room as the others: half a step beyond each end.
func (a *Parameter) logIntRange() (low, width float64) {
	low = math.Log(a.Low - 0.5)
	return low, math.Log(a.High+0.5) - low
}

// Unit maps a point to the unit cube, one coordinate a parameter; inactive
// parameters stand at 0.5.
func (s *Space) Unit(p Point) []float64 {
	u := make([]float64, len(s.Params))
	for i := range u {
		u[i] = 0.5
		if i < len(p) && !p[i].IsAbsent() {
			u[i] = s.Params[i].ToUnit(p[i])
		}
	}
	return u
}

// FromUnit maps the unit cube to canonical points.
func (s *Space) FromUnit(u []float64) Point {
	p := make(Point, len(s.Params))
	for i := range p {
		if s.Active(p, i) {
			p[i] = s.Params[i].FromUnit(u[i])
		}
	}
	return p
}

// Check reports whether p is a canonical point of the space: every active
// parameter has an allowed value of its type, every inactive one has none.
func (s *Space) Check(p Point) error {
	if len(p) != len(s.Params) {
		return fmt.Errorf("point has %d values, the space has %d parameters", len(p), len(s.Params))
	}
	for i := range p {
		a := &s.Params[i]
		if !s.Active(p, i) {
			if !p[i].IsAbsent() {
				return fmt.Errorf("%q has a value although its condition is not met", a.Name)
			}
			continue
		}
		if err := a.check(p[i]); err != nil {
			return fmt.Errorf("%q: %w", a.Name, err)
		}
	}
	return nil
}

// check refuses a value of another kind even if it is the same number: what a trainer gets must not
// hang on how a point was written.
func (a *Parameter) check(v Value) error {
	if v.IsAbsent() {
		return fmt.Errorf("has no value")
	}
	if a.Kind == KindCategorical {
		if _, ok := a.Index(v); !ok {
			return fmt.Errorf("%s is not one of the choices", v)
		}
		return nil
	}
	f, ok := v.Number()
	if !ok || (a.Kind == KindInt) != (v.kind == intValue) {
		return fmt.Errorf("%s is no %s", v, a.Kind)
	}
	if !(f >= a.Low && f <= a.High) {
		return fmt.Errorf("%s is outside [%s, %s]", v, Float(a.Low), Float(a.High))
	}
	if _, finite := a.Cells(); finite {
		if _, ok := a.Index(v); !ok {
			return fmt.Errorf("%s is not one of the allowed values (step or values)", v)
		}
	}
	return nil
}
