package search_test

import (
	"fmt"
	"math"

	"atelier/common/space"
	"atelier/tuner/search"
)

// problem is a function to minimise whose best value is known to be 0, or
// subtracted to be so.
type problem struct {
	name  string
	space space.Space
	value func(p space.Point) float64
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

func choice(name string, choices ...string) space.Parameter {
	p := space.Parameter{Name: name, Kind: space.KindCategorical}
	for _, c := range choices {
		p.Choices = append(p.Choices, space.String(c))
	}
	return p
}

func numbers(p space.Point) []float64 {
	x := make([]float64, len(p))
	for i, v := range p {
		x[i], _ = v.Number()
	}
	return x
}

func floats(n int, low, high float64) space.Space {
	var s space.Space
	for i := 0; i < n; i++ {
		s.Params = append(s.Params, float(fmt.Sprint("x", i), low, high))
	}
	return s
}

// suite is the project's own set of problems: continuous, log-scaled, integer,
// categorical and conditional; optima off the centre and off the bounds.
func suite() []problem {
	log10 := func(x, at float64) float64 { return math.Log10(x) - at }
	return []problem{
		{"sphere2", floats(2, -5, 5), func(p space.Point) float64 {
			x := numbers(p)
			return (x[0]-1.7)*(x[0]-1.7) + (x[1]+2.3)*(x[1]+2.3)
		}},
		{"branin", space.Space{Params: []space.Parameter{float("a", -5, 10), float("b", 0, 15)}}, func(p space.Point) float64 {
			x := numbers(p)
			t := x[1] - 5.1/(4*math.Pi*math.Pi)*x[0]*x[0] + 5/math.Pi*x[0] - 6
			return t*t + 10*(1-1/(8*math.Pi))*math.Cos(x[0]) + 10 - 0.39788735772973816
		}},
		{"rosenbrock4", floats(4, -2, 2), func(p space.Point) float64 {
			x, sum := numbers(p), 0.0
			for i := 0; i+1 < len(x); i++ {
				sum += 100*math.Pow(x[i+1]-x[i]*x[i], 2) + math.Pow(1-x[i], 2)
			}
			return sum
		}},
		{"hartmann6", floats(6, 0, 1), hartmann6},
		{"ackley5", floats(5, -8, 12), func(p space.Point) float64 {
			var squares, cosines float64
			for i, x := range numbers(p) {
				x -= 0.7 * float64(i)
				squares += x * x
				cosines += math.Cos(2 * math.Pi * x)
			}
			return -20*math.Exp(-0.2*math.Sqrt(squares/5)) - math.Exp(cosines/5) + 20 + math.E
		}},
		{"log4", space.Space{Params: []space.Parameter{logFloat("lr", 1e-5, 1), logFloat("decay", 1e-6, 1e-1), float("momentum", 0, 0.99), logFloat("eps", 1e-9, 1e-3)}}, func(p space.Point) float64 {
			x := numbers(p)
			lr := log10(x[0], -2.6)
			return 1.5*lr*lr + 0.4*math.Pow(log10(x[1], -3.2)-0.5*lr, 2) + 3*math.Pow(x[2]-0.85, 2) + 0.02*math.Abs(log10(x[3], -7))
		}},
		{"int5", space.Space{Params: []space.Parameter{integer("a", 1, 40), integer("b", 1, 12), integer("c", 0, 100), {Name: "d", Kind: space.KindInt, Low: 8, High: 1024, Log: true}, integer("e", 1, 6)}}, func(p space.Point) float64 {
			x := numbers(p)
			return math.Pow((x[0]-13)/10, 2) + math.Pow((x[1]-9)/4, 2) + math.Abs(x[2]-71)/40 + math.Pow(math.Log2(x[3]/96), 2)/2 + math.Abs(x[4]-2)/3 - 0.5*math.Pow(math.Log2(96.0/96), 2)
		}},
		{"mixed6", space.Space{Params: []space.Parameter{logFloat("lr", 1e-5, 1), choice("optimizer", "sgd", "adam", "adamw", "rmsprop"), choice("activation", "relu", "gelu", "tanh"), integer("layers", 1, 8), float("dropout", 0, 0.7), {Name: "batch", Kind: space.KindCategorical, Choices: []space.Value{space.Int(16), space.Int(32), space.Int(64), space.Int(128)}}}}, func(p space.Point) float64 {
			x := numbers(p)
			optimizer, _ := p[1].Text()
			activation, _ := p[2].Text()
			best := map[string]float64{"sgd": -1.2, "adam": -3, "adamw": -2.8, "rmsprop": -3.4}[optimizer]
			cost := map[string]float64{"sgd": 0.15, "adam": 0.06, "adamw": 0, "rmsprop": 0.3}[optimizer]
			cost += map[string]float64{"relu": 0.08, "gelu": 0, "tanh": 0.35}[activation]
			return cost + 0.5*math.Pow(log10(x[0], best), 2) + 0.03*math.Pow(x[3]-5, 2) + 1.2*math.Pow(x[4]-0.22, 2) + 0.05*math.Abs(math.Log2(x[5]/64))
		}},
		{"categorical5", space.Space{Params: []space.Parameter{choice("a", "0", "1", "2", "3", "4", "5"), choice("b", "0", "1", "2", "3", "4", "5"), choice("c", "0", "1", "2", "3"), choice("d", "0", "1", "2", "3"), choice("e", "0", "1", "2")}}, func(p space.Point) float64 {
			sum := 0.0
			for i, v := range p {
				t, _ := v.Text()
				k := float64(t[0] - '0')
				sum += [][]float64{{3, 1, 4, 0, 5, 9}, {2, 6, 5, 3, 0, 8}, {0, 9, 3, 2}, {4, 0, 6, 2}, {6, 4, 0}}[i][int(k)]
			}
			a, _ := p[0].Text()
			b, _ := p[1].Text()
			if a == b {
				sum += 3
			}
			return sum / 5
		}},
		{"conditional5", space.Space{Params: []space.Parameter{choice("optimizer", "sgd", "adam"), logFloat("lr", 1e-5, 1),
			{Name: "momentum", Kind: space.KindFloat, Low: 0, High: 0.99, When: []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}},
			{Name: "beta", Kind: space.KindFloat, Low: 0.5, High: 0.999, When: []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("adam")}}}},
			integer("width", 1, 32)}}, func(p space.Point) float64 {
			x := numbers(p)
			cost := 0.04 * math.Abs(x[4]-21)
			if optimizer, _ := p[0].Text(); optimizer == "sgd" {
				return cost + 0.4*math.Pow(log10(x[1], -1.3), 2) + 2*math.Pow(x[2]-0.9, 2)
			}
			return cost + 0.1 + 0.3*math.Pow(log10(x[1], -3.1), 2) + math.Pow(x[3]-0.9, 2)
		}},
	}
}

