// Package sweep reads the spec of a sweep: the YAML a person writes, checked
// as a whole, so that one look at the errors is enough to mend the file.
//
// It refuses what it does not know: an unknown key is an error that names the
// nearest known one. Training settings are kept as canonical JSON; of a spec that
// is about to run on the trainer torch they are checked, those of other trainers
// are theirs to check.
package sweep

import (
	"fmt"
	"strings"
)

// Defaults of keys that a spec may leave out. They are filled in when it is read and stand in the log from then
// on: a default that changes here changes new sweeps and no other.
const (
	DefaultParallelism = 8 // trials open at once
	DefaultMaxRetries  = 3 // failed runs of a trial
	DefaultTrainer     = "torch"

	// MaxGrid is the largest grid, in points, that is run without a budget. A larger one is
	// a slip in a step rather than a wish; with a budget a grid may have any size.
	MaxGrid = 10_000_000
	// MaxTrials is the largest budget.
	MaxTrials = 100_000_000
	// MaxSize is the largest spec, in bytes.
	MaxSize = 1 << 20
)

// Error is one fault of a spec.
type Error struct {
	File    string
	Line    int    // from 1; 0 when the fault has no place
	Key     string // dotted path, such as space.lr.low; empty for the whole file
	Message string // what is wrong and what to do
}

// Error is FILE:LINE: KEY: MESSAGE, the form that editors jump by.
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

// Error is a line a fault.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}
