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
func curves(t testing.TB, method, algorithm string, seeds, trials, open int) [][]float64 {
	t.Helper()
	var out [][]float64
	for _, pr := range suite() {
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

// TestRegret holds every method to being better than random search. With
// ATELIER_BENCH_SEEDS=20 it prints the table of BENCHMARKS.md; the default is
// a few seeds and the cheap methods.
func TestRegret(t *testing.T) {
	seeds, full := 3, false
	if n, err := strconv.Atoi(os.Getenv("ATELIER_BENCH_SEEDS")); err == nil && n > 0 {
		seeds, full = n, true
	}
	random := curves(t, search.Random, "", max(seeds, 20), 100, 1)
	random1 := random
	limit := map[string]float64{"genetic": 0.95, "cmaes": 0.95, "tpe": 0.8, "gp": 0.6, "auto": 0.6}
	only := os.Getenv("ATELIER_BENCH_ONLY")
	t.Logf("random: %.2f at 25, %.2f at 50, 1.00 at 100", regret(random, random1, 25), regret(random, random1, 50))
	for _, open := range []int{1, 8} {
		for _, m := range []struct{ method, algorithm string }{{search.Genetic, ""}, {search.Bayesian, search.CMAES}, {search.Bayesian, search.TPE}, {search.Bayesian, search.GP}} {
			name := m.algorithm
			if name == "" {
				name = m.method
			}
			if only != "" && !strings.Contains(only, name) || !full && open == 8 && name != "gp" {
				continue
			}
			trials := 100
			if !full && name == "gp" {
				trials = 50
			}
			began := time.Now()
			c := curves(t, m.method, m.algorithm, seeds, trials, open)
			line := fmt.Sprintf("%s, %d open: %.2f at 25, %.2f at 50", name, open, regret(c, random, 25), regret(c, random, 50))
			last := regret(c, random, trials)
			if trials == 100 {
				line += fmt.Sprintf(", %.3f at 100", last)
			}
			t.Logf("%s (%.1f ms a proposal)", line, float64(time.Since(began).Microseconds())/1000/float64(seeds*trials*len(c)))
			if os.Getenv("ATELIER_BENCH_DETAIL") != "" {
				for i, pr := range suite() {
					t.Logf("    %-14s %.3f %.3f %.3f", pr.name, c[i][24]/random[i][99], c[i][49]/random[i][99], c[i][trials-1]/random[i][99])
				}
			}
			if last > limit[name] {
				t.Errorf("%s with %d open: regret %.2f of random's, want at most %.2f", name, open, last, limit[name])
			}
		}
	}
}
