package landscape

import (
	"math"
	"math/rand/v2"
)

// kernels is kernel ridge regression of Friedman's function, 80 examples.
func kernels() Table {
	x, y := friedman(80, rand.New(rand.NewPCG(1, 3)))
	vx, vy := friedman(200, rand.New(rand.NewPCG(2, 3)))
	mean := 0.0
	for _, v := range y {
		mean += v / float64(len(y))
	}
	return Table{
		Name: "kernels",
		Axes: []Axis{
			{Name: "gamma", Values: powers(10, -3, 2, 21)},
			{Name: "ridge", Values: powers(10, -6, 2, 17)},
			{Name: "kernel", Values: positions(3), Words: []string{"gaussian", "laplace", "cubic"}},
			{Name: "scale", Values: []float64{0.25, 0.5, 1, 2}}, // of the last five inputs
		},
		train: func(s []float64) float64 {
			k := func(a, b []float64) float64 { return kernel(int(s[2]), a, b, s[0], s[3]) }
			n := len(x)
			m := make([][]float64, n)
			alpha := make([]float64, n)
			for i := range m {
				m[i] = make([]float64, n)
				for j := 0; j <= i; j++ {
					m[i][j] = k(x[i], x[j])
				}
				m[i][i] += s[1]
				alpha[i] = y[i] - mean
			}
			if !solve(m, alpha) {
				return 20
			}
			sum := 0.0
			for i := range vx {
				guess := mean
				for j := range x {
					guess += alpha[j] * k(vx[i], x[j])
				}
				sum += (vy[i] - guess) * (vy[i] - guess)
			}
			return math.Min(20, math.Sqrt(sum/float64(len(vx))))
		},
	}
}

func kernel(kind int, a, b []float64, gamma, scale float64) float64 {
	squares, dot := 0.0, 0.0
	for j := range a {
		w := 1.0
		if j >= 5 {
			w = scale
		}
		squares += w * w * (a[j] - b[j]) * (a[j] - b[j])
		dot += w * w * (a[j] - 0.5) * (b[j] - 0.5)
	}
	switch kind {
	case 0:
		return math.Exp(-gamma * squares)
	case 1:
		return math.Exp(-gamma * math.Sqrt(squares))
	}
	v := 1 + gamma*dot
	return v * v * v
}

// solve solves m x = b for a symmetric m given by its lower triangle, in place.
func solve(m [][]float64, b []float64) bool {
	for i := range m {
		for j := 0; j <= i; j++ {
			v := m[i][j]
			for k := 0; k < j; k++ {
				v -= m[i][k] * m[j][k]
			}
			if i > j {
				m[i][j] = v / m[j][j]
			} else if v <= 0 {
				return false
			} else {
				m[i][i] = math.Sqrt(v)
			}
		}
	}
	for i := range b {
		for k := 0; k < i; k++ {
			b[i] -= m[i][k] * b[k]
		}
		b[i] /= m[i][i]
	}
	for i := len(b) - 1; i >= 0; i-- {
		for k := i + 1; k < len(b); k++ {
			b[i] -= m[k][i] * b[k]
		}
		b[i] /= m[i][i]
	}
	return true
}