func hartmann6(p space.Point) float64 {
	alpha := []float64{1, 1.2, 3, 3.2}
	a := [][]float64{{10, 3, 17, 3.5, 1.7, 8}, {0.05, 10, 17, 0.1, 8, 14}, {3, 3.5, 1.7, 10, 17, 8}, {17, 8, 0.05, 10, 0.1, 14}}
	c := [][]float64{{1312, 1696, 5569, 124, 8283, 5886}, {2329, 4135, 8307, 3736, 1004, 9991}, {2348, 1451, 3522, 2883, 3047, 6650}, {4047, 8828, 8732, 5743, 1091, 381}}
	x, sum := numbers(p), 0.0
	for i := range alpha {
		inner := 0.0
		for j := range x {
			inner += a[i][j] * math.Pow(x[j]-c[i][j]/1e4, 2)
		}
		sum -= alpha[i] * math.Exp(-inner)
	}
	return sum + 3.322368011391339
}

// sweep runs trials of a problem with open of them at once, ended in the order
// they began, and returns the best value after each ended trial.
func sweep(m search.Method, f func(space.Point) float64, trials, open int) ([]float64, error) {
	var history []search.Trial
	best, out := math.Inf(1), []float64(nil)
	ended := 0
	for ended < trials {
		if room := min(open-(len(history)-ended), trials-len(history)); room > 0 {
			proposal, err := m.Propose(ctx, history, room)
			if err != nil {
				return nil, err
			}
			for _, p := range proposal.Points {
				history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p})
			}
			if len(history) == ended {
				break
			}
		}
		t := &history[ended]
		t.Status, t.Value, t.HasValue = search.Complete, f(t.Point), true
		best = math.Min(best, t.Value)
		out = append(out, best)
		ended++
	}
	for len(out) < trials {
		out = append(out, best)
	}
	return out, nil
}
