package state

import (
	"iter"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
)

// Counts sums up a sweep's trials, by status; Proposed is all of them. Runs and Reports
// count those of all trials. They are kept up with every change, never recounted.
type Counts struct {
	Proposed, Waiting, Running, Paused, Finished, Stopped, Diverged, Failed, Cancelled int64
	Runs, Reports                                                                      int64
}

// Open is the number of trials that have not ended.
func (c Counts) Open() int64 { return c.Waiting + c.Running + c.Paused }

// Ended is the number of trials that have.
func (c Counts) Ended() int64 { return c.Proposed - c.Open() }

// In is the number of trials with a status.
func (c Counts) In(s trial.Status) int64 {
	if n := c.of(s); n != nil {
		return *n
	}
	return 0
}

// of returns the counter of a status; nil for no status.
func (c *Counts) of(s trial.Status) *int64 {
	switch s {
	case trial.Waiting:
		return &c.Waiting
	case trial.Running:
		return &c.Running
	case trial.Paused:
		return &c.Paused
	case trial.Finished:
		return &c.Finished
	case trial.Stopped:
		return &c.Stopped
	case trial.Diverged:
		return &c.Diverged
	case trial.Failed:
		return &c.Failed
	case trial.Cancelled:
		return &c.Cancelled
	}
	return nil
}

// Sweep is what a person asked for, its spec, and how far it got. Through a View
// it never changes. Times are Unix milliseconds.
type Sweep struct {
	*spec.Spec        // as it was taken, shared by all Views; what may change since stands below under a name of its own
	SpecJSON   string // its document, as it came in the log or was made of what did
	SpecYAML   string // the person's text, which nothing here reads
	BaseDir    string // relative data paths are read from it

	ID                 string            // s- and eight letters or digits, drawn by the API
	Kind               trial.Kind        // what its runs do; settled when it was made
	Status             trial.SweepStatus // stopping until the last open trial of a stopped sweep has ended
	Failure            string            // why it failed; "" unless SweepFailed
	Exhausted          bool              // the search method has no further point
	CreatedMS, EndedMS int64             // EndedMS is 0 while it has not ended
	ModifiedIndex      uint64            // raft index of the last change to the sweep or a trial of it; long polls wait for it
	Counts             Counts

	// The budget as extended, of trials, of epochs that trials report, and of
	// milliseconds in which the sweep runs. Trials are 0 where one of the others
	// alone bounds the sweep.
	Budget, BudgetEpochs, BudgetMS int64  // 0 = no limit
	Epochs                         int64  // reported by all trials together
	SpentMS, RunningSince          int64  // it ran SpentMS before RunningSince, which is 0 while it does not run
	Ending                         string // why it ended, where that is no failure
	Data                           string // of the first run that told what it trains and validates on
	Name                           string // of today, the spec's unless a person gave another
	Priority                       int32  // of today: a higher one gets free slots first
	StoredBytes                    int64  // of the checkpoints kept now

	Tags                  []string            // a person's, in order
	UserNote              string              // a person's
	ArchivedMS, DeletedMS int64               // 0 = it is not; see shelf.go
	Notification          *trial.Notification // never changed in place; nil = its end is posted nowhere

	Enqueued      []string           // given points, parameters as JSON, taken ones and later ones too
	EnqueuedTaken int64              // how many of them have become trials, from the front
	WarmTrials    []*logv1.WarmTrial // of the sweep WarmStart; never changed
	Findings      int64              // how many there have been; see Finding

	// By these a repeated CreateSweep finds the sweep, for as long as there is the sweep.
	CreateRequest string // request id that made it; empty where none was given, or from before it was kept
	CreatedIndex  uint64 // raft index of that

	// Kept up with every change, so that no View has to count. Whoever writes copies
	// the sweep first unless gen is the machine's: then no View has it.
	gen     uint64          // of the Machine's generations; see Machine.gen
	trials  vector[*Trial]  // trial i+1
	scores  vector[float64] // value of trial i+1, NaN while it has none
	best    int64           // number, 0 while none
	open    numbers         // waiting, running or paused
	retries numbers         // waiting, has had a run
	fresh   numbers         // waiting, has had none
	metrics []string        // names reported, in order of first appearance
	layouts []*layout       // the last few in use, so that trials share them
	badSpec int64           // failed trials whose last run ended BAD_SPEC
	stored  numbers         // trials with a checkpoint, where CheckpointBytes bounds them

	requests requestLog // of commands about it, but for the one that made it
}

