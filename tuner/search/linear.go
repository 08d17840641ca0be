package search

import (
	"math"

	"gonum.org/v1/gonum/floats"
)

// square is a row-major n by n matrix whose rows gonum's vector kernels work
// on. For the sizes of a tuning history (up to a few hundred) this beats
// gonum's blocked LAPACK, which is made for larger ones.
type square struct {
	n    int
	data []float64
}

// newSquare is a matrix of zeros.
func newSquare(n int) square { return square{n, make([]float64, n*n)} }

// row is row i, not copied.
func (m square) row(i int) []float64 { return m.data[i*m.n : (i+1)*m.n] }

// cholesky overwrites the lower triangle of m with L, m = L Lᵀ. It reports
// whether m is positive definite.
func (m square) cholesky() bool {
	for i := 0; i < m.n; i++ {
		ri := m.row(i)
		for j := 0; j < i; j++ {
			rj := m.row(j)
			ri[j] = (ri[j] - floats.Dot(ri[:j], rj[:j])) / rj[j]
		}
		d := ri[i] - floats.Dot(ri[:i], ri[:i])
		if !(d > 0) {
			return false
		}
		ri[i] = math.Sqrt(d)
	}
	return true
}

// invertLower writes the inverse of the lower triangular m into out.
func (m square) invertLower(out square) {
	for i := 0; i < m.n; i++ {
		mi, oi := m.row(i), out.row(i)
		clear(oi)
		for k := 0; k < i; k++ {
			floats.AddScaled(oi[:k+1], -mi[k], out.row(k)[:k+1])
		}
		floats.Scale(1/mi[i], oi[:i])
		oi[i] = 1 / mi[i]
	}
}

// gram writes the lower triangle of mᵀ m into out, m lower triangular.
func (m square) gram(out square) {
	clear(out.data)
	for k := 0; k < m.n; k++ {
		mk := m.row(k)
		for i := 0; i <= k; i++ {
			floats.AddScaled(out.row(i)[:i+1], mk[i], mk[:i+1])
		}
	}
}

// solveLower solves m x = b for lower triangular m, in place.
func (m square) solveLower(b []float64) {
	for i := range b {
		r := m.row(i)
		b[i] = (b[i] - floats.Dot(r[:i], b[:i])) / r[i]
	}
}

// solveUpper solves mᵀ x = b for lower triangular m, in place.
func (m square) solveUpper(b []float64) {
	for i := len(b) - 1; i >= 0; i-- {
		r := m.row(i)
		b[i] /= r[i]
		floats.AddScaled(b[:i], -b[i], r[:i])
	}
}
