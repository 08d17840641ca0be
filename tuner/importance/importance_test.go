package importance_test

import (
	"math"
	"strings"
	"testing"

	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/importance"
	"atelier/tuner/search"
)

func trials(points []space.Point, values []float64) []search.Trial {
	var out []search.Trial
	for i, p := range points {
		out = append(out, search.Trial{Number: int64(i + 1), Point: p, Status: search.Complete, HasValue: true, Value: values[i]})
	}
	return out
}

func within(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if !(math.Abs(got-want) <= by) {
		t.Errorf("%s: %.9f, want %.9f", what, got, want)
	}
}

// By hand: twenty trials over two choices, ten of each; the best five (the best
// tenth would be two, too few) are all "a".
//
//	all:  counts 10, 10. Kernels: 2 distinct + prior = 3; a kernel gives its own
//	      choice (1+1/3)/(1+2/3) = 4/5 and the other 1/5; the prior 1/2.
//	      p(a) = (10·4/5 + 10·1/5 + 1/2) / 21 = 1/2.
//	best: counts 5, 0. Kernels: 1 + prior = 2; own (1+1/2)/(1+2/2) = 3/4.
//	      p(a) = (5·3/4 + 1/2) / 6 = 17/24, p(b) = 7/24.
//	divergence: 1/2·(17/12-1)² + 1/2·(7/12-1)² = 25/144.
//
// The other parameter has one value and says nothing.
func TestByHand(t *testing.T) {
	s := &space.Space{Params: []space.Parameter{
		{Name: "still", Kind: space.KindFloat, Low: 2, High: 2},
		{Name: "choice", Kind: space.KindCategorical, Choices: []space.Value{space.String("a"), space.String("b")}},
	}}
	var points []space.Point
	var values []float64
	for i := 0; i < 20; i++ {
		c, v := "a", float64(i)
		if i%2 == 1 {
			c, v = "b", 100+float64(i)
		}
		points, values = append(points, space.Point{space.Float(2), space.String(c)}), append(values, v)
	}
	got, err := importance.Of(search.Problem{Space: s}, trials(points, values), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Parameter != "choice" || got[0].Share != 1 || got[0].Trials != 20 || got[1].Divergence != 0 {
		t.Errorf("%+v", got)
	}
	within(t, "divergence", got[0].Divergence, 25.0/144, 1e-9)
	// Turned round, the best are all "b": the same divergence.
	got, err = importance.Of(search.Problem{Space: s, Maximize: true}, trials(points, values), 0)
	if err != nil {
		t.Fatal(err)
	}
	within(t, "divergence of the other end", got[0].Divergence, 25.0/144, 1e-9)
}

// sample is a fixed set of 120 trials whose importances were also computed with
// Optuna 5.0 (development), PedAnovaImportanceEvaluator with its defaults.
func sample() (*space.Space, []space.Point, []float64) {
	s := &space.Space{Params: []space.Parameter{
		{Name: "x", Kind: space.KindFloat, Low: 0, High: 1},
		{Name: "lr", Kind: space.KindFloat, Low: 1e-5, High: 1e-1, Log: true},
		{Name: "n", Kind: space.KindInt, Low: 1, High: 8},
		{Name: "c", Kind: space.KindCategorical, Choices: []space.Value{space.Int(0), space.Int(1), space.Int(2)}},
		{Name: "z", Kind: space.KindFloat, Low: -1, High: 1},
	}}
	state := uint64(12345)
	next := func() float64 {
		state = (1103515245*state + 12345) % 2147483648
		return float64(state) / 2147483648
	}
	var points []space.Point
	var values []float64
	for i := 0; i < 120; i++ {
		x, lr := next(), math.Pow(10, -5+4*next())
		n, c, z := 1+int64(8*next()), int64(3*next()), -1+2*next()
		v := (x-0.3)*(x-0.3)*4 + 0.2*math.Pow(math.Log10(lr)+3, 2) + 0.02*math.Abs(float64(n)-5) + []float64{0.3, 0, 0.1}[c] + 0.01*z
		points = append(points, space.Point{space.Float(x), space.Float(lr), space.Int(n), space.Int(c), space.Float(z)})
		values = append(values, v)
	}
	return s, points, values
}

func TestLikeOptuna(t *testing.T) {
	s, points, values := sample()
	got, err := importance.Of(search.Problem{Space: s}, trials(points, values), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		parameter string
		share     float64
	}{{"x", 0.4797704811}, {"lr", 0.3716128740}, {"c", 0.1180891365}, {"n", 0.0183797774}, {"z", 0.0121477311}}
	for i, w := range want {
		if got[i].Parameter != w.parameter {
			t.Fatalf("place %d: %s, want %s: %+v", i+1, got[i].Parameter, w.parameter, got)
		}
		within(t, w.parameter, got[i].Share, w.share, 1e-6)
	}
	// Of several objectives each has its own.
	history := trials(points, values)
	for i := range history {
		z, _ := history[i].Point[4].Number()
		history[i].Values = []float64{history[i].Value, z}
	}
	got, err = importance.Of(search.Problem{Space: s, Objectives: []trial.Objective{{Metric: "v"}, {Metric: "z", Maximize: true}}}, history, 1)
	if err != nil || got[0].Parameter != "z" || got[0].Share < 0.8 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestConditionalParameters(t *testing.T) {
	on := []space.Condition{{Parent: "kind", Any: []space.Value{space.String("on")}}}
	s := &space.Space{Params: []space.Parameter{
		{Name: "kind", Kind: space.KindCategorical, Choices: []space.Value{space.String("on"), space.String("off")}},
		{Name: "depth", Kind: space.KindFloat, Low: 0, High: 1, When: on},
	}}
	var points []space.Point
	var values []float64
	for i := 0; i < 60; i++ {
		p := space.Point{space.String("off"), space.Value{}}
		v := 5.0
		if i%2 == 0 {
			v = math.Abs(float64(i)/60 - 0.2)
			p = space.Point{space.String("on"), space.Float(float64(i) / 60)}
		}
		points, values = append(points, p), append(values, v)
	}
	got, err := importance.Of(search.Problem{Space: s}, trials(points, values), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range got {
		if g.Parameter == "depth" && (g.Trials != 30 || g.Share < 0.3) || g.Parameter == "kind" && g.Trials != 60 {
			t.Errorf("%+v", got)
		}
	}
}

func TestNothingToSay(t *testing.T) {
	s, points, values := sample()
	if _, err := importance.Of(search.Problem{Space: s}, trials(points[:9], values), 0); err == nil || !strings.Contains(err.Error(), "9 trials have a value; at least 10") {
		t.Error(err)
	}
	history := trials(points, values)
	for i := range history { // what does not count: failed, without value, not of the space
		switch i % 3 {
		case 0:
			history[i].Status = search.Failed
		case 1:
			history[i].Value = math.NaN()
		default:
			history[i].Point = history[i].Point[:2]
		}
	}
	if _, err := importance.Of(search.Problem{Space: s}, history, 0); err == nil || !strings.Contains(err.Error(), "0 trials") {
		t.Error(err)
	}
	if _, err := importance.Of(search.Problem{Space: s}, trials(points, values), 1); err == nil {
		t.Error("objective 1 of one")
	}
	got, err := importance.Of(search.Problem{Space: s}, trials(points, make([]float64, len(points))), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range got {
		if g.Share != 0 || math.Abs(g.Divergence) > 1e-12 {
			t.Errorf("all values equal: %+v", g)
		}
	}
}
