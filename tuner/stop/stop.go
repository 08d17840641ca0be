// Package stop holds the rules that end trials early: they look at the
// learning curves of a sweep and say which trials pause, go on or end.
//
// A rule is a pure function of how the trials stand. The package refuses
// clocks, randomness and map order, and it knows nothing of search: every rule
// goes with every search method.
package stop

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Status is what a rule needs to know of a trial's life.
type Status uint8

const (
	Waiting Status = iota // for a worker
	Running
	Paused
	Ended // any last status
)

// Report is the objective of one epoch.
type Report struct {
	Epoch int
	Value float64 // may be NaN or infinite
}

// Trial is a trial as it stands.
type Trial struct {
	Number  int64
	Status  Status
	Asked   Action   // of its running run: Pause or Stop, or 0
	Level   int      // how often the rule has let it go on
	From    int      // the epoch of another trial's checkpoint that it began from; 0 = from scratch
	Reports []Report // in epoch order, epochs from 1; the RuleState does not keep the slice
}

// Action is what a Decision asks for.
type Action uint8

const (
	Pause  Action = iota + 1 // end the run with a checkpoint; the trial may go on later
	Stop                     // end the trial
	Resume                   // a paused trial waits for a worker again
)

func (a Action) String() string {
	switch a {
	case Pause:
		return "pause"
	case Stop:
		return "stop"
	case Resume:
		return "resume"
	}
	return "continue"
}

// Decision is what becomes of a trial, and why, for people.
type Decision struct {
	Trial  int64
	Action Action
	Reason string
}

// Problem is what a sweep compares trials by.
type Problem struct {
	Metric   string
	Maximize bool
}

// better reports whether a beats b; a value that is not finite beats none.
func (p Problem) better(a, b float64) bool {
	switch {
	case !finite(a):
		return false
	case !finite(b):
		return true
	case p.Maximize:
		return a > b
	}
	return a < b
}

// compare orders values, best first; those that are not finite are last and
// equal.
func (p Problem) compare(a, b float64) int {
	switch {
	case p.better(a, b):
		return -1
	case p.better(b, a):
		return 1
	}
	return 0
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// RuleState is what a rule has been told of a sweep. It is not safe for use from
// several goroutines at once.
type RuleState interface {
	// Put tells how a trial stands now.
	Put(t Trial)
	// Decide returns all that is to be done as the trials stand, in order of
	// their numbers. unproposed is how many trials the sweep may yet begin.
	Decide(unproposed int64) []Decision
}

// NewState returns an empty one. The settings must be valid.
func (s Settings) NewState(p Problem) RuleState {
	switch s.Rule {
	case ASHA, Hyperband:
		return newHalving(s, p)
	case Median, Percentile:
		return newCrowd(s, p)
	case Patience:
		return &patience{set: s, problem: p, wish: wishes{}}
	case Segment:
		return &segment{set: s, wish: wishes{}}
	}
	return none{}
}

// none decides nothing.
type none struct{}

func (none) Put(Trial)               {}
func (none) Decide(int64) []Decision { return nil }

// wishes are decisions by trial, kept until carried out.
type wishes map[int64]Decision

// list is what is wished, in order of numbers.
func (w wishes) list() []Decision {
	out := make([]Decision, 0, len(w))
	for _, d := range w {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Decision) int { return cmp.Compare(a.Trial, b.Trial) })
	return out
}

// format writes a value for people.
func format(v float64) string { return fmt.Sprintf("%.4g", v) }
