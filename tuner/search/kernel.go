package search

import (
	"math"

	"gonum.org/v1/gonum/floats"
)

// gaussian is a Gaussian process with a Matérn 5/2 kernel and one length scale
// an axis (automatic relevance determination). Categorical axes count 1 where
// values differ, 0 where they agree.
//
// Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, ch. 2
// and 5.
type gaussian struct {
	category []bool // by axis
	x        [][]float64
	y        []float64 // standardised

	weight []float64 // inverse squared length scale, by axis
	scale  float64   // kernel variance
	noise  float64   // observation variance

	l     square // Cholesky factor of the covariance of x
	alpha []float64
}

const root5 = 2.23606797749978969640917366873127623544

// difference is the squared distance on one axis.
func (g *gaussian) difference(j int, a, b float64) float64 {
	if g.category[j] {
		if a == b {
			return 0
		}
		return 1
	}
	return (a - b) * (a - b)
}

// matern returns the kernel for a squared distance, per unit variance, and its
// derivative by the squared distance.
func matern(r2 float64) (k, dk float64) {
	r := root5 * math.Sqrt(r2)
	e := math.Exp(-r)
	return (1 + r + r*r/3) * e, -5.0 / 6 * (1 + r) * e
}

// distance is squared, weighted by axis.
func (g *gaussian) distance(a, b []float64) float64 {
	sum := 0.0
	for j, w := range g.weight {
		sum += w * g.difference(j, a[j], b[j])
	}
	return sum
}

// jitter keeps the covariance of points that lie close positive definite.
const jitter = 1e-8

// condition factors the covariance of x under the present parameters.
func (g *gaussian) condition() bool {
	n := len(g.x)
	g.l = newSquare(n)
	for i := 0; i < n; i++ {
		row := g.l.row(i)
		for j := 0; j < i; j++ {
			k, _ := matern(g.distance(g.x[i], g.x[j]))
			row[j] = g.scale * k
		}
		row[i] = g.scale + g.noise + jitter
	}
	if !g.l.cholesky() {
		return false
	}
	g.alpha = append(g.alpha[:0], g.y...)
	g.l.solveLower(g.alpha)
	g.l.solveUpper(g.alpha)
	return true
}

// believing returns a copy that takes open trials for done, each at its
// posterior mean and so many deviations above: the Kriging believer (Ginsbourger,
// Le Riche and Carraro, 2010) with a lie. At 0 the mean stays as it is everywhere
// and the variance round the points is gone; above, later points also keep away
// from open ones.
func (g *gaussian) believing(open []observation, lie float64) *gaussian {
	n, m := len(g.x), len(open)
	if m == 0 {
		return g
	}
	out := *g
	out.x = g.x[:n:n]
	out.l = newSquare(n + m)
	for i := 0; i < n; i++ {
		copy(out.l.row(i), g.l.row(i))
	}
	white := append(make([]float64, 0, n+m), g.y...) // L⁻¹y
	out.l.solveLower(white)
	for k := range open {
		row := out.l.row(n + k)
		for i, x := range out.x {
			c, _ := matern(g.distance(x, open[k].unit))
			row[i] = g.scale * c
		}
		out.l.solveLower(row[:n+k])
		taken := floats.Dot(row[:n+k], row[:n+k])
		row[n+k] = math.Sqrt(math.Max(g.scale+g.noise+jitter-taken, 1e-10))
		white = append(white, lie*math.Sqrt(math.Max(g.scale-taken, 1e-12))/row[n+k])
		out.x = append(out.x, open[k].unit)
	}
	out.l.solveUpper(white)
	out.alpha = white
	return &out
}

// predict returns posterior mean and variance at x, given room for n numbers
// that receives L⁻¹k.
func (g *gaussian) predict(x, v []float64) (mean, variance float64) {
	for i := range g.x {
		k, _ := matern(g.distance(g.x[i], x))
		v[i] = g.scale * k
	}
	mean = floats.Dot(v, g.alpha)
	g.l.solveLower(v)
	return mean, math.Max(g.scale-floats.Dot(v, v), 1e-12)
}

// slope writes the gradients of mean and variance at x; v is what predict left
// and is used up.
func (g *gaussian) slope(x, v, dMean, dVariance []float64) {
	g.l.solveUpper(v) // K⁻¹k
	clear(dMean)
	clear(dVariance)
	for i := range g.x {
		_, dk := matern(g.distance(g.x[i], x))
		dk *= 2 * g.scale
		for j, w := range g.weight {
			if !g.category[j] {
				d := dk * w * (x[j] - g.x[i][j])
				dMean[j] += d * g.alpha[i]
				dVariance[j] -= 2 * d * v[i]
			}
		}
	}
}

