// Package search proposes the points that a sweep tries next.
//
// A Method is a pure function of the problem and the history: the same history
// gives the same proposals, from a fresh instance, on another machine, after a
// change of leader, and whether points are asked one by one or many at once.
// Trial k draws from its own random stream, keyed by (seed, k). Methods may
// cache what they can rebuild; they refuse clocks, global random sources and
// map order.
package search

import (
	"context"

	"atelier/common/space"
	"atelier/common/trial"
)

// Status is what search needs to know of a trial's life.
type Status uint8

const (
	Open      Status = iota // proposed and not ended
	Complete                // finished, or stopped early: its value counts
	Diverged                // ended with a loss beyond numbers: as bad as can be
	Failed                  // ended without saying anything about the point
	Cancelled               // ended by a person
)

// Trial is one line of a sweep's history.
type Trial struct {
	Number   int64 // from 1
	Point    space.Point
	Status   Status
	Value    float64 // of the objective; meaningful when HasValue
	HasValue bool
	Epoch    int // last reported epoch

	// Values holds one number for each of Problem.Objectives where there are
	// several; Value is then not read. Constraints holds the measured metric of
	// each of Problem.Constraints. NaN, or a missing tail, is a metric that was
	// not reported.
	Values      []float64
	Constraints []float64
}

// Problem is what is searched, and how far.
type Problem struct {
	Space       *space.Space
	Maximize    bool // of the one objective; Objectives has the say where it is given
	Seed        uint64
	Budget      int64 // trials in all; 0 or less = no limit
	Parallelism int64 // trials open at once, at most

	Objectives  []trial.Objective  // several make a Pareto front; none or one: Trial.Value counts
	Constraints []trial.Constraint // all must hold

	// Warm is the history of another sweep: its results teach, its points are
	// proposed again only when nothing else is left, its trials do not count
	// towards the budget. Points that are not of Space are passed over, and so
	// are trials without a result. Numbers are not read.
	Warm []Trial
}

// Proposal answers an ask.
type Proposal struct {
	Points    []space.Point  // canonical; the first belongs to trial len(history)+1
	Origins   []trial.Origin // one a point, or none at all
	Exhausted bool           // every point of the space has been proposed
}

// Method proposes points. Fewer than asked without Exhausted means that the
// budget is used, or that the method waits for more results.
//
// History is dense, in number order from 1. A Method is not safe for use from
// several goroutines at once.
type Method interface {
	Propose(ctx context.Context, history []Trial, n int) (Proposal, error)
}
