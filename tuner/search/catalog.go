package search

import "fmt"

// Search methods and, of bayesian, algorithms, by the names of the spec.
const (
	Grid     = "grid_search"
	Random   = "random"
	Bayesian = "bayesian"
	Genetic  = "genetic"

	Auto  = "auto"
	GP    = "gp"
	TPE   = "tpe"
	CMAES = "cmaes"
)

// Methods lists the search methods, Algorithms those of bayesian.
var (
	Methods    = []string{Grid, Bayesian, Genetic, Random}
	Algorithms = []string{Auto, GP, TPE, CMAES}
)

// New returns the named method for a problem whose space is valid.
func New(searchMethod, algorithm string, p Problem) (Method, error) {
	return nil, fmt.Errorf("search method %q is not one of %v", searchMethod, Methods)
}