// Bounds of the logarithms of the parameters during fitting.
const (
	logWeightLow, logWeightHigh = -7.0, 9.0
	logScaleLow, logScaleHigh   = -4.0, 4.0
	logNoiseLow, logNoiseHigh   = -13.8, 0.0 // 1e-6 to 1
)

// fit chooses the parameters by maximum a posteriori on x and y, always from
// the same start, so that the result is a function of the data alone. The
// priors are those of Optuna's GPSampler: length scales neither tiny nor huge,
// variance near one, noise small.
func (g *gaussian) fit(calls int) {
	d := len(g.category)
	theta, low, high := make([]float64, d+2), make([]float64, d+2), make([]float64, d+2)
	for j := 0; j < d; j++ {
		theta[j], low[j], high[j] = math.Log(2), logWeightLow, logWeightHigh
		if g.category[j] {
			theta[j] = 0
		}
	}
	theta[d], low[d], high[d] = 0, logScaleLow, logScaleHigh
	theta[d+1], low[d+1], high[d+1] = math.Log(1e-4), logNoiseLow, logNoiseHigh
	o := newObjective(g)
	descend(o.evaluate, theta, low, high, calls)
	o.take(theta)
}

// objective is the negative log posterior of the parameters, with its gradient.
type objective struct {
	g            *gaussian
	k, inv, kInv square
	slopes       square // derivative of the kernel by the squared distance
	diffs        [][]float64
	alpha        []float64
}

// newObjective keeps the differences between all points: they do not depend on the parameters.
func newObjective(g *gaussian) *objective {
	n := len(g.x)
	o := &objective{g: g, k: newSquare(n), inv: newSquare(n), kInv: newSquare(n), slopes: newSquare(n), alpha: make([]float64, n)}
	for i := 0; i < n; i++ {
		for l := 0; l < i; l++ {
			row := make([]float64, len(g.category))
			for j := range row {
				row[j] = g.difference(j, g.x[i][j], g.x[l][j])
			}
			o.diffs = append(o.diffs, row)
		}
	}
	return o
}

// take sets the parameters, which are logarithms: all of them are above 0.
func (o *objective) take(theta []float64) {
	d := len(o.g.category)
	o.g.weight = make([]float64, d)
	for j := range o.g.weight {
		o.g.weight[j] = math.Exp(theta[j])
	}
	o.g.scale, o.g.noise = math.Exp(theta[d]), math.Exp(theta[d+1])
}

// evaluate is the negative log posterior of the parameters and its gradient; infinite where the
// covariance has no factor.
func (o *objective) evaluate(theta, gradient []float64) float64 {
	o.take(theta)
	g, n, d := o.g, len(o.g.x), len(o.g.category)
	at := 0
	for i := 0; i < n; i++ {
		row, slopes := o.k.row(i), o.slopes.row(i)
		for l := 0; l < i; l++ {
			k, dk := matern(floats.Dot(g.weight, o.diffs[at]))
			row[l], slopes[l] = g.scale*k, g.scale*dk
			at++
		}
		row[i] = g.scale + g.noise + jitter
	}
	if !o.k.cholesky() {
		return math.Inf(1)
	}
	copy(o.alpha, g.y)
	o.k.solveLower(o.alpha)
	value := 0.5 * floats.Dot(o.alpha, o.alpha)
	o.k.solveUpper(o.alpha)
	for i := 0; i < n; i++ {
		value += math.Log(o.k.row(i)[i])
	}
	o.k.invertLower(o.inv)
	o.inv.gram(o.kInv)

	// d value / d theta = ½ Σ (K⁻¹ - ααᵀ) ∘ dK, by symmetry twice the lower triangle.
	clear(gradient)
	trace, yKy := 0.0, 0.0
	at = 0
	for i := 0; i < n; i++ {
		kInv, slopes := o.kInv.row(i), o.slopes.row(i)
		for l := 0; l < i; l++ {
			w := (kInv[l] - o.alpha[i]*o.alpha[l]) * slopes[l]
			floats.AddScaled(gradient[:d], w, o.diffs[at])
			at++
		}
		trace += kInv[i]
		yKy += o.alpha[i] * o.alpha[i]
	}
	whole := float64(n) - floats.Dot(g.y, o.alpha) // ½Σ(...)∘K = ½(n - yᵀα)
	shift := trace - yKy
	gradient[d] = 0.5 * (whole - (g.noise+jitter)*shift)
	gradient[d+1] = 0.5 * g.noise * shift
	for j, w := range g.weight {
		gradient[j] *= w
		value += 0.1/w + 0.1*w
		gradient[j] += -0.1/w + 0.1*w
	}
	value -= math.Log(g.scale) - g.scale
	gradient[d] -= 1 - g.scale
	value -= 0.1*math.Log(g.noise) - 30*g.noise
	gradient[d+1] -= 0.1 - 30*g.noise
	return value
}
