//go:build libtorch

package infer

import (
	"fmt"
	"slices"
	"testing"
)

// A table of many classes holds each image's best, not a column a class.
func TestSharesOfManyClasses(t *testing.T) {
	few := []string{"brick", "glass"}
	if got := append(shareColumns(few), shareCells(few, []float64{0.25, 0.75})...); !slices.Equal(got, []string{"brick", "glass", "0.25", "0.75"}) {
		t.Errorf("two classes: %v", got)
	}
	var many []string
	probs := make([]float64, 1500)
	for i := range probs {
		many = append(many, fmt.Sprintf("c%d", i))
		probs[i] = float64(i)
	}
	columns, cells := shareColumns(many), shareCells(many, probs)
	if len(columns) != 20 || columns[0] != "class_1" || columns[1] != "share_1" || len(cells) != 20 || cells[0] != "c1499" || cells[1] != "1499" || cells[18] != "c1490" {
		t.Errorf("1,500 classes: %v %v", columns, cells)
	}
	if text := first(many); len(text) > 200 {
		t.Errorf("a message of %d bytes", len(text))
	}
}
