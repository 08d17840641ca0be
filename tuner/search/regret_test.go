package search_test

import (
	"context"
	"math"
	"sort"
	"testing"

	"atelier/tuner/search"
)

var ctx = context.Background()

func median(x []float64) float64 {
	s := append([]float64(nil), x...)
	sort.Float64s(s)
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// curves returns, for each problem, the median over the seeds of the best
// value after each trial.
func curves(t testing.TB, problems []problem, method, algorithm string, seeds, trials, open int) [][]float64 {
	t.Helper()
	var out [][]float64
	for _, pr := range problems {
		var runs [][]float64
		for seed := 0; seed < seeds; seed++ {
			m, err := search.New(method, algorithm, search.Problem{Space: &pr.space, Seed: uint64(1000 + seed), Budget: int64(trials), Parallelism: int64(open)})
			if err != nil {
				t.Fatal(err)
			}
			run, err := sweep(m, pr.value, trials, open)
			if err != nil {
				t.Fatalf("%s: %v", pr.name, err)
			}
			runs = append(runs, run)
		}
		curve := make([]float64, trials)
		for k := range curve {
			column := make([]float64, seeds)
			for r := range runs {
				column[r] = runs[r][k]
			}
			curve[k] = median(column)
		}
		out = append(out, curve)
	}
	return out
}

// regret is the geometric mean over problems of the median best value after k
// trials, as a share of what random search has after 100; floored at 0.01.
func regret(curves, random [][]float64, k int) float64 {
	sum := 0.0
	for i := range curves {
		unit := math.Max(random[i][len(random[i])-1], 1e-12)
		sum += math.Log(math.Max(0.01, curves[i][k-1]/unit))
	}
	return math.Exp(sum / float64(len(curves)))
}

// TestRegret holds every method to being better than random search by a wide
// margin, on problems of this package. The yardstick is deploy/bench/search.
func TestRegret(t *testing.T) {
	const seeds = 3
	random := curves(t, suite(), search.Random, "", 20, 100, 1)
	for _, m := range []struct {
		method, algorithm string
		limit             float64
	}{{search.Genetic, "", 0.5}, {search.Bayesian, search.CMAES, 0.5}, {search.Bayesian, search.TPE, 0.4}, {search.Bayesian, search.GP, 0.7}} {
		trials, problems, random := 100, suite(), random
		opens := []int{1}
		if m.algorithm == search.GP { // dear: fewer trials, two problems
			trials, problems, random, opens = 40, problems[6:8], random[6:8], []int{1, 8}
		}
		for _, open := range opens {
			c := curves(t, problems, m.method, m.algorithm, seeds, trials, open)
			if last := regret(c, random, trials); last > m.limit {
				t.Errorf("%s with %d open: regret %.2f of random's, want at most %.2f", title(m.method, m.algorithm), open, last, m.limit)
			}
		}
	}
}
