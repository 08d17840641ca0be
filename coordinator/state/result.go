package state

import (
	"errors"
	"fmt"

	"atelier/common/trial"
)

// What callers branch on; each comes wrapped with what and why.
var (
	ErrNotFound = errors.New("not found") // no such sweep or trial
	ErrConflict = errors.New("conflict")  // the state does not allow it now
	ErrInvalid  = errors.New("invalid")   // the command makes no sense in any state
)

// Result is what one command did.
type Result struct {
	Index   uint64 // of the entry; of the first one where Outcome says so and the request was remembered
	Err     error  // nil, or wraps ErrNotFound, ErrConflict or ErrInvalid; nothing was changed then
	Outcome trial.Outcome

	// Sweep and Trial say what the command was about. They matter where a repeat
	// answers with the first time's choice: a GrantLease whose request already
	// holds a lease names that lease's trial, a CreateSweep whose request id is
	// known names the sweep it made.
	Sweep string
	Trial int64
	Token uint64 // of GrantLease

	Members []int32 // of ChangeGroup the ids of those added, in their order; of GrantLease that of who asked, in a group

	Events  []EventResult // of RecordEvents, one an event
	Changes []Change
}

// EventResult is what became of one event of a run, and what the run is to do.
type EventResult struct {
	Outcome trial.Outcome
	Verdict trial.Verdict
	Message string
	Kept    []string // of a checkpoint: locations of the trial's that the index names now
}

// ChangeKind says what happened.
type ChangeKind uint8

const (
	SweepCreated       ChangeKind = iota + 1
	SweepChanged                  // status, budget, exhausted or failure
	TrialsProposed                // Trial is the first number
	LeaseGranted                  // Token, Worker
	LeaseEnded                    // Token, Worker; with or without the trial's end
	ReportRecorded                // Trial has a new row in its curve
	CheckpointRecorded            // Trial has a new checkpoint
	CheckpointDropped             // an indexed checkpoint was given up: Worker has it, Location where its file is to be deleted
	VerdictSet                    //
	TrialEnded                    // a last status was reached
	TrialReopened                 // waiting again: after a lost run, a retry, a resume
	MembersChanged                //
	DrainChanged                  // Worker
	TrialPaused                   // gave its slot back
	SweepPurged                   // a deleted sweep is gone; Trial is how many trials it had
	MemberJoined                  // Member of Worker holds a group's lease from now on
	MemberLeaving                 // Member is asked to leave its group
	MemberGone                    // Member of Worker holds it no more, be the run over or not
	ViewRecorded                  // a group's members made a new view
	AccessChanged                 // Worker is the id of a token or an invitation
	Restored                      // the whole state is another: nothing remembered of the one before holds
)

var changeNames = [...]string{"?", "SweepCreated", "SweepChanged", "TrialsProposed", "LeaseGranted", "LeaseEnded", "ReportRecorded",
	"CheckpointRecorded", "CheckpointDropped", "VerdictSet", "TrialEnded", "TrialReopened", "MembersChanged", "DrainChanged", "TrialPaused", "SweepPurged",
	"MemberJoined", "MemberLeaving", "MemberGone", "ViewRecorded", "AccessChanged", "Restored"}

// String is the kind's name, for transcripts and logs.
func (k ChangeKind) String() string {
	if int(k) < len(changeNames) {
		return changeNames[k]
	}
	return "?"
}

// Change is one thing that happened. A View taken after it shows it.
type Change struct {
	Index  uint64 // of the entry
	Kind   ChangeKind
	Sweep  string // "" where it is about none
	Trial  int64  // 0 where it is about none
	Worker string // of the lease or the file; the member or worker that changed
	Token  uint64 // of the lease
	Member int32  // of a group; 0 where it is about none

	Location string // of a checkpoint's file that nobody would delete unasked; else ""
}

// notFound, conflict and invalid are ErrNotFound, ErrConflict and ErrInvalid with words.
func notFound(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrNotFound, fmt.Sprintf(format, a...))
}
func conflict(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrConflict, fmt.Sprintf(format, a...))
}
func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))
}