// Len is the number of trials proposed.
func (s *Sweep) Len() int64 { return int64(s.trials.len()) }

// Trial returns trial n, nil if there is none.
func (s *Sweep) Trial(n int64) *Trial {
	if n < 1 || n > s.Len() {
		return nil
	}
	return s.trials.at(int(n - 1))
}

// Trials goes through all trials from number from on, in number order.
func (s *Sweep) Trials(from int64) iter.Seq[*Trial] {
	return func(yield func(*Trial) bool) {
		s.trials.leaves(int(max(from, 1)-1), func(_ int, items []*Trial) bool {
			for _, t := range items {
				if !yield(t) {
					return false
				}
			}
			return true
		})
	}
}

// Open returns the numbers of the trials waiting, running or paused, ascending.
func (s *Sweep) Open() []int64 { return append([]int64(nil), s.open.list...) }

// Waiting returns the numbers of the trials that wait for a lease, in the order
// they are to get one: those that lost a run first, then by number.
func (s *Sweep) Waiting() []int64 {
	w := make([]int64, 0, len(s.retries.list)+len(s.fresh.list))
	return append(append(w, s.retries.list...), s.fresh.list...)
}

// WaitingAgain returns those of Waiting that have had a run.
func (s *Sweep) WaitingAgain() []int64 { return append([]int64(nil), s.retries.list...) }

// Metrics returns the names reported so far, in order of first appearance.
func (s *Sweep) Metrics() []string { return append([]string(nil), s.metrics...) }

// Trial is one point of the space. Through a View it never changes.
type Trial struct {
	Number                        int64  // from 1 in its sweep
	ParamsJSON                    string // the point, canonical JSON; never changed
	Status                        trial.Status
	Verdict                       trial.Verdict // of the present lease
	HasValue                      bool          // an epoch that meets the constraints was reported with a finite value
	ValueEpoch                    int32         // at which Value was reported
	Value                         float64       // best finite objective value; meaningful when HasValue
	Runs                          []Run         // in order; the last one holds the lease, if there is one
	Checkpoints                   []Checkpoint  // newest first: the newest, and the best where that is another
	Lease                         *Lease        // nil unless RUNNING
	StopReason, Failure           string        // for people: why it was stopped, paused or cancelled; why it failed
	CreatedMS, StartedMS, EndedMS int64         // StartedMS is that of the first run; 0 = not yet
	FailedRuns, LostRuns          int32         // against MaxRetries and maxLosses, since it was last retried by hand
	Refusals                      int32         // runs that ended BAD_SPEC, since it was last retried
	Pauses                        int32         // how often a rule paused it: its level

	// Where the point came from, and what its proposer knew: how many findings
	// of the sweep, and how many trials it reckoned with.
	Source                       trial.Source
	ProposedSeen, ProposedBudget int64        // sweep verify computes the proposal again from these
	Origin                       trial.Origin // the checkpoint it starts from; zero = from scratch
	Findings                     []Finding    // in the order they were made

	gen   uint64
	curve curve // all reports, over all runs
}

// Epoch is the last one reported, 0 before the first.
func (t *Trial) Epoch() int32 { return t.curve.lastEpoch() }

// Reports calls fn with each report in epoch order until it returns false.
func (t *Trial) Reports(fn func(Report) bool) { t.curve.each(fn) }

// ReportCount is the number of reports.
func (t *Trial) ReportCount() int { return len(t.curve.epochs) }

// MetricAt returns a metric's value at an epoch; false if not reported.
func (t *Trial) MetricAt(epoch int32, name string) (float64, bool) {
	i, ok := t.curve.row(epoch)
	if !ok {
		return 0, false
	}
	return t.curve.metric(i, name)
}

