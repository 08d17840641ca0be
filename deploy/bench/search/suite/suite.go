// Package suite holds the problems that the search methods are measured on:
// functions to minimise whose least value is 0 or near it, over spaces of every
// sort. A problem has a variant for each seed, with axes mirrored and categories
// renamed: random search fares the same on all of them, and a method that
// favours a position (the centre, the bounds, the first choice) gains nothing.
package suite

import (
	"fmt"
	"math"
	"math/rand/v2"

	"atelier/common/space"
)

// Problem is one problem of the suite.
type Problem struct {
	Name  string
	Kind  string // continuous, log, integer, categorical, conditional or table
	Space *space.Space
	value func(x arguments) float64
}

// arguments are a point's values by parameter; NaN where inactive. A choice is
// its position.
type arguments struct {
	x []float64 // numbers as they are, choices by position
	u []float64 // in the unit cube
}

// Variant returns the problem's function as a seed has it. It may be called
// from several goroutines at once.
func (p *Problem) Variant(seed uint64) func(space.Point) float64 {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	parents := map[string]bool{} // looked up only
	for _, a := range p.Space.Params {
		for _, c := range a.When {
			parents[c.Parent] = true
		}
	}
	flip := make([]bool, len(p.Space.Params))
	names := make([][]int, len(p.Space.Params))
	for j := range p.Space.Params {
		a := &p.Space.Params[j]
		flip[j] = rng.IntN(2) == 0 && !(a.Kind == space.KindInt && a.Log && len(a.Values) == 0)
		if a.Kind == space.KindCategorical {
			if names[j] = rng.Perm(len(a.Choices)); parents[a.Name] {
				names[j] = nil // conditions speak of its choices by name
			}
		}
	}
	return func(point space.Point) float64 {
		in := arguments{make([]float64, len(point)), p.Space.Unit(point)}
		for j, v := range point {
			a := &p.Space.Params[j]
			switch {
			case v.IsAbsent():
				in.x[j] = math.NaN()
			case a.Kind == space.KindCategorical:
				k, _ := a.Index(v)
				if names[j] != nil {
					k = uint64(names[j][k])
				}
				in.x[j] = float64(k)
			default:
				if flip[j] {
					in.u[j] = 1 - in.u[j]
					v = a.FromUnit(in.u[j])
				}
				in.x[j], _ = v.Number()
			}
		}
		return p.value(in)
	}
}

func float(name string, low, high float64) space.Parameter {
	return space.Parameter{Name: name, Kind: space.KindFloat, Low: low, High: high}
}

func logFloat(name string, low, high float64) space.Parameter {
	return space.Parameter{Name: name, Kind: space.KindFloat, Low: low, High: high, Log: true}
}

func integer(name string, low, high float64) space.Parameter {
	return space.Parameter{Name: name, Kind: space.KindInt, Low: low, High: high}
}

func logInt(name string, low, high float64) space.Parameter {
	return space.Parameter{Name: name, Kind: space.KindInt, Low: low, High: high, Log: true}
}

func listed(name string, values ...float64) space.Parameter {
	p := space.Parameter{Name: name, Kind: space.KindFloat, Low: values[0], High: values[len(values)-1]}
	for _, v := range values {
		p.Values = append(p.Values, space.Float(v))
	}
	return p
}

func choice(name string, choices ...string) space.Parameter {
	p := space.Parameter{Name: name, Kind: space.KindCategorical}
	for _, c := range choices {
		p.Choices = append(p.Choices, space.String(c))
	}
	return p
}

func when(p space.Parameter, parent string, any ...string) space.Parameter {
	c := space.Condition{Parent: parent}
	for _, a := range any {
		c.Any = append(c.Any, space.String(a))
	}
	p.When = append(p.When, c)
	return p
}

func of(params ...space.Parameter) *space.Space { return &space.Space{Params: params} }

func cube(d int, low, high float64) *space.Space {
	s := &space.Space{}
	for i := 0; i < d; i++ {
		s.Params = append(s.Params, float(fmt.Sprintf("x%d", i+1), low, high))
	}
	return s
}

// rotation returns an orthogonal matrix drawn from the seed.
func rotation(d int, seed uint64) [][]float64 {
	rng := rand.New(rand.NewPCG(seed, 77))
	m := make([][]float64, d)
	for i := range m {
		m[i] = make([]float64, d)
		for j := range m[i] {
			m[i][j] = rng.NormFloat64()
		}
		for k := 0; k < i; k++ {
			dot := 0.0
			for j := range m[i] {
				dot += m[i][j] * m[k][j]
			}
			for j := range m[i] {
				m[i][j] -= dot * m[k][j]
			}
		}
		norm := 0.0
		for _, v := range m[i] {
			norm += v * v
		}
		for j := range m[i] {
			m[i][j] /= math.Sqrt(norm)
		}
	}
	return m
}

// about returns z = R (x - at).
func about(r [][]float64, x, at []float64) []float64 {
	z := make([]float64, len(x))
	for i := range z {
		for j := range x {
			z[i] += r[i][j] * (x[j] - at[j])
		}
	}
	return z
}
