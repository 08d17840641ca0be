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
	Both  = "gp+tpe" // gp for the first 500 trials, then tpe; what auto may become
)

// Methods lists the search methods, Algorithms those of bayesian.
var (
	Methods    = []string{Grid, Bayesian, Genetic, Random, Sobol}
	Algorithms = []string{Auto, GP, TPE, CMAES}
)

// Resolve returns the algorithm by which a sweep is searched: "" for every
// method but bayesian, never auto. What auto becomes depends on the space and
// the budget: gp where a trial costs far more than a suggestion and the model
// can learn every axis, tpe beyond, and gp+tpe, which hands over, where the sweep
// may outgrow gp or has no budget of trials.
func Resolve(searchMethod, algorithm string, p Problem) string {
	switch {
	case searchMethod != Bayesian:
		return ""
	case algorithm != Auto && algorithm != "":
		return algorithm
	case len(p.Space.Params) > maxGPAxes:
		return TPE
	case p.Budget > 0 && p.Budget <= maxGPTrials:
		return GP
	}
	return Both
}

// How many trials and axes auto leaves to gp.
const (
	maxGPTrials = 500
	maxGPAxes   = 100
)

// New returns the named method for a problem. Its space was checked where the spec
// was submitted (space.Validate). It is not checked again: the space of a sweep that
// runs may be one that is refused by now.
func New(searchMethod, algorithm string, p Problem) (Method, error) {
	if p.Space == nil || len(p.Space.Params) == 0 {
		return nil, fmt.Errorf("search: the space has no parameter")
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
		s, err := newAlgorithm(settled(algorithm, p), p)
		if err != nil {
			return nil, err
		}
		return newAsker(p, s), nil
	}
	return nil, fmt.Errorf("search method %q is not known; choose one of %s", searchMethod, strings.Join(Methods, ", "))
}

// newAlgorithm makes bayesian with an algorithm whose name is settled.
func newAlgorithm(name string, p Problem) (strategy, error) {
	switch name {
	case CMAES:
		if p.goals() > 1 {
			return nil, fmt.Errorf("algorithm cmaes takes one objective, not %d; use gp or tpe, or search method genetic", p.goals())
		}
		c, err := newCMA(p)
		if err != nil {
			return nil, err
		}
		return newBayesian(p, 0, c), nil
	case TPE:
		return newBayesian(p, startup(p), newTPE(p)), nil
	case GP:
		return newBayesian(p, startup(p), newGP(p)), nil
	case Both:
		return newBayesian(p, startup(p), gpThenTPE{newGP(p), newTPE(p)}), nil
	}
	return nil, fmt.Errorf("algorithm %q is not known; choose one of %s", name, strings.Join(Algorithms, ", "))
}

// settled is Resolve without the budget: proposals are the same before and
// after a budget is extended.
func settled(algorithm string, p Problem) string {
	p.Budget = 0
	return Resolve(Bayesian, algorithm, p)
}

// gpThenTPE is both, one after the other: gp models every trial with every other, whose price grows with the cube of
// their number; tpe goes on from maxGPTrials.
type gpThenTPE struct{ gp, tpe algorithm }

// suggest implements algorithm.
func (r gpThenTPE) suggest(number int64, seen []observation) ([]float64, error) {
	if number <= maxGPTrials {
		return r.gp.suggest(number, seen)
	}
	return r.tpe.suggest(number, seen)
}

// startup is how many trials come from the initial design: a few an axis.
// While nothing has ended the design goes on, however many are open.
func startup(p Problem) int {
	return max(4, min(10, len(p.Space.Params)+2))
}
