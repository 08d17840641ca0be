// Package spec is a sweep's spec as it stands once it was checked: what the log,
// snapshots and the API carry as one JSON document, spec_json, with its version
// and all defaults filled in. Package tuner/sweep makes it of a person's YAML;
// everything behind the API reads it through Decode and nothing else.
//
// It refuses to judge: what was taken into a log is read for ever, however strict
// a later check of new specs is. A document of a newer version is an error.
package spec

import (
	"atelier/common/space"
	"atelier/common/trial"
)

// Version is the newest form of the document that Encode writes and Decode reads.
// A new key needs no new version as long as leaving it out means what its absence
// always meant; a key of another meaning does.
const Version = 1

// Spec is a checked spec. A new key is a field with its JSON key here (left out
// where it is zero), read from YAML in tuner/sweep.
type Spec struct {
	Name         string `json:"name"`
	SearchMethod string `json:"search_method"`       // grid_search, bayesian, genetic, random, sobol or pbt
	Algorithm    string `json:"algorithm,omitempty"` // of bayesian: auto, gp, tpe or cmaes; else empty
	Trainer      string `json:"trainer"`
	Seed         uint64 `json:"seed"`
	Parallelism  int64  `json:"parallelism"` // trials open at once, at most
	MaxRetries   int32  `json:"max_retries"` // failed runs of a trial that are tried again
	Budget       Budget `json:"budget,omitzero"`

	WarmStart       string      `json:"warm_start,omitempty"`       // id of the sweep whose results search begins with; empty = none
	CheckpointBytes int64       `json:"checkpoint_bytes,omitempty"` // of all checkpoints kept; 0 = no limit
	Priority        int32       `json:"priority,omitempty"`         // a higher one gets free slots first
	Requires        []Label     `json:"requires,omitempty"`         // that a worker must carry, by key
	Population      *Population `json:"population,omitempty"`       // of search_method pbt; else nil

	Members Members `json:"members,omitzero"` // slots that carry out a trial together; 1 to 1 where nothing else was asked for
	Shards  int32   `json:"shards,omitempty"` // equal parts of each batch, at least Members.Max; 1 = batches are not cut

	// These have a form of their own in the document; see document.
	Objective    trial.Objective    `json:"-"` // the first of Objectives
	Objectives   []trial.Objective  `json:"-"` // at least one; several make a Pareto front
	Constraints  []trial.Constraint `json:"-"` // all must hold
	Space        space.Space        `json:"-"`
	TrainingJSON string             `json:"-"` // JSON object, keys in the order of the text; "{}" when absent
	StoppingJSON string             `json:"-"` // the rule that ends trials early, as package stop reads it; "" = none
	Enqueue      []string           `json:"-"` // points to be tried before any that search proposes, canonical JSON

	SeedSet bool `json:"-"` // what a person wrote has a seed; else who submits it draws one
}

// Budget bounds a sweep; what comes first ends it. Of a sweep under way the state
// has the budget of today, which a person may have extended.
type Budget struct {
	Trials int64 `json:"trials,omitempty"`  // 0 = as many as epochs or time allow; of a grid without budget: its number of points
	Epochs int64 `json:"epochs,omitempty"`  // that all trials report together; 0 = no limit
	TimeMS int64 `json:"time_ms,omitempty"` // that the sweep runs, pauses not counted; 0 = no limit
}

// Members are how many slots compute a trial together: a run is granted with Min at least and grows up to Max.
type Members struct {
	Min int32 `json:"min"`
	Max int32 `json:"max"`
}

// Group reports whether runs are carried out by a group, be it of one member that others may join.
func (m Members) Group() bool { return m.Max > 1 }

// IsZero reports what a document leaves out: one slot carries a trial out alone.
func (m Members) IsZero() bool { return m.Min <= 1 && m.Max <= 1 }

// Label is what a worker must carry to get trials of a sweep.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Population is what search_method pbt needs.
type Population struct {
	Interval int     `json:"interval"` // epochs of a segment, from 1
	Epochs   int     `json:"epochs"`   // of a whole training
	Share    float64 `json:"share"`    // of the members that are the worst, and the best; above 0, at most 0.5
	Perturb  float64 `json:"perturb"`  // how far a number is moved, as a share of its axis; above 0, at most 1
}
