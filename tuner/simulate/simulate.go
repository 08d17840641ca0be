// Package simulate runs a sweep's search alone: no cluster, no trainer; a
// command that stays up answers each trial with a value.
package simulate

import (
	"context"
	"errors"
	"io"

	"atelier/tuner/sweep"
)

// Options of a simulation.
type Options struct {
	Spec     *sweep.Spec
	Command  []string  // program and arguments; it stays up for the whole run
	Parallel int       // trials open at once; 0 = 1
	Out      io.Writer // receives one JSON object a finished trial
	Stderr   io.Writer // receives the command's standard error; nil drops it
}

// Run carries the simulation out.
func Run(ctx context.Context, o Options) error {
	if o.Spec == nil {
		return errors.New("simulate: no spec")
	}
	return errors.New("simulate: no engine")
}
