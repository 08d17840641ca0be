package trial

import (
	"encoding/json"
	"time"
)

// LeaseRef names a lease: its trial, and the token, which is the fence. Of a run
// that a group carries out it names one member's part in the lease.
type LeaseRef struct {
	Sweep  string
	Trial  int64
	Token  uint64
	Member int32 // id in the group; 0 = one slot carries the run out alone
}

// Lease is the right to carry out a run, with all that a worker needs for it.
type Lease struct {
	LeaseRef
	Kind        Kind
	Run         int32 // from 1 in its trial
	Slot        string
	Trainer     string
	Params      json.RawMessage // an object
	Training    json.RawMessage // the spec's training settings
	Seed        uint64          // of this trial
	Objective   Objective
	Checkpoints []Checkpoint  // newest first: go on from the first that can be fetched
	Origin      Origin        // a trial that starts from another's: checkpoints are that trial's then
	BaseDir     string        // that relative data paths are read from
	LastEpoch   int32         // the last one that is reported already
	TTL         time.Duration // of the lease, unless it is renewed

	// Train up to this epoch and no further, report it, keep a checkpoint of it and
	// end the run as EndVerdict (pause or stop) says, without being told. 0 = to the
	// last epoch of the training settings.
	EndEpoch   int32
	EndVerdict Verdict
	EndReason  string // for people

	Group *Group // nil: one slot carries the run out alone
}

// Event is what is told of a run: one of Report, Checkpoint, Ended, Lost,
// MemberEnded and View.
type Event struct {
	LeaseRef
	Report     *Report
	Checkpoint *Checkpoint
	Ended      *Ended
	Lost       *LostCheckpoint // the token is that of the checkpoint: who says so needs no lease

	MemberEnded *Ended // the member named is gone; the others continue
	View        *View
}

// Ended says how a run ended.
type Ended struct {
	Exit    Exit
	Message string
	TimeMS  int64
}

// LostCheckpoint is an indexed checkpoint whose file is gone.
type LostCheckpoint struct {
	Epoch    int32
	Location Location
	Worker   string // who found out
}

// EventResult is what became of an event.
type EventResult struct {
	Outcome Outcome
	Verdict Verdict
	Message string

	// Of a checkpoint that is in the index or was: where the trial's checkpoints lie
	// that the index names now. The files of its others may go. Empty from
	// coordinators that do not tell.
	Kept []Location
}
