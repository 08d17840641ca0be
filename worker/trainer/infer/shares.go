//go:build libtorch

package infer

import (
	"fmt"
	"strconv"
	"strings"

	"atelier/worker/trainer/score"
)

// bestColumns is how many classes of an image predictions.csv holds where it
// cannot hold all.
const bestColumns = 10

// shareColumns are the columns of an image's shares: a class each, or, beyond
// score.DenseClasses, the best classes with theirs.
func shareColumns(classes []string) []string {
	if len(classes) <= score.DenseClasses {
		return classes
	}
	var columns []string
	for i := range bestColumns {
		columns = append(columns, fmt.Sprintf("class_%d", i+1), fmt.Sprintf("share_%d", i+1))
	}
	return columns
}

func shareCells(classes []string, probs []float64) (cells []string) {
	if len(classes) <= score.DenseClasses {
		for _, p := range probs {
			cells = append(cells, strconv.FormatFloat(p, 'g', -1, 64))
		}
		return cells
	}
	for _, c := range topOf(probs, bestColumns) {
		cells = append(cells, classes[c], strconv.FormatFloat(probs[c], 'g', -1, 64))
	}
	return cells
}

// first names the first of many classes.
func first(names []string) string {
	const most = 20
	if n := len(names); n > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(names, ", ")
}