// BestCheckpoint returns the kept checkpoint with the best objective value, nil
// when none is kept. Without any value it is the newest.
func (t *Trial) BestCheckpoint(o trial.Objective) *Checkpoint {
	if len(t.Checkpoints) == 0 {
		return nil
	}
	return &t.Checkpoints[bestCheckpoint(o, t.Checkpoints)]
}

// Ended reports whether the trial has reached its last status.
func (t *Trial) Ended() bool { return t.Status.Over() }

// Finding is what search learned of a trial, at its end and at each pause.
// Ordinals count a sweep's findings from 1 in the order of the log; a trial's
// later finding takes the place of the one before. What search knew when it had
// seen n findings is thus a function of the state for every n up to now.
type Finding struct {
	Ordinal           int64        // from 1 in the sweep
	Status            trial.Status // at that moment: its last one, or paused
	HasValue          bool
	ValueEpoch, Epoch int32   // at which Value was reported; the last one reported
	Value             float64 // best so far; meaningful when HasValue
}

// Known returns what search knew of the trial after seen findings of the sweep;
// false while it knew nothing but the point.
func (t *Trial) Known(seen int64) (Finding, bool) {
	for i := len(t.Findings) - 1; i >= 0; i-- {
		if t.Findings[i].Ordinal <= seen {
			return t.Findings[i], true
		}
	}
	return Finding{}, false
}

// Run is one attempt at a trial.
type Run struct {
	Number       int32      // from 1 in its trial
	Data         string     // what it trains and validates on (common/trial); "" = not told
	ResumedEpoch int32      // epoch of the newest checkpoint when it was granted; 0 = from scratch
	Token        uint64     // of its lease: what carries it is the run's
	Worker, Slot string     // who carries it out, and on what
	StartedMS    int64      // when the lease was granted
	EndedMS      int64      // 0 while it goes on
	Exit         trial.Exit // 0 while it goes on
	Message      string     // about its end, for people
	Credential   string     // SHA-256 of the secret that speaks for this run alone; "" = none

	// Group is who carries it out together; nil = one slot alone. Views share it: it is never changed in place.
	Group *trial.RunGroup
}

// Lease is the right to carry out a run. When it runs out is not here: the leader
// knows, and writes the end into the log.
//
// Of a run that a group carries out there is one lease, too, which all its members
// hold: see group.go for what is always so. Worker, Incarnation, Slot, Request and
// Folder are then those of the member that reports, as the run's Worker and Slot are.
type Lease struct {
	Token                              uint64 // of the grant; greater than that of every lease before
	Worker, Incarnation, Slot, Request string // who asked, in which start of the agent, under which request id
	GrantedMS                          int64
	TermMS                             int64               // chosen by the holder; 0 = the cluster's
	End                                End                 // known when it was granted, so that the run ends there by itself
	Final                              bool                // no other worker could try: a refusal is the trial's own
	Folder                             string              // id of the worker's data folder; may be empty
	Members                            []trial.GroupMember // the run's group's, by id; nil = one slot carries the run out alone
}

// End is where a run ends by itself, so that nobody has to be told in time:
// Epoch is the last one, 0 for the spec's own; Verdict is PAUSE or STOP.
type End struct {
	Epoch   int32
	Verdict trial.Verdict
	Reason  string
}

// Checkpoint is a stored model state. The file is the worker's; the state is the index of what is kept, and a
// worker deletes what is not in it.
type Checkpoint struct {
	Epoch                    int32
	HasMetric                bool    // the epoch has an objective value
	Metric                   float64 // objective value at that epoch
	Size                     int64   // bytes
	SHA256, Location, Worker string  // in hex; where it is fetched; whose disk it lies on
	CreatedMS                int64
	Token                    uint64 // of the run that wrote it
}

// Member is a coordinator as the cluster remembers it: where to find it. Which
// nodes vote is raft's to say.
type Member struct {
	ID, RaftAddress, APIAddress, GossipAddress string
	// FolderID names the data folder that holds the member's log and votes. The
	// same id in another folder is another node. "" = not told yet.
	FolderID string
}
