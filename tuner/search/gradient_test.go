package search

import (
	"math"
	"math/rand/v2"
	"testing"

	"atelier/common/space"
	"atelier/common/trial"
)

func sample(n, d int) *gaussian {
	rng := rand.New(rand.NewPCG(4, 4))
	g := &gaussian{category: make([]bool, d)}
	g.category[d-1] = true
	for i := 0; i < n; i++ {
		x := make([]float64, d)
		for j := range x {
			x[j] = rng.Float64()
		}
		x[d-1] = math.Floor(3 * x[d-1])
		g.x = append(g.x, x)
		g.y = append(g.y, math.Sin(5*x[0])+x[1]*x[d-1]+0.01*rng.NormFloat64())
	}
	return g
}

// The gradients that descend follows agree with differences.
func TestGradients(t *testing.T) {
	g := sample(15, 4)
	o := newObjective(g)
	theta := []float64{0.3, -0.5, 1.2, 0.1, 0.4, -3}
	gradient := make([]float64, len(theta))
	o.evaluate(theta, gradient)
	scratch := make([]float64, len(theta))
	for j := range theta {
		up, down := append([]float64(nil), theta...), append([]float64(nil), theta...)
		up[j] += 1e-5
		down[j] -= 1e-5
		want := (o.evaluate(up, scratch) - o.evaluate(down, scratch)) / 2e-5
		if math.Abs(gradient[j]-want) > 1e-4*(1+math.Abs(want)) {
			t.Errorf("posterior, parameter %d: %v, want %v", j, gradient[j], want)
		}
	}
	o.take(theta)
	if !g.condition() {
		t.Fatal("not positive definite")
	}
	x := []float64{0.4, 0.7, 0.2, 1}
	v, dMean, dVariance := make([]float64, len(g.x)), make([]float64, 4), make([]float64, 4)
	g.predict(x, v)
	g.slope(x, v, dMean, dVariance)
	for j := 0; j < 3; j++ {
		up, down := append([]float64(nil), x...), append([]float64(nil), x...)
		up[j] += 1e-5
		down[j] -= 1e-5
		m1, s1 := g.predict(up, v)
		m0, s0 := g.predict(down, v)
		if want := (m1 - m0) / 2e-5; math.Abs(dMean[j]-want) > 1e-5*(1+math.Abs(want)) {
			t.Errorf("mean, axis %d: %v, want %v", j, dMean[j], want)
		}
		if want := (s1 - s0) / 2e-5; math.Abs(dVariance[j]-want) > 1e-5*(1+math.Abs(want)) {
			t.Errorf("variance, axis %d: %v, want %v", j, dVariance[j], want)
		}
	}
}

// Points believed at their mean leave the mean everywhere and take the variance
// at themselves; with a lie the mean rises there.
func TestBelief(t *testing.T) {
	g := sample(12, 3)
	g.fit(40)
	if !g.condition() {
		t.Fatal("not positive definite")
	}
	at, elsewhere := []float64{0.9, 0.1, 0}, []float64{0.2, 0.3, 1}
	v := make([]float64, len(g.x))
	mean, _ := g.predict(elsewhere, v)
	meanAt, before := g.predict(at, v)
	open := []observation{{unit: at}, {unit: []float64{0.1, 0.9, 0}}}
	believed := g.believing(open, 0)
	v = make([]float64, len(believed.x))
	meanAfter, _ := believed.predict(elsewhere, v)
	_, after := believed.predict(at, v)
	if math.Abs(mean-meanAfter) > 1e-9 || after > 0.5*before || after > 2*g.noise+1e-6 {
		t.Errorf("mean %v then %v; variance %v then %v with noise %v", mean, meanAfter, before, after, g.noise)
	}
	lied, _ := g.believing(open, 0.5).predict(at, v)
	if rise := lied - meanAt; rise < 0.3*math.Sqrt(before) || rise > 0.6*math.Sqrt(before) {
		t.Errorf("the mean rises by %v where the deviation was %v", rise, math.Sqrt(before))
	}
	if g.believing(nil, 0.5) != g {
		t.Error("without open trials there is nothing to believe")
	}
}

