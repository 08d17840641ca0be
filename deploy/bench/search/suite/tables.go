package suite

import (
	"embed"
	"fmt"
	"math"
	"strconv"
	"strings"

	"atelier/common/space"
	"atelier/deploy/bench/search/landscape"
)

// A table is a text file: the validation error of every setting of the grid in
// the landscape of its name, one a line, the last axis fastest.
//
//go:embed tables
var files embed.FS

func tables() []Problem {
	var out []Problem
	for _, t := range landscape.Tables() {
		out = append(out, Problem{t.Name, "table", grid(t, t.Name == "kernels"), lookup(t, Recorded(t))})
	}
	return out
}

// Recorded returns the values on file, in the order of the settings.
func Recorded(t landscape.Table) []float64 {
	text, err := files.ReadFile("tables/" + t.Name + ".txt")
	if err != nil {
		panic(err) // it is part of the program
	}
	var values []float64
	for _, line := range strings.Fields(string(text)) {
		v, err := strconv.ParseFloat(line, 64)
		if err != nil {
			panic(fmt.Errorf("table %s: %w", t.Name, err))
		}
		values = append(values, v)
	}
	return values
}

// grid is a table's space: listed values, or with open set ranges whose numbers
// count as the nearest listed value.
func grid(t landscape.Table, open bool) *space.Space {
	s := &space.Space{}
	for _, a := range t.Axes {
		low, high := a.Values[0], a.Values[len(a.Values)-1]
		switch {
		case a.Words != nil:
			s.Params = append(s.Params, choice(a.Name, a.Words...))
		case open && low > 0 && high > 100*low:
			s.Params = append(s.Params, logFloat(a.Name, low, high))
		default:
			p := listed(a.Name, a.Values...)
			p.Log = low > 0 && high > 100*low
			s.Params = append(s.Params, p)
		}
	}
	return s
}

func lookup(t landscape.Table, values []float64) func(arguments) float64 {
	least := math.Inf(1)
	for _, v := range values {
		least = math.Min(least, v)
	}
	return func(in arguments) float64 {
		at := 0
		for j, a := range t.Axes {
			nearest := 0
			for i, v := range a.Values {
				if distance(v, in.x[j]) < distance(a.Values[nearest], in.x[j]) {
					nearest = i
				}
			}
			at = at*len(a.Values) + nearest
		}
		return values[at] - least
	}
}

// distance is a ratio where both are positive.
func distance(a, b float64) float64 {
	if a > 0 && b > 0 {
		return math.Abs(math.Log(a / b))
	}
	return math.Abs(a - b)
}
