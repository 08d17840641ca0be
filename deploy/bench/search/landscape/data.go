// Package landscape trains small models for every setting of a grid: what it
// measures are the tables of the suite, landscapes of real trainings with their
// noise, plateaus and interactions.
package landscape

import (
	"math"
	"math/rand/v2"
)

// Table is a grid of settings and the validation error of each.
type Table struct {
	Name  string
	Axes  []Axis
	train func(setting []float64) float64
}

// Axis is one hyperparameter and its values, ascending unless Words names them.
type Axis struct {
	Name   string
	Values []float64
	Words  []string // of a choice; Values are then its positions
}

// Tables lists the landscapes.
func Tables() []Table { return []Table{network(), boosting(), kernels()} }

// Size is the number of settings.
func (t Table) Size() int {
	n := 1
	for _, a := range t.Axes {
		n *= len(a.Values)
	}
	return n
}

// Value trains setting k; the last axis runs fastest.
func (t Table) Value(k int) float64 {
	setting := make([]float64, len(t.Axes))
	for j := len(t.Axes) - 1; j >= 0; j-- {
		a := t.Axes[j].Values
		setting[j] = a[k%len(a)]
		k /= len(a)
	}
	return t.train(setting)
}

func positions(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(i)
	}
	return out
}

func powers(base float64, low, high float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		e := low + (high-low)*float64(i)/float64(n-1)
		out[i] = math.Pow(base, e)
	}
	return out
}

// classes draws points round three bent ridges a class, in d dimensions.
func classes(n, d, kinds int, rng *rand.Rand, layout uint64) (x [][]float64, y []int) {
	shape := rand.New(rand.NewPCG(layout, 3))
	middles := make([][]float64, 3*kinds)
	bend := make([][]float64, 3*kinds)
	for i := range middles {
		middles[i], bend[i] = make([]float64, d), make([]float64, d)
		for j := range middles[i] {
			middles[i][j], bend[i][j] = shape.NormFloat64(), 0.8*shape.NormFloat64()
		}
	}
	for i := 0; i < n; i++ {
		k := rng.IntN(len(middles))
		t := rng.Float64()*2 - 1
		p := make([]float64, d)
		for j := range p {
			p[j] = middles[k][j] + bend[k][j]*t + 0.4*bend[k][(j+1)%d]*t*t + 0.45*rng.NormFloat64()
		}
		x, y = append(x, p), append(y, k%kinds)
	}
	return x, y
}

// friedman draws the regression of Friedman (1991): ten inputs, five of them
// noise.
func friedman(n int, rng *rand.Rand) (x [][]float64, y []float64) {
	for i := 0; i < n; i++ {
		p := make([]float64, 10)
		for j := range p {
			p[j] = rng.Float64()
		}
		x = append(x, p)
		y = append(y, 10*math.Sin(math.Pi*p[0]*p[1])+20*(p[2]-0.5)*(p[2]-0.5)+10*p[3]+5*p[4]+rng.NormFloat64())
	}
	return x, y
}
