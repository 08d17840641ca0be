package trial

import "encoding/json"

// The records are what a cluster tells of its sweeps, and their keys are what the
// command's -o json prints: a promise, which may be added to and never renamed.
// Times are Unix milliseconds, 0 = not yet; sizes are bytes. Lists and maps of
// records that package wire makes are never nil.

// Sweep is a sweep as it was when it was asked for.
type Sweep struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Kind         Kind            `json:"kind"`
	Status       SweepStatus     `json:"state"`
	Failure      string          `json:"failure"` // why, where it failed
	SearchMethod string          `json:"search_method"`
	Algorithm    string          `json:"algorithm"` // resolved, never "auto" once known
	Trainer      string          `json:"trainer"`
	Seed         uint64          `json:"seed"`
	Objective    Objective       `json:"objective"`
	BudgetTrials int64           `json:"budget_trials"`
	Parallelism  int64           `json:"parallelism"`
	MaxRetries   int32           `json:"max_retries"` // failed runs of a trial that are tried again, by cause
	Exhausted    bool            `json:"exhausted"`   // the search method has no further point
	CreatedMS    int64           `json:"created_ms"`
	EndedMS      int64           `json:"ended_ms"`
	BaseDir      string          `json:"base_dir"` // of the submitting program, for relative data paths
	Stopping     json.RawMessage `json:"stopping"` // the rule that ends trials early; null = none
	Counts       Counts          `json:"counts"`
	Best         *BestTrial      `json:"best"` // nil until a trial has a value

	Objectives      []Objective       `json:"objectives"` // all of them, Objective first
	Constraints     []Constraint      `json:"constraints"`
	BudgetEpochs    int64             `json:"budget_epochs"` // of all trials together; 0 = no limit, here and below
	Epochs          int64             `json:"epochs"`        // reported by all trials together
	BudgetMS        int64             `json:"budget_ms"`     // time that it runs, pauses not counted
	SpentMS         int64             `json:"spent_ms"`
	CheckpointBytes int64             `json:"checkpoint_bytes"` // of all checkpoints kept
	StoredBytes     int64             `json:"stored_bytes"`     // of those in the index
	Priority        int32             `json:"priority"`         // a higher one gets free slots first
	Enqueued        int64             `json:"enqueued"`         // given points that wait to become trials
	WarmStart       string            `json:"warm_start"`       // id of the sweep whose history it began with
	WarmTrials      int64             `json:"warm_trials"`      // how many trials of it
	Requires        map[string]string `json:"requires"`         // labels that a worker must carry
	Ending          string            `json:"ending"`           // why it ended, where that is no failure
	Findings        int64             `json:"findings"`         // how many there have been
	Note            string            `json:"note"`             // what keeps its trials waiting, where that is no matter of course
	Tags            []string          `json:"tags"`             // in order
	UserNote        string            `json:"user_note"`        // what a person wrote beside it
	ArchivedMS      int64             `json:"archived_ms"`      // 0 = it is not
	DeletedMS       int64             `json:"deleted_ms"`       // 0 = it is not
	PurgeMS         int64             `json:"purge_ms"`         // of a deleted one: when it goes for good

	Notify *Notification `json:"notify"` // where its end is posted; nil = nowhere

	MembersMin int32       `json:"members_min"` // slots that carry out a trial together, at least; 1 = one slot alone
	MembersMax int32       `json:"members_max"` // and at most
	Shards     int32       `json:"shards"`      // equal parts of each batch
	Groups     []GroupSize `json:"groups"`      // runs under way that groups carry out, by their members now, ascending

	SpecYAML string `json:"-"` // as submitted
	SpecJSON string `json:"-"` // checked (common/spec); empty in lists of sweeps
}

