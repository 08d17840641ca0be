package suite

import (
	"math"

	"atelier/common/space"
)

// All returns the suite. Problems are made once and never change.
func All() []Problem {
	return append(functions(), tables()...)
}

func square(x float64) float64 { return x * x }

func functions() []Problem {
	return []Problem{
		{"branin", "continuous", of(float("x1", -5, 10), float("x2", 0, 15)), branin},
		{"hartmann6", "continuous", cube(6, 0, 1), hartmann6},
		rosenbrock(), ackley(), ellipsoid(), rastrigin(), styblinski(),
		learningRate(), cliff(), integers(), wideIntegers(), mixed(), choices(), perChoice(), optimisers(), layered(), levy(), sparse(),
	}
}

func branin(in arguments) float64 {
	x, y := in.x[0], in.x[1]
	t := y - 5.1/(4*math.Pi*math.Pi)*x*x + 5/math.Pi*x - 6
	return t*t + 10*(1-1/(8*math.Pi))*math.Cos(x) + 10 - 0.39788735772973816
}

func hartmann6(in arguments) float64 {
	alpha := []float64{1, 1.2, 3, 3.2}
	a := [][]float64{{10, 3, 17, 3.5, 1.7, 8}, {0.05, 10, 17, 0.1, 8, 14}, {3, 3.5, 1.7, 10, 17, 8}, {17, 8, 0.05, 10, 0.1, 14}}
	c := [][]float64{{1312, 1696, 5569, 124, 8283, 5886}, {2329, 4135, 8307, 3736, 1004, 9991}, {2348, 1451, 3522, 2883, 3047, 6650}, {4047, 8828, 8732, 5743, 1091, 381}}
	sum := 3.322368011391339
	for i := range alpha {
		inner := 0.0
		for j, x := range in.x {
			inner += a[i][j] * square(x-c[i][j]/1e4)
		}
		sum -= alpha[i] * math.Exp(-inner)
	}
	return sum
}

// rosenbrock is the curved valley, turned.
func rosenbrock() Problem {
	r, at := rotation(4, 1), []float64{0.3, -0.5, 0.2, 0.4}
	return Problem{"rosenbrock4-rotated", "continuous", cube(4, -2, 2), func(in arguments) float64 {
		z, sum := about(r, in.x, at), 0.0
		for i := 0; i+1 < len(z); i++ {
			sum += 100*square(z[i+1]+1-square(z[i]+1)) + square(z[i])
		}
		return sum
	}}
}

func ackley() Problem {
	r, at := rotation(5, 2), []float64{3.1, -4.2, 1.3, 5.5, -0.8}
	return Problem{"ackley5-rotated", "continuous", cube(5, -8, 8), func(in arguments) float64 {
		var squares, cosines float64
		for _, z := range about(r, in.x, at) {
			squares += z * z
			cosines += math.Cos(2 * math.Pi * z)
		}
		return -20*math.Exp(-0.2*math.Sqrt(squares/5)) - math.Exp(cosines/5) + 20 + math.E
	}}
}

func ellipsoid() Problem {
	r, at := rotation(6, 3), []float64{1.2, -2.5, 3.1, 0.4, -3.3, 2.2}
	return Problem{"ellipsoid6-rotated", "continuous", cube(6, -5, 5), func(in arguments) float64 {
		sum := 0.0
		for i, z := range about(r, in.x, at) {
			sum += math.Pow(10, 3*float64(i)/5) * z * z
		}
		return sum
	}}
}

func rastrigin() Problem {
	at := []float64{1.35, -2.2, 0.6}
	return Problem{"rastrigin3-shifted", "continuous", cube(3, -4, 4), func(in arguments) float64 {
		sum := 0.0
		for i, x := range in.x {
			z := x - at[i]
			sum += z*z + 4*(1-math.Cos(2*math.Pi*z))
		}
		return sum
	}}
}

func styblinski() Problem {
	return Problem{"styblinski8", "continuous", cube(8, -5, 5), func(in arguments) float64 {
		sum := 0.0
		for _, x := range in.x {
			sum += 0.5*(x*x*x*x-16*x*x+5*x) + 39.16616570377142
		}
		return sum
	}}
}

