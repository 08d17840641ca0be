// Package session is what a training, a tuning and an inference of a person have
// in common: the folder of results that one process at a time writes and a later
// one resumes, what --overwrite replaces in it, a sweep of one trial as the way
// into a cluster, and how such work ends. It trains and searches nothing, and
// prints nothing. DESIGN.md tells what lies in a folder.
package session

import (
	"errors"
	"fmt"
)

// ErrInterrupted ends work that was told to end; what it reached stands, and it
// can be resumed.
var ErrInterrupted = errors.New("interrupted")

// ErrGoesOn ends the watching of what goes on in a cluster.
var ErrGoesOn = errors.New("it continues in the cluster")

// Failure is work that ended by itself before its time.
type Failure struct {
	Class   string // of trainerproto, or the word of common/trial for how a run, trial or sweep ended
	Message string
	Hints   []string
	Remote  bool // in a cluster
	Killed  bool // by somebody else; Class is then a guess
}

func (f *Failure) Error() string { return f.Message }

// ExistsError refuses to write into a folder that holds other results.
type ExistsError struct {
	Dir string
	State
}

func (e *ExistsError) Error() string {
	resume := ""
	if e.Resumable {
		resume = fmt.Sprintf("--resume %s continues it, ", e.Dir)
	}
	return fmt.Sprintf("%s has %s: %s--overwrite replaces it, --out DIR puts this one elsewhere", e.Dir, e.Text, resume)
}
