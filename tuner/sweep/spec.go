// Package sweep reads the spec of a sweep: the YAML a person writes, checked
// as a whole, so that one look at the errors is enough to mend the file.
//
// It refuses what it does not know: an unknown key is an error that names the
// nearest known one. Training settings alone pass through untouched, as
// canonical JSON; the trainer that a sweep names checks them.
package sweep

import (
	"fmt"
	"strings"

	"atelier/common/space"
	"atelier/tuner/pbt"
)

const (
	DefaultParallelism = 8
	DefaultMaxRetries  = 3
	DefaultTrainer     = "torch"

	// MaxGrid is the largest grid, in points, that is run without a budget.
	MaxGrid = 10_000_000
	// MaxTrials is the largest budget.
	MaxTrials = 100_000_000
	// MaxSize is the largest spec, in bytes.
	MaxSize = 1 << 20
)

// Objective is what a sweep optimises: a metric that the trainer reports.
type Objective struct {
	Metric   string
	Maximize bool
}

// Spec is a checked sweep spec with its defaults filled in.
type Spec struct {
	Name         string
	SearchMethod string // grid_search, bayesian, genetic, random or sobol
	Algorithm    string // of bayesian: auto, gp, tpe or cmaes; else empty
	Trainer      string
	Seed         uint64
	SeedSet      bool         // false: the spec has no seed; whoever submits it draws one
	Objective    Objective    // the first of Objectives
	Objectives   []Objective  // at least one; several make a Pareto front
	Constraints  []Constraint // all must hold
	Budget       Budget
	Parallelism  int64 // trials open at once, at most
	MaxRetries   int32 // failed runs of a trial that are tried again
	Space        space.Space
	TrainingJSON string        // JSON object, keys in the order of the spec; "{}" when absent
	Population   *pbt.Settings // of search_method pbt; else nil
	StoppingJSON string        // the rule that ends trials early, as package stop reads it; "" = none

	Enqueue         []string // points to be tried before any that search proposes, canonical JSON
	WarmStart       string   // id of the sweep whose results search begins with; empty = none
	CheckpointBytes int64    // of all checkpoints kept; 0 = no limit
	Priority        int32    // a higher one gets free slots first
	Requires        []Label  // that a worker must carry, by key
}

// Error is one fault of a spec.
type Error struct {
	File    string
	Line    int    // from 1; 0 when the fault has no place
	Key     string // dotted path, such as space.lr.low; empty for the whole file
	Message string // what is wrong and what to do
}

func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors is every fault of a spec, in the order of the file.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}
