package search

import "math"

// descend minimises f from x within [low, high] by projected L-BFGS: axes that
// rest on a bound and push outwards are held. f returns the value and writes
// the gradient. It stops after calls evaluations or when nothing moves; x ends
// at the best point found.
func descend(f func(x, gradient []float64) float64, x, low, high []float64, calls int) float64 {
	const memory = 8
	n := len(x)
	g, gNew, xNew, dir := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var ss, ys [][]float64
	value := f(x, g)
	if math.IsNaN(value) {
		return math.Inf(1)
	}
	held := make([]bool, n)
	for calls--; calls > 0; {
		slope := 0.0
		for i := range x {
			held[i] = x[i] <= low[i] && g[i] > 0 || x[i] >= high[i] && g[i] < 0
			dir[i] = 0
			if !held[i] {
				dir[i] = -g[i]
			}
		}
		twoLoop(dir, ss, ys, held)
		largest := 0.0
		for i := range dir {
			slope += dir[i] * g[i]
			largest = math.Max(largest, math.Abs(dir[i]))
		}
		if !(slope < 0) {
			if len(ss) == 0 {
				return value
			}
			ss, ys = nil, nil // start over from steepest descent
			continue
		}
		step := 1.0
		if len(ss) == 0 { // nothing known of the scale yet
			reach := math.Inf(1)
			for i := range x {
				reach = math.Min(reach, high[i]-low[i])
			}
			step = 0.1 * reach / largest
		}
		moved := false
		for try := 0; try < 12 && calls > 0; try++ {
			change, decrease := 0.0, 0.0
			for i := range x {
				xNew[i] = math.Max(low[i], math.Min(high[i], x[i]+step*dir[i]))
				change = math.Max(change, math.Abs(xNew[i]-x[i]))
				decrease += g[i] * (xNew[i] - x[i])
			}
			if change < 1e-9 {
				return value
			}
			calls--
			v := f(xNew, gNew)
			if v <= value+1e-4*decrease { // false for NaN
				moved = true
				s, y, sy, yy := make([]float64, n), make([]float64, n), 0.0, 0.0
				for i := range x {
					s[i], y[i] = xNew[i]-x[i], gNew[i]-g[i]
					sy += s[i] * y[i]
					yy += y[i] * y[i]
				}
				small := value-v < 1e-9*(1+math.Abs(v))
				if sy > 1e-10*yy {
					if len(ss) == memory {
						ss, ys = ss[1:], ys[1:]
					}
					ss, ys = append(ss, s), append(ys, y)
				}
				value = v
				copy(x, xNew)
				copy(g, gNew)
				if small {
					return value
				}
				break
			}
			step *= 0.35
		}
		if !moved {
			if len(ss) == 0 {
				return value
			}
			ss, ys = nil, nil
		}
	}
	return value
}

// twoLoop multiplies dir by the L-BFGS estimate of the inverse Hessian,
// leaving held axes at zero.
func twoLoop(dir []float64, ss, ys [][]float64, held []bool) {
	dot := func(a, b []float64) (sum float64) {
		for i := range a {
			if !held[i] {
				sum += a[i] * b[i]
			}
		}
		return sum
	}
	if len(ss) == 0 {
		return
	}
	alpha := make([]float64, len(ss))
	for k := len(ss) - 1; k >= 0; k-- {
		sy := dot(ss[k], ys[k])
		if sy <= 0 {
			continue
		}
		alpha[k] = dot(ss[k], dir) / sy
		for i := range dir {
			if !held[i] {
				dir[i] -= alpha[k] * ys[k][i]
			}
		}
	}
	last := len(ss) - 1
	if yy := dot(ys[last], ys[last]); yy > 0 {
		scale := math.Abs(dot(ss[last], ys[last])) / yy
		for i := range dir {
			dir[i] *= scale
		}
	}
	for k := range ss {
		sy := dot(ss[k], ys[k])
		if sy <= 0 {
			continue
		}
		beta := dot(ys[k], dir) / sy
		for i := range dir {
			if !held[i] {
				dir[i] += (alpha[k] - beta) * ss[k][i]
			}
		}
	}
}