// learningRate has the shape of a training: rate, decay and batch size move
// together.
func learningRate() Problem {
	return Problem{"rates4", "log", of(logFloat("lr", 1e-6, 1), logFloat("decay", 1e-7, 1e-1), float("momentum", 0, 0.99), logFloat("eps", 1e-9, 1e-3)), func(in arguments) float64 {
		lr := math.Log10(in.x[0]) + 2.6 - 0.6*math.Log10((1-in.x[2])/0.1)
		return 0.9*lr*lr + 0.3*square(math.Log10(in.x[1])+3.2-0.5*lr) + 2*square(in.x[2]-0.88) + 0.02*math.Abs(math.Log10(in.x[3])+7)
	}}
}

// cliff is best just before the rate at which training falls apart.
func cliff() Problem {
	return Problem{"cliff3", "log", of(logFloat("lr", 1e-5, 10), logFloat("width", 1, 1000), float("dropout", 0, 0.8)), func(in arguments) float64 {
		edge := -0.7 - 0.35*math.Log10(in.x[1])
		lr := math.Log10(in.x[0])
		if lr > edge {
			return 3 + 0.4*math.Tanh(lr-edge)
		}
		return 1.6*(1-math.Exp(0.9*(lr-edge))) + 0.15*square(math.Log10(in.x[1])-2.1) + 0.8*square(in.x[2]-0.3)
	}}
}

func integers() Problem {
	return Problem{"integers5", "integer", of(integer("a", 1, 40), integer("b", 1, 12), integer("c", 0, 100), logInt("d", 8, 1024), integer("e", 1, 6)), func(in arguments) float64 {
		x := in.x
		return square((x[0]-13)/10) + square((x[1]-9)/4-(x[0]-13)/30) + math.Abs(x[2]-71)/40 + square(math.Log2(x[3]/96))/2 + math.Abs(x[4]-2)/3
	}}
}

func wideIntegers() Problem {
	r, at := rotation(4, 4), []float64{0.31, 0.72, 0.55, 0.18}
	return Problem{"integers4-rotated", "integer", of(integer("a", 0, 999), integer("b", -50, 50), integer("c", 1, 30), integer("d", 0, 255)), func(in arguments) float64 {
		sum := 0.0
		for i, z := range about(r, in.u, at) {
			sum += math.Pow(6, float64(i)/1.5)*z*z + 0.08*(1-math.Cos(9*z))
		}
		return sum
	}}
}

func mixed() Problem {
	batch := space.Parameter{Name: "batch", Kind: space.KindCategorical, Choices: []space.Value{space.Int(16), space.Int(32), space.Int(64), space.Int(128)}}
	return Problem{"mixed6", "categorical", of(logFloat("lr", 1e-5, 1), choice("optimizer", "sgd", "adam", "adamw", "rmsprop"), choice("activation", "relu", "gelu", "tanh"), integer("layers", 1, 8), float("dropout", 0, 0.7), batch), func(in arguments) float64 {
		best := []float64{-1.2, -3, -2.8, -3.4}[int(in.x[1])]
		cost := []float64{0.15, 0.06, 0, 0.3}[int(in.x[1])] + []float64{0.08, 0, 0.35}[int(in.x[2])]
		return cost + 0.5*square(math.Log10(in.x[0])-best) + 0.03*square(in.x[3]-5) + 1.2*square(in.x[4]-0.22) + []float64{0.1, 0.05, 0, 0.05}[int(in.x[5])]
	}}
}

func choices() Problem {
	return Problem{"choices5", "categorical", of(choice("a", "a", "b", "c", "d", "e", "f"), choice("b", "a", "b", "c", "d", "e", "f"), choice("c", "a", "b", "c", "d"), choice("d", "a", "b", "c", "d"), choice("e", "a", "b", "c")), func(in arguments) float64 {
		sum := 0.0
		for j, k := range in.x {
			sum += [][]float64{{3, 1, 4, 0, 5, 9}, {2, 6, 5, 3, 0, 8}, {0, 9, 3, 2}, {4, 0, 6, 2}, {6, 4, 0}}[j][int(k)]
		}
		if in.x[0] == in.x[1] || in.x[2] == in.x[3] {
			sum += 3
		}
		return sum / 5
	}}
}

