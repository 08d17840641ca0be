package main

import (
	"context"
	"math"
	"slices"

	"atelier/common/space"
	"atelier/deploy/bench/search/suite"
	"atelier/tuner/search"
)

// firstSeed keeps the seeds of measurements away from those of tests.
const firstSeed = 1000

// ours runs one of our methods on one variant.
func ours(ctx context.Context, p suite.Problem, method string, seed uint64, trials, open int) ([]float64, error) {
	name, algorithm := method, ""
	if slices.Contains(search.Algorithms, method) {
		name, algorithm = search.Bayesian, method
	}
	m, err := search.New(name, algorithm, search.Problem{Space: p.Space, Seed: seed, Budget: int64(trials), Parallelism: int64(open)})
	if err != nil {
		return nil, err
	}
	_, best, err := sweepOf(ctx, m, p.Variant(seed), trials, open)
	return best, err
}

// sweepOf runs trials with open of them at once, which end in the order they
// began, and returns the points and the best value after each. A space that is
// used up keeps its best.
func sweepOf(ctx context.Context, m search.Method, f func(space.Point) float64, trials, open int) (points []space.Point, best []float64, err error) {
	var history []search.Trial
	least, ended := math.Inf(1), 0
	for ended < trials {
		if room := min(open-(len(history)-ended), trials-len(history)); room > 0 {
			proposal, err := m.Propose(ctx, history, room)
			if err != nil {
				return nil, nil, err
			}
			for _, p := range proposal.Points {
				points = append(points, p)
				history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p})
			}
			if len(history) == ended {
				break
			}
		}
		t := &history[ended]
		t.Status, t.Value, t.HasValue = search.Complete, f(t.Point), true
		least = math.Min(least, t.Value)
		best = append(best, least)
		ended++
	}
	for len(best) < trials {
		best = append(best, least)
	}
	return points, best, nil
}
