package search_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"atelier/common/space"
	"atelier/tuner/search"
)

// grown asks one at a time until there are so many trials.
func grown(t testing.TB, m search.Method, trials int, result func(space.Point) float64) []search.Trial {
	t.Helper()
	var history []search.Trial
	for len(history) < trials {
		got, err := m.Propose(ctx, history, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Points) == 0 {
			break
		}
		history = tell(history, got, func(p space.Point) search.Trial { return search.Trial{Value: result(p)} })
	}
	return history
}

// A result on the very mean of cmaes, in the worse half of the first group, must
// not turn the distribution into something that is no number: proposals then
// were the middle of the space, again and again.
func TestCMAESResultOnTheMean(t *testing.T) {
	s := floats(2, 0, 1)
	for seed := range uint64(20) {
		m := newMethod(t, search.Bayesian, search.CMAES, search.Problem{Space: &s, Seed: seed, Budget: 100})
		var history []search.Trial
		for _, x := range [][2]float64{{0.5, 0.5}, {0.2, 0.3}, {0.3, 0.1}, {0.15, 0.4}, {0.1, 0.15}, {0.35, 0.45}} { // the middle is the worst
			p := s.FromUnit(x[:])
			history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p, Status: search.Complete, HasValue: true, Value: x[0] + x[1]})
		}
		got, err := m.Propose(ctx, history, 6)
		if err != nil {
			t.Fatal(err)
		}
		middle, sum := 0, 0.0
		for _, p := range got.Points {
			u := s.Unit(p)
			sum += u[0] + u[1]
			// Points that stood in the middle were moved along one axis at a time.
			if u[0] == 0.5 || u[1] == 0.5 {
				middle++
			}
		}
		if middle > 0 {
			t.Errorf("seed %d: %d of 6 proposals stand in the middle: %v", seed, middle, got.Points)
		}
		if mean := sum / 12; mean > 0.6 {
			t.Errorf("seed %d: proposals lie at %.2f on average; better results lie at 0.25, the start at 0.5", seed, mean)
		}
	}
}

// On a lattice the middle is proposed early, and is often in the worse half.
// Proposals that were no numbers became the middle, and where that had been
// tried a point that differs from it on one axis.
func TestCMAESOnALattice(t *testing.T) {
	s := space.Space{Params: []space.Parameter{integer("a", 1, 5), integer("b", 1, 5)}}
	value := func(p space.Point) float64 {
		x := numbers(p)
		return math.Hypot(x[0]-5, x[1]-2) / 4
	}
	const seeds = 300
	sum, stuck := 0.0, 0
	for seed := range uint64(seeds) {
		m := newMethod(t, search.Bayesian, search.CMAES, search.Problem{Space: &s, Seed: seed, Budget: 12})
		best, cross := math.Inf(1), 0
		for i, h := range grown(t, m, 12, value) {
			best = math.Min(best, h.Value)
			if x := numbers(h.Point); i >= 6 && (x[0] == 3 || x[1] == 3) {
				cross++
			}
		}
		sum += best
		if cross == 6 {
			stuck++
		}
	}
	t.Logf("mean best of %d seeds after 12 trials: %.3f; %d stay in the middle", seeds, sum/seeds, stuck)
	if stuck > seeds/50 {
		t.Errorf("%d of %d sweeps stay in the middle", stuck, seeds)
	}
}

