package main

import (
	"fmt"
	"strings"
)

// bestAfter is the best value of the first n trials.
func (f *figures) bestAfter(n int) float64 {
	best := 0.0
	for _, t := range f.Trials[:min(n, len(f.Trials))] {
		best = max(best, t.Value)
	}
	return best
}

// table shows every sweep of the plan and, with several seeds, the mean of each
// method.
func table(plan []task, r recipe, j *journal) string {
	var b strings.Builder
	half := r.Trials / 2
	fmt.Fprintf(&b, "| method | seed | best val_acc | after %d trials | test_acc of the best | epochs | training, s | wall, s |\n|---|---|---|---|---|---|---|---|\n", half)
	row := func(method, seed string, best, early, test, epochs, training, wall float64) {
		fmt.Fprintf(&b, "| %s | %s | %.3f | %.3f | %.3f | %.0f | %.0f | %.0f |\n", method, seed, best, early, test, epochs, training, wall)
	}
	for _, t := range plan {
		if f := j.find(t, r); f != nil {
			row(t.Method, fmt.Sprint(t.Seed), f.Best, f.bestAfter(half), f.Test, float64(f.Epochs), f.Training, f.Wall)
		}
	}
	shown := map[string]bool{} // looked up only
	for _, t := range plan {
		if shown[t.Method] {
			continue
		}
		shown[t.Method] = true
		n, sum := 0.0, [6]float64{}
		for _, o := range plan {
			if f := j.find(o, r); f != nil && o.Method == t.Method {
				n++
				for i, v := range []float64{f.Best, f.bestAfter(half), f.Test, float64(f.Epochs), f.Training, f.Wall} {
					sum[i] += v
				}
			}
		}
		if n > 1 {
			row(t.Method, fmt.Sprintf("mean of %.0f", n), sum[0]/n, sum[1]/n, sum[2]/n, sum[3]/n, sum[4]/n, sum[5]/n)
		}
	}
	return b.String()
}