// The acquisition's gradient, with open trials and a constraint.
func TestAcquisitionGradient(t *testing.T) {
	for _, constrained := range []bool{false, true} {
		s := &space.Space{Params: []space.Parameter{{Name: "a", Kind: space.KindFloat, High: 1}, {Name: "b", Kind: space.KindFloat, High: 1}}}
		p := Problem{Space: s, Seed: 1}
		if constrained {
			p.Constraints = []trial.Constraint{{Metric: "c", HasMax: true, Max: 0.3}}
		}
		g := newGP(p)
		var seen []observation
		rng := stream(3, 4, 5)
		for i := 0; i < 12; i++ {
			x, y := rng.Float64(), rng.Float64()
			o := observation{unit: []float64{x, y}, value: (x-0.3)*(x-0.3) + y, result: scored}
			if constrained {
				o.over = []float64{x - 0.5}
			}
			seen = append(seen, o)
		}
		seen = append(seen, observation{unit: []float64{0.2, 0.1}, result: pending}, observation{unit: []float64{0.6, 0.4}, result: pending})
		look, ok := g.searcher(15, seen)
		if !ok || (len(look.limits) == 1) != constrained {
			t.Fatalf("%v, %d limits", ok, len(look.limits))
		}
		u, gradient := []float64{0.42, 0.33}, make([]float64, 2)
		room := [2][]float64{make([]float64, 2), make([]float64, 2)}
		if value := look.rise(u, gradient, &room); math.Abs(value-look.gain(u)) > 1e-9 {
			t.Errorf("rise is %v, gain %v", value, look.gain(u))
		}
		for j := range u {
			up, down := append([]float64(nil), u...), append([]float64(nil), u...)
			up[j] += 1e-5
			down[j] -= 1e-5
			if want := (look.gain(up) - look.gain(down)) / 2e-5; math.Abs(gradient[j]-want) > 1e-4*(1+math.Abs(want)) {
				t.Errorf("constrained %v, axis %d: %v, want %v", constrained, j, gradient[j], want)
			}
		}
	}
}

func TestLogChance(t *testing.T) {
	for _, z := range []float64{4, 0, -3, -11.999, -12.001, -50} {
		value, slope := logChance(z)
		up, _ := logChance(z + 1e-4)
		down, _ := logChance(z - 1e-4)
		if want := (up - down) / 2e-4; math.Abs(slope-want) > 2e-3*(1+math.Abs(want)) || math.IsInf(value, 0) || value > 0 {
			t.Errorf("at %v: %v, slope %v, want %v", z, value, slope, want)
		}
	}
}

func TestLogImprovement(t *testing.T) {
	for _, z := range []float64{3, 0, -1, -5, -11.999, -12.001, -40, -1000} {
		value, slope := logImprovement(z)
		up, _ := logImprovement(z + 1e-4)
		down, _ := logImprovement(z - 1e-4)
		if want := (up - down) / 2e-4; math.Abs(slope-want) > 2e-3*(1+math.Abs(want)) || math.IsInf(value, 0) {
			t.Errorf("at %v: %v, slope %v, want %v", z, value, slope, want)
		}
	}
	left, _ := logImprovement(-12.0000001)
	right, _ := logImprovement(-11.9999999)
	if math.Abs(left-right) > 1e-3 {
		t.Errorf("a step of %v where the formulas meet", left-right)
	}
}

func TestDescend(t *testing.T) {
	// Rosenbrock with its minimum outside: the best within lies on a bound.
	f := func(x, g []float64) float64 {
		a, b := x[1]-x[0]*x[0], 1-x[0]
		g[0], g[1] = -400*a*x[0]-2*b, 200*a
		return 100*a*a + b*b
	}
	x := []float64{-0.8, 0.9}
	if v := descend(f, x, []float64{-1, -1}, []float64{2, 2}, 200); v > 1e-6 {
		t.Errorf("free: %v at %v", v, x)
	}
	x = []float64{-0.5, 0.4}
	if v := descend(f, x, []float64{-1, -1}, []float64{0.5, 2}, 200); math.Abs(v-0.25) > 1e-4 || x[0] != 0.5 {
		t.Errorf("bounded: %v at %v", v, x)
	}
}