// perChoice has its best numbers elsewhere for every category.
func perChoice() Problem {
	at := [][]float64{{0.2, 0.7, 0.4, 0.6}, {0.8, 0.3, 0.6, 0.2}, {0.5, 0.85, 0.15, 0.45}, {0.35, 0.2, 0.8, 0.75}}
	r := rotation(4, 5)
	return Problem{"mixed5-rotated", "categorical", of(choice("kind", "a", "b", "c", "d"), float("x1", -1, 1), float("x2", 0, 10), float("x3", -3, 0), float("x4", 0, 1)), func(in arguments) float64 {
		k := int(in.x[0])
		sum := []float64{0.25, 0.1, 0, 0.4}[k]
		for i, z := range about(r, in.u[1:], at[k]) {
			sum += []float64{6, 3, 1, 0.5}[i] * z * z
		}
		return sum
	}}
}

func optimisers() Problem {
	return Problem{"optimisers6", "conditional", of(choice("optimizer", "sgd", "adam", "lamb"), logFloat("lr", 1e-5, 1),
		when(float("momentum", 0, 0.99), "optimizer", "sgd"), when(logFloat("beta", 1e-4, 0.5), "optimizer", "adam", "lamb"), when(float("trust", 0, 2), "optimizer", "lamb"), integer("width", 1, 32)),
		func(in arguments) float64 {
			cost := 0.04 * math.Abs(in.x[5]-21)
			lr := math.Log10(in.x[0+1])
			switch int(in.x[0]) {
			case 0:
				return cost + 0.4*square(lr+1.3) + 2*square(in.x[2]-0.9)
			case 1:
				return cost + 0.1 + 0.3*square(lr+3.1) + 0.2*square(math.Log10(in.x[3])+1)
			}
			return cost + 0.05 + 0.5*square(lr+2.2) + 0.2*square(math.Log10(in.x[3])+1.4) + 0.5*square(in.x[4]-1.3)
		}}
}

// layered has a width for each layer that there is.
func layered() Problem {
	return Problem{"layers7", "conditional", of(choice("depth", "1", "2", "3", "4"), logInt("units1", 4, 512),
		when(logInt("units2", 4, 512), "depth", "2", "3", "4"), when(logInt("units3", 4, 512), "depth", "3", "4"), when(logInt("units4", 4, 512), "depth", "4"),
		logFloat("lr", 1e-5, 1), choice("activation", "relu", "tanh")),
		func(in arguments) float64 {
			depth := int(in.x[0]) + 1
			cost := []float64{0.5, 0.12, 0, 0.06}[depth-1] + 0.1*in.x[6]
			for k := 0; k < depth; k++ {
				cost += 0.06 * square(math.Log2(in.x[1+k])-[]float64{6.5, 6, 5, 4}[k])
			}
			return cost + 0.35*square(math.Log10(in.x[5])+2+0.25*float64(depth))
		}}
}

func levy() Problem {
	r, at := rotation(12, 6), make([]float64, 12)
	for i := range at {
		at[i] = 4 * math.Sin(float64(3*i+1))
	}
	return Problem{"levy12-rotated", "continuous", cube(12, -8, 8), func(in arguments) float64 {
		z := about(r, in.x, at)
		w := func(i int) float64 { return 1 + z[i]/4 }
		sum := square(math.Sin(math.Pi * w(0)))
		for i := 0; i+1 < len(z); i++ {
			sum += square(w(i)-1) * (1 + 10*square(math.Sin(math.Pi*w(i)+1)))
		}
		return sum + square(w(11)-1)*(1+square(math.Sin(2*math.Pi*w(11))))
	}}
}

// sparse has twenty settings, a few of which matter.
func sparse() Problem {
	var params []space.Parameter
	for i := 0; i < 14; i++ {
		params = append(params, float("x"+string(rune('a'+i)), 0, 1))
	}
	for i := 14; i < 18; i++ {
		params = append(params, choice("c"+string(rune('a'+i)), "a", "b", "c"))
	}
	params = append(params, logFloat("lr", 1e-6, 1), integer("n", 1, 50))
	return Problem{"sparse20", "categorical", of(params...), func(in arguments) float64 {
		x := in.x
		lr := math.Log10(x[18]) + 2.7
		sum := 0.5*lr*lr + 2*square(x[2]-0.3) + 2*square(x[7]-0.8-0.1*lr) + square((x[19]-17)/20) + []float64{0.4, 0, 0.2}[int(x[15])]
		for i := 0; i < 14; i++ {
			sum += 0.02 * square(x[i]-0.5-0.3*math.Sin(float64(i)))
		}
		return sum
	}}
}
