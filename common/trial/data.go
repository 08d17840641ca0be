package trial

import (
	"fmt"
	"strings"
)

// Data is what a run trains and validates on, as one word that goes with its
// first report: the listing of both parts (names, classes and sizes of the
// files), and what was made of them at a size in pixels.
func Data(train, validation string, pixels int, packed string) string {
	return fmt.Sprintf("%.16s.%.16s@%d:%.16s", train, validation, pixels, packed)
}

// SameData reports whether results on two Data can be ranked together. The images
// themselves are compared where both were made at one size: trials may search
// over it. A Data that is not told is no other.
func SameData(a, b string) bool {
	if a == b || a == "" || b == "" {
		return true
	}
	listA, madeA, okA := strings.Cut(a, "@")
	listB, madeB, okB := strings.Cut(b, "@")
	sizeA, _, _ := strings.Cut(madeA, ":")
	sizeB, _, _ := strings.Cut(madeB, ":")
	return okA && okB && listA == listB && sizeA != sizeB
}

// OtherDataText says which trials of a sweep had other data; "" where none had.
func OtherDataText(numbers []int64) string {
	if len(numbers) == 0 {
		return ""
	}
	const shown = 20
	var list []string
	for _, n := range numbers[:min(len(numbers), shown)] {
		list = append(list, fmt.Sprint(n))
	}
	if len(numbers) > shown {
		list = append(list, fmt.Sprintf("and %d more", len(numbers)-shown))
	}
	noun := "trial"
	if len(numbers) > 1 {
		noun = "trials"
	}
	return fmt.Sprintf("the training or validation data changed: %s %s had other data than the sweep's first run, so their values are not comparable", noun, strings.Join(list, ", "))
}
