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

// Resolve returns the algorithm that proposes trial number of a problem: ""
// for every method but bayesian, never auto. It reads nothing of the problem that
// can change while a sweep runs.
func Resolve(searchMethod, algorithm string, p Problem, number int64) string {
	if searchMethod != Bayesian {
		return ""
	}
	if algorithm != Auto && algorithm != "" {
		return algorithm
	}
	if len(p.Space.Params) <= maxGPAxes && number <= maxGPTrials {
		return GP
	}
	return TPE
}

// Explain says, for people, what Resolve chooses over a problem's budget and
// why.
func Explain(searchMethod, algorithm string, p Problem) string {
	switch {
	case searchMethod != Bayesian:
		return searchMethod
	case algorithm != Auto && algorithm != "":
		return fmt.Sprintf("%s %s", searchMethod, algorithm)
	case len(p.Space.Params) > maxGPAxes:
		return fmt.Sprintf("bayesian auto: tpe, as the space has more than %d parameters", maxGPAxes)
	case p.Budget > 0 && p.Budget <= maxGPTrials:
		return fmt.Sprintf("bayesian auto: gp, as the budget is at most %d trials", maxGPTrials)
	}
	return fmt.Sprintf("bayesian auto: gp up to trial %d, then tpe, which costs less a trial", maxGPTrials)
}

// auto takes the Gaussian process where a trial costs far more than a
// suggestion and the model can learn every axis: trials and spaces up to these.
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
		s, err := newBayesian(algorithm, p)
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
	case Auto, "":
		s = newSampler(p, startup(p), auto{p, newGP(p), newTPE(p)})
	default:
		return nil, fmt.Errorf("algorithm %q is not known; choose one of %s", algorithm, strings.Join(Algorithms, ", "))
	}
	return newStudy(p, s)
}

// auto hands each trial to the algorithm that Resolve names.
type auto struct {
	problem Problem
	gp, tpe algorithm
}

func (a auto) suggest(number int64, seen []observation) ([]float64, error) {
	if Resolve(Bayesian, Auto, a.problem, number) == GP {
		return a.gp.suggest(number, seen)
	}
	return a.tpe.suggest(number, seen)
}

// startup is how many trials come from the initial design: a few an axis.
// While nothing has ended the design goes on, however many are open.
func startup(p Problem) int {
	return max(4, min(10, len(p.Space.Params)+2))
}