// Counts are those of a sweep's trials, by status, and of what they did.
type Counts struct {
	Proposed  int64 `json:"proposed"`
	Waiting   int64 `json:"waiting"`
	Running   int64 `json:"running"`
	Paused    int64 `json:"paused"`
	Finished  int64 `json:"finished"`
	Stopped   int64 `json:"stopped"`
	Diverged  int64 `json:"diverged"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Runs      int64 `json:"runs"`
	Reports   int64 `json:"reports"`
}

// Over is how many trials have reached their last status.
func (c Counts) Over() int64 { return c.Finished + c.Stopped + c.Diverged + c.Failed + c.Cancelled }

// BestTrial is a sweep's best trial in short.
type BestTrial struct {
	Trial   int64             `json:"trial"`
	Value   Number            `json:"value"`
	Epoch   int32             `json:"epoch"` // of the value
	Params  json.RawMessage   `json:"params"`
	Metrics map[string]Number `json:"metrics"` // all that were reported at that epoch
}

// Trial is a trial with its runs and checkpoints.
type Trial struct {
	Sweep       string          `json:"sweep"`
	Number      int64           `json:"trial"` // from 1 in its sweep
	Status      Status          `json:"state"`
	Params      json.RawMessage `json:"params"` // an object in the space's order
	Value       *Number         `json:"value"`  // the best so far; nil = none
	ValueEpoch  int32           `json:"value_epoch"`
	Epoch       int32           `json:"epoch"` // last reported, from 1; 0 before the first
	CreatedMS   int64           `json:"created_ms"`
	StartedMS   int64           `json:"started_ms"`
	EndedMS     int64           `json:"ended_ms"`
	Failure     string          `json:"failure"`
	Verdict     Verdict         `json:"verdict"`
	StopReason  string          `json:"stop_reason"` // which rule or person gave the verdict
	Runs        []Run           `json:"runs"`        // oldest first
	Checkpoints []Checkpoint    `json:"checkpoints"`

	Source      Source            `json:"source"`       // not said before that was recorded
	Seen        int64             `json:"seen"`         // findings of the sweep that its proposer knew
	OriginTrial int64             `json:"origin_trial"` // the trial whose checkpoint it started from; 0 = none
	OriginEpoch int32             `json:"origin_epoch"`
	Pauses      int32             `json:"pauses"`
	Metrics     map[string]Number `json:"metrics"`    // all that were reported at ValueEpoch; of several objectives and of constraints also those that were not, as NaN
	Infeasible  bool              `json:"infeasible"` // it has reported and met the constraints at no epoch
	Note        string            `json:"note"`       // why it waits, where a worker gave it back
	Data        string            `json:"data"`       // Data of its newest run that told one; empty: not told
	OtherData   bool              `json:"other_data"` // other data than the sweep's first run had
}

// LastRun is the newest run; nil before the first.
func (t *Trial) LastRun() *Run {
	if len(t.Runs) == 0 {
		return nil
	}
	return &t.Runs[len(t.Runs)-1]
}

// Run is one attempt at a trial on one worker.
type Run struct {
	Number       int32  `json:"number"` // from 1 in its trial
	Token        uint64 `json:"token"`  // of its lease
	Worker       string `json:"worker"`
	Slot         string `json:"slot"`
	StartedMS    int64  `json:"started_ms"`
	EndedMS      int64  `json:"ended_ms"`
	Exit         Exit   `json:"exit"` // not said while it goes on
	Message      string `json:"message"`
	ResumedEpoch int32  `json:"resumed_epoch"` // of the checkpoint it went on from; 0 = from scratch
	Data         string `json:"-"`             // what it trains and validates on; empty: not told

	Group *RunGroup `json:"group,omitempty"` // nil: one slot carries it out alone
}

// KeptLog is how many bytes the cluster keeps of the end of a run's log, beside
// the worker that wrote it.
const KeptLog = 64 << 10

// Checkpoint is a stored model state.
type Checkpoint struct {
	Sweep     string   `json:"sweep"`
	Trial     int64    `json:"trial"`
	Epoch     int32    `json:"epoch"`
	Metric    *Number  `json:"metric"` // objective value at that epoch; nil = none
	Size      int64    `json:"size"`
	SHA256    string   `json:"sha256"` // hex
	Location  Location `json:"location"`
	Worker    string   `json:"worker"`
	CreatedMS int64    `json:"created_ms"`
	Token     uint64   `json:"-"` // of the lease that wrote it
}

// Report is the metrics of one run at one epoch.
type Report struct {
	Epoch   int32   `json:"epoch"` // from 1
	TimeMS  int64   `json:"time_ms"`
	Metrics Metrics `json:"metrics"`
	Data    string  `json:"-"` // in a run's first: as Run.Data
}

// Row is a line of a leaderboard.
type Row struct {
	Rank       int64             `json:"rank"` // from 1
	Trial      int64             `json:"trial"`
	Status     Status            `json:"state"`
	Value      Number            `json:"value"`
	Params     json.RawMessage   `json:"params"`
	Epoch      int32             `json:"epoch"`      // of the value
	Checkpoint Location          `json:"checkpoint"` // the best one's; empty when none is kept
	Values     []Number          `json:"values"`     // of all objectives, NaN where not reported; empty where there is one
	Front      bool              `json:"front"`      // on the Pareto front
	Metrics    map[string]Number `json:"metrics"`    // all that were reported at that epoch
	OtherData  bool              `json:"-"`          // a run of it had other data than the sweep's first
}
