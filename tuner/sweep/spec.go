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