// With many axes no draw of cmaes lies within all bounds; what is beyond must not
// end up on them.
func TestCMAESKeepsOffTheBounds(t *testing.T) {
	for _, axes := range []int{30, 100, 1000} {
		s := floats(axes, 0, 1)
		m := newMethod(t, search.Bayesian, search.CMAES, search.Problem{Space: &s, Seed: 4, Budget: 1000})
		edge, near := 0, 0
		got, err := m.Propose(ctx, ended(t, &s, 30), 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got.Points {
			for _, u := range s.Unit(p) {
				if u == 0 || u == 1 {
					edge++
				}
				if u < 0.05 || u > 0.95 {
					near++
				}
			}
		}
		if edge > 0 {
			t.Errorf("%d axes: %d of %d coordinates stand on a bound", axes, edge, 5*axes)
		}
		if share := float64(near) / float64(5*axes); share > 0.25 {
			t.Errorf("%d axes: %.0f %% of the coordinates are next to a bound; even would be 10 %%", axes, 100*share)
		}
	}
}

// cmaes learns in spaces of many axes, and in time.
func TestCMAESOfManyAxes(t *testing.T) {
	const trials = 400
	s := floats(100, 0, 1)
	value := func(p space.Point) float64 { return score(&s, p) }
	best := func(method, algorithm string) float64 {
		best := math.Inf(1)
		for _, h := range grown(t, newMethod(t, method, algorithm, search.Problem{Space: &s, Seed: 1, Budget: trials}), trials, value) {
			best = math.Min(best, h.Value)
		}
		return best
	}
	spent := processorTime(t)
	found := best(search.Bayesian, search.CMAES)
	each := (processorTime(t) - spent).Seconds() / trials
	if random := best(search.Random, ""); found > 0.4*random {
		t.Errorf("cmaes finds %.2f in %d trials, random search %.2f", found, trials, random)
	}
	if each > 0.02 {
		t.Errorf("%.0f ms of processor time a proposal at 100 axes; at most 20", 1000*each)
	}
}

// Spaces of a thousand axes: every method proposes points of the space, in time.
func TestThousandAxes(t *testing.T) {
	s := floats(1000, 0, 1)
	history := ended(t, &s, 60)
	for _, m := range but(search.Grid) {
		if m.algorithm == search.GP {
			continue // a second each: BENCHMARKS.md
		}
		p := search.Problem{Space: &s, Seed: 3, Budget: 1000}
		spent := processorTime(t)
		got, err := newMethod(t, m.method, m.algorithm, p).Propose(ctx, history, 4)
		if err != nil || len(got.Points) != 4 {
			t.Fatalf("%s: %d points, %v", title(m.method, m.algorithm), len(got.Points), err)
		}
		if each := (processorTime(t) - spent).Seconds() / 4; each > 0.3 {
			t.Errorf("%s: %.2f s of processor time a proposal", title(m.method, m.algorithm), each)
		}
	}
}

// A proposal of gp does not look at every cell of every one of many axes.
func TestGPOfManyFiniteAxes(t *testing.T) {
	s := &space.Space{}
	for i := range 1000 {
		s.Params = append(s.Params, integer(fmt.Sprint("x", i), 1, 50))
	}
	m := newMethod(t, search.Bayesian, search.GP, search.Problem{Space: s, Seed: 1, Budget: 100})
	history := ended(t, s, 40)
	spent := processorTime(t)
	if got, err := m.Propose(ctx, history, 1); err != nil || len(got.Points) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if took := (processorTime(t) - spent).Seconds(); took > 5 {
		t.Errorf("%.1f s of processor time for a proposal of 1000 integers after 40 trials", took)
	} else {
		t.Logf("%.2f s", took)
	}
}

// Parameters of one value among others, and values at the ends of what a float
// holds, teach little and break nothing.
func TestDegenerateAxesAndValues(t *testing.T) {
	for name, s := range map[string]*space.Space{
		"single values":       {Params: []space.Parameter{choice("only", "x"), integer("a", 1, 6), {Name: "b", Kind: space.KindFloat, Low: 1, High: 1}, integer("c", 3, 3), integer("d", 1, 6)}},
		"single values, many": {Params: append(slices.Repeat([]space.Parameter{integer("c", 3, 3)}, 30), integer("a", 1, 40))},
		"one axis":            {Params: []space.Parameter{integer("a", 1, 40)}},
	} {
		for i := range s.Params {
			s.Params[i].Name = fmt.Sprint(s.Params[i].Name, i)
		}
		forEvery(t, func(t *testing.T, method, algorithm string) {
			for values, value := range map[string]func(int, space.Point) float64{
				"extreme":   func(i int, _ space.Point) float64 { return []float64{math.MaxFloat64, -math.MaxFloat64, 1, 1e300}[i%4] },
				"tiny":      func(i int, _ space.Point) float64 { return float64(i%5) * math.SmallestNonzeroFloat64 },
				"constant":  func(int, space.Point) float64 { return -3 },
				"two":       func(i int, _ space.Point) float64 { return float64(i % 2) },
				"not much":  func(i int, _ space.Point) float64 { return []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0.5}[i%4] },
				"zeros":     func(i int, _ space.Point) float64 { return []float64{0, math.Copysign(0, -1)}[i%2] },
				"offset":    func(i int, p space.Point) float64 { return 1e15 + score(s, p) },
				"increment": func(i int, _ space.Point) float64 { return float64(-i) },
			} {
				p := search.Problem{Space: s, Seed: 8, Budget: 36}
				m := newMethod(t, method, algorithm, p)
				var history []search.Trial
				seen := map[string]bool{}
				for len(history) < 36 {
					got, err := m.Propose(ctx, history, 1)
					if err != nil || len(got.Points) != 1 {
						t.Fatalf("%s, %s: trial %d: %+v, %v", name, values, len(history)+1, got, err)
					}
					if err := s.Check(got.Points[0]); err != nil {
						t.Fatalf("%s, %s: %v", name, values, err)
					}
					seen[s.Encode(got.Points[0])] = true
					v := value(len(history), got.Points[0])
					history = append(history, search.Trial{Number: int64(len(history) + 1), Point: got.Points[0], Status: search.Complete, HasValue: true, Value: v})
				}
				if len(seen) != 36 {
					t.Errorf("%s, %s: %d distinct points of 36", name, values, len(seen))
				}
			}
		})
	}
}

// Of equal trials the first by number is the better one, for every method: the
// rule of the leaderboard. Front lists them all, in that order.
func TestTies(t *testing.T) {
	s := floats(2, 0, 1)
	history := ended(t, &s, 8)
	for i := range history {
		history[i].Value = 1
	}
	history[2].Value, history[6].Value, history[4].Value = 0.5, 0.5, 0.5
	if got := fmt.Sprint(search.Front(search.Problem{Space: &s}, history)); got != "[3 5 7]" {
		t.Errorf("front %s", got)
	}
}
