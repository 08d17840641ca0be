package mlflow

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// python writes a number as Python's repr does: the shortest digits that give
// the same number, an exponent from 1e16 on and below 1e-4.
func python(v float64) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// parsePython reads what python writes, and integers.
func parsePython(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", cut(s, 40))
	}
	return v, nil
}
