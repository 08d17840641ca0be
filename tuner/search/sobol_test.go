package search

import (
	"fmt"
	"testing"

	"atelier/common/space"
)

// The design at the engine's last dimension, and beyond it.
func TestSobolAtItsBound(t *testing.T) {
	for axes := 21198; axes <= 21202; axes++ {
		s := &space.Space{Params: make([]space.Parameter, axes)}
		for i := range s.Params {
			s.Params[i] = space.Parameter{Name: fmt.Sprint("x", i), Kind: space.KindFloat, High: 1}
		}
		d := newDesign(s, 1)
		first, third := d.unit(0), d.unit(2)
		if len(first) != axes || len(third) != axes {
			t.Fatalf("%d axes: points of %d and %d", axes, len(first), len(third))
		}
		for j := range first {
			if first[j] == third[j] || !(third[j] > 0 && third[j] < 1) {
				t.Fatalf("%d axes: axis %d stands at %g, then at %g", axes, j, first[j], third[j])
			}
		}
		// A sequence halves every axis: point 1 lies in the other half. Random draws
		// do so for half of the axes.
		opposite := 0
		for j, u := range d.unit(1) {
			if (u < 0.5) != (first[j] < 0.5) {
				opposite++
			}
		}
		if sequence := axes <= maxSobolDim; sequence != (opposite == axes) {
			t.Errorf("%d axes: %d in the other half", axes, opposite)
		}
	}
}
