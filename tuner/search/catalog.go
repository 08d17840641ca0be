package search

import (
	"fmt"
	"strings"
)

// Search methods and, of bayesian, algorithms, by the names of the spec.
const (
	Grid     = "grid_search"
	Random   = "random"
	Bayesian = "bayesian"
	Genetic  = "genetic"
	Sobol    = "sobol"

	Auto  = "auto"
	GP    = "gp"
	TPE   = "tpe"
	CMAES = "cmaes"
)

// Methods lists the search methods, Algorithms those of bayesian.
var (
	Methods    = []string{Grid, Bayesian, Genetic, Random, Sobol}
	Algorithms = []string{Auto, GP, TPE, CMAES}
)

// Resolve returns the algorithm that New uses: "" for every method but
// bayesian, never auto.
func Resolve(searchMethod, algorithm string, p Problem) string {
	if searchMethod != Bayesian {
		return ""
	}
	if algorithm != Auto && algorithm != "" {
		return algorithm
	}
	d := len(p.Space.Params)
	if d <= maxGPAxes && p.Budget > 0 && p.Budget <= maxGPTrials {
		return GP
	}
	return TPE
}

// auto takes the Gaussian process where a trial costs far more than a
// suggestion and the model can learn every axis: budgets and spaces up to
// these.
const (
	maxGPTrials = 500
	maxGPAxes   = 30
)

// New returns the named method for a problem.
func New(searchMethod, algorithm string, p Problem) (Method, error) {
	if p.Space == nil {
		return nil, fmt.Errorf("search: no space")
	}
	if err := p.Space.Validate(); err != nil {
		return nil, fmt.Errorf("search: the space is not valid: %w", err)
	}
	switch searchMethod {
	case Random:
		return newAsker(p, random{p.Space, p.Seed}), nil
	case Sobol:
		return newAsker(p, newDesign(p.Space, p.Seed)), nil
	case Grid:
		g, err := newGrid(p.Space)
		if err != nil {
			return nil, err
		}
		return newAsker(p, g), nil
	case Genetic:
		return newAsker(p, newGenetic(p)), nil
	case Bayesian:
		s, err := newBayesian(Resolve(searchMethod, algorithm, p), p)
		if err != nil {
			return nil, err
		}
		return newAsker(p, s), nil
	}
	return nil, fmt.Errorf("search method %q is not known; choose one of %s", searchMethod, strings.Join(Methods, ", "))
}

func newBayesian(algorithm string, p Problem) (strategy, error) {
	var s *sampler
	switch algorithm {
	case CMAES:
		if p.goals() > 1 {
			return nil, fmt.Errorf("algorithm cmaes takes one objective, not %d; use gp or tpe, or search method genetic", p.goals())
		}
		c, err := newCMA(p)
		if err != nil {
			return nil, err
		}
		s = newSampler(p, 0, c)
	case TPE:
		s = newSampler(p, startup(p), newTPE(p))
	case GP:
		s = newSampler(p, startup(p), newGP(p))
	default:
		return nil, fmt.Errorf("algorithm %q is not known; choose one of %s", algorithm, strings.Join(Algorithms, ", "))
	}
	return newStudy(p, s)
}

// startup is how many trials come from the initial design: a few an axis, and
// enough to fill the slots before a model has anything to go on.
func startup(p Problem) int {
	d := len(p.Space.Params)
	return max(4, min(10, d+2), int(min(p.Parallelism, 8)))
}
