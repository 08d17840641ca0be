package search_test

import (
	"strings"
	"testing"

	"atelier/common/space"
	"atelier/tuner/search"
)

// warmth is another sweep's history: random trials with results of all sorts,
// points of another space and open trials among them.
func warmth(t *testing.T, s *space.Space, n int) []search.Trial {
	t.Helper()
	out := ended(t, s, n)
	for i := range out {
		out[i].Number = int64(1000 - i) // numbers are not read
		if i%10 == 9 {
			life(s, &out[i])
		}
	}
	return append(out, search.Trial{Number: 1, Point: space.Point{space.String("stranger")}, Status: search.Complete, HasValue: true, Value: -1e9},
		search.Trial{Number: 2, Point: s.FromUnit(make([]float64, len(s.Params)))})
}

func TestWarmStartConforms(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		p := search.Problem{Space: s, Seed: 17, Budget: 30, Parallelism: 3, Warm: warmth(t, s, 40)}
		known := map[string]bool{}
		for _, w := range p.Warm[:40] {
			known[s.Encode(w.Point)] = true
		}
		history := record(t, newMethod(t, method, algorithm, p), s, 30, 3, 3, nil)
		if len(history) != 30 {
			t.Fatalf("%d trials of a budget of 30: the warm start's were counted", len(history))
		}
		for _, h := range history {
			if method != search.Grid && known[s.Encode(h.Point)] {
				t.Errorf("trial %d is of the warm start: %s", h.Number, s.Encode(h.Point))
			}
		}
		again := record(t, freshly{t, method, algorithm, p}, s, 30, 3, 1, nil)
		if strings.Join(encoded(s, again), "") != strings.Join(encoded(s, history), "") {
			t.Error("a fresh instance at each ask proposes otherwise")
		}
	})
}

// What another sweep found is gone on from.
func TestWarmStartTeaches(t *testing.T) {
	s := floats(4, 0, 1)
	for _, m := range but(search.Grid, search.Random, search.Sobol, search.CMAES) { // cmaes learns a distribution, in whole populations
		cold, warm := 0.0, 0.0
		for seed := uint64(1); seed <= 3; seed++ {
			p := search.Problem{Space: &s, Seed: seed, Budget: 6}
			run := func() (sum float64) {
				for _, h := range record(t, newMethod(t, m.method, m.algorithm, p), &s, 6, 1, 1, nil) {
					sum += score(&s, h.Point) / 6
				}
				return sum
			}
			cold += run()
			p.Warm = ended(t, &s, 60)
			warm += run()
		}
		if warm > 0.6*cold {
			t.Errorf("%s: first values %.3f at the mean with a warm start, %.3f without", title(m.method, m.algorithm), warm/3, cold/3)
		}
	}
}

// Points of the warm start come last, and still every point comes once.
func TestWarmStartOfASmallSpace(t *testing.T) {
	small := &space.Space{Params: []space.Parameter{integer("a", 1, 6), choice("c", "x", "y")}}
	forEvery(t, func(t *testing.T, method, algorithm string) {
		if method == search.Grid {
			t.Skip("a grid has an order of its own")
		}
		p := search.Problem{Space: small, Seed: 2}
		known := map[string]bool{}
		for i := int64(1); i <= 5; i++ {
			at := space.Point{space.Int(i), space.String("x")}
			known[small.Encode(at)] = true
			p.Warm = append(p.Warm, search.Trial{Point: at, Status: search.Complete, HasValue: true, Value: float64(i)})
		}
		history := record(t, newMethod(t, method, algorithm, p), small, 20, 2, 2, nil)
		seen := map[string]bool{}
		for i, h := range history {
			key := small.Encode(h.Point)
			if seen[key] || i < 7 && known[key] {
				t.Errorf("place %d: %s", i+1, key)
			}
			seen[key] = true
		}
		if len(history) != 12 {
			t.Errorf("%d trials of 12 points", len(history))
		}
	})
}
