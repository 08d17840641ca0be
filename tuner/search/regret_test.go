package search_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

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
// margin. With ATELIER_BENCH_SEEDS=20 and -v it prints the table of
// BENCHMARKS.md; the default is a few seeds, and a few problems for gp.
func TestRegret(t *testing.T) {
	seeds, full := 3, false
	if n, err := strconv.Atoi(os.Getenv("ATELIER_BENCH_SEEDS")); err == nil && n > 0 {
		seeds, full = n, true
	}
	random := curves(t, suite(), search.Random, "", max(seeds, 20), 100, 1)
	limit := map[string]float64{"genetic": 0.5, "cmaes": 0.5, "tpe": 0.4, "gp": 0.7} // gp: after 30 trials
	only := os.Getenv("ATELIER_BENCH_ONLY")
	t.Logf("random: %.2f at 25, %.2f at 50, 1.00 at 100", regret(random, random, 25), regret(random, random, 50))
	for _, open := range []int{1, 8} {
		for _, m := range []struct{ method, algorithm string }{{search.Genetic, ""}, {search.Bayesian, search.CMAES}, {search.Bayesian, search.TPE}, {search.Bayesian, search.GP}} {
			name := m.algorithm
			if name == "" {
				name = m.method
			}
			if only != "" && !strings.Contains(only, name) || !full && open == 8 && name != "gp" {
				continue
			}
			trials, problems, random := 100, suite(), random
			if !full && name == "gp" {
				trials, problems, random = 30, problems[6:8], random[6:8] // int5, mixed6
			}
			began := time.Now()
			c := curves(t, problems, m.method, m.algorithm, seeds, trials, open)
			line := fmt.Sprintf("%s, %d open:", name, open)
			for _, k := range []int{25, 50, 100} {
				if k <= trials {
					line += fmt.Sprintf(" %.3f at %d,", regret(c, random, k), k)
				}
			}
			last := regret(c, random, trials)
			t.Logf("%s %.1f ms a proposal", line, float64(time.Since(began).Microseconds())/1000/float64(seeds*trials*len(c)))
			if os.Getenv("ATELIER_BENCH_DETAIL") != "" {
				for i, pr := range problems {
					t.Logf("    %-14s %.3f at 25, %.3f at %d", pr.name, c[i][24]/random[i][99], c[i][trials-1]/random[i][99], trials)
				}
			}
			if last > limit[name] {
				t.Errorf("%s with %d open: regret %.2f of random's, want at most %.2f", name, open, last, limit[name])
			}
		}
	}
}
