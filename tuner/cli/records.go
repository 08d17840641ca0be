package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial/wire"
)

// The records are what -o json prints. Their keys are a promise: they may be
// added to, never renamed. Times are Unix milliseconds, 0 = not yet.

type objectiveRecord struct {
	Metric    string `json:"metric"`
	Direction string `json:"direction"`
}

type countsRecord struct {
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

type bestRecord struct {
	Trial  int64           `json:"trial"`
	Value  num             `json:"value"`
	Epoch  int32           `json:"epoch"`
	Params json.RawMessage `json:"params"`
}

type sweepRecord struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Kind         string          `json:"kind"` // training | inference
	State        string          `json:"state"`
	Failure      string          `json:"failure"`
	SearchMethod string          `json:"search_method"`
	Algorithm    string          `json:"algorithm"`
	Trainer      string          `json:"trainer"`
	Seed         uint64          `json:"seed"`
	Objective    objectiveRecord `json:"objective"`
	BudgetTrials int64           `json:"budget_trials"`
	Parallelism  int64           `json:"parallelism"`
	MaxRetries   int32           `json:"max_retries"`
	Exhausted    bool            `json:"exhausted"`
	CreatedMS    int64           `json:"created_ms"`
	EndedMS      int64           `json:"ended_ms"`
	BaseDir      string          `json:"base_dir"`
	Stopping     json.RawMessage `json:"stopping"` // the rule that ends trials early; null = none
	Counts       countsRecord    `json:"counts"`
	Best         *bestRecord     `json:"best"`

	Objectives      []objectiveRecord  `json:"objectives"`
	Constraints     []constraintRecord `json:"constraints"`
	BudgetEpochs    int64              `json:"budget_epochs"` // 0 = no limit, here and below
	Epochs          int64              `json:"epochs"`
	BudgetMS        int64              `json:"budget_ms"`
	SpentMS         int64              `json:"spent_ms"`
	CheckpointBytes int64              `json:"checkpoint_bytes"`
	StoredBytes     int64              `json:"stored_bytes"`
	Priority        int32              `json:"priority"`
	Enqueued        int64              `json:"enqueued"`
	WarmStart       string             `json:"warm_start"`
	WarmTrials      int64              `json:"warm_trials"`
	Requires        map[string]string  `json:"requires"`
	Ending          string             `json:"ending"`
	Findings        int64              `json:"findings"`
	Note            string             `json:"note"` // what keeps its trials waiting, where that is no matter of course
}

type constraintRecord struct {
	Metric string `json:"metric"`
	Max    *num   `json:"max"`
	Min    *num   `json:"min"`
}

func (c constraintRecord) text() string {
	text := c.Metric
	if c.Min != nil {
		text = shortValue(c.Min) + " <= " + text
	}
	if c.Max != nil {
		text += " <= " + shortValue(c.Max)
	}
	return text
}

func sweepOf(s *atelierv1.Sweep) sweepRecord {
	c := s.GetCounts()
	r := sweepRecord{ID: s.GetId(), Name: s.GetName(), Kind: wire.Kind(s.GetKind()).String(), State: wire.SweepStatus(s.GetStatus()).String(), Failure: s.GetFailure(),
		SearchMethod: s.GetSearchMethod(), Algorithm: s.GetAlgorithm(), Trainer: s.GetTrainer(), Seed: s.GetSeed(),
		Objective:    objectiveOf(s.GetObjective()),
		BudgetTrials: s.GetBudgetTrials(), Parallelism: s.GetParallelism(), MaxRetries: s.GetMaxRetries(), Exhausted: s.GetExhausted(),
		CreatedMS: s.GetCreatedMs(), EndedMS: s.GetEndedMs(), BaseDir: s.GetDefaultDir(), Stopping: params(s.GetStoppingJson()),
		Counts: countsRecord{c.GetProposed(), c.GetWaiting(), c.GetRunning(), c.GetPaused(), c.GetFinished(), c.GetStopped(),
			c.GetDiverged(), c.GetFailed(), c.GetCancelled(), c.GetRuns(), c.GetReports()}}
	r.Objectives, r.Constraints, r.Requires = []objectiveRecord{}, []constraintRecord{}, map[string]string{}
	for _, o := range s.GetObjectives() {
		r.Objectives = append(r.Objectives, objectiveOf(o))
	}
	if len(r.Objectives) == 0 {
		r.Objectives = append(r.Objectives, r.Objective)
	}
	for _, x := range s.GetConstraints() {
		r.Constraints = append(r.Constraints, constraintRecord{x.GetMetric(), value(x.GetHasMax(), x.GetMax()), value(x.GetHasMin(), x.GetMin())})
	}
	for k, v := range s.GetRequires() {
		r.Requires[k] = v
	}
	r.BudgetEpochs, r.Epochs, r.BudgetMS, r.SpentMS = s.GetBudgetEpochs(), s.GetEpochs(), s.GetBudgetMs(), s.GetSpentMs()
	r.CheckpointBytes, r.StoredBytes, r.Priority, r.Enqueued = s.GetCheckpointBytes(), s.GetStoredBytes(), s.GetPriority(), s.GetEnqueued()
	r.WarmStart, r.WarmTrials = s.GetWarmStart(), s.GetWarmTrials()
	r.Ending, r.Findings, r.Note = s.GetEnding(), s.GetFindings(), s.GetNote()
	if b := s.GetBest(); b.GetHasValue() {
		r.Best = &bestRecord{b.GetNumber(), num(b.GetValue()), b.GetValueEpoch(), params(b.GetParamsJson())}
	}
	return r
}

func objectiveOf(o *atelierv1.Objective) objectiveRecord {
	return objectiveRecord{o.GetMetric(), wire.Objective(o).Direction()}
}

type rowRecord struct {
	Rank       int64           `json:"rank"`
	Trial      int64           `json:"trial"`
	State      string          `json:"state"`
	Value      num             `json:"value"`
	Params     json.RawMessage `json:"params"`
	Epoch      int32           `json:"epoch"`
	Checkpoint string          `json:"checkpoint"`
	Values     []num           `json:"values"` // of all objectives; empty where there is one
	Front      bool            `json:"front"`  // on the Pareto front
}

func rowOf(r *atelierv1.LeaderboardRow) rowRecord {
	row := rowRecord{r.GetRank(), r.GetTrial(), wire.Status(r.GetStatus()).String(), num(r.GetValue()), params(r.GetParamsJson()), r.GetEpoch(), r.GetCheckpoint(), []num{}, r.GetFront()}
	for _, v := range r.GetValues() {
		row.Values = append(row.Values, num(v))
	}
	return row
}

type runRecord struct {
	Number       int32  `json:"number"`
	Token        uint64 `json:"token"`
	Worker       string `json:"worker"`
	Slot         string `json:"slot"`
	StartedMS    int64  `json:"started_ms"`
	EndedMS      int64  `json:"ended_ms"`
	Exit         string `json:"exit"` // empty while it goes on
	Message      string `json:"message"`
	ResumedEpoch int32  `json:"resumed_epoch"`
}

type checkpointRecord struct {
	Sweep     string `json:"sweep"`
	Trial     int64  `json:"trial"`
	Epoch     int32  `json:"epoch"`
	Metric    *num   `json:"metric"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	Location  string `json:"location"`
	Worker    string `json:"worker"`
	CreatedMS int64  `json:"created_ms"`
}

func checkpointOf(c *atelierv1.Checkpoint) checkpointRecord {
	return checkpointRecord{c.GetSweepId(), c.GetTrial(), c.GetEpoch(), value(c.GetHasMetric(), c.GetMetric()), c.GetSize(), c.GetSha256(),
		c.GetLocation(), c.GetWorker(), c.GetCreatedMs()}
}

type trialRecord struct {
	Sweep       string             `json:"sweep"`
	Trial       int64              `json:"trial"`
	State       string             `json:"state"`
	Params      json.RawMessage    `json:"params"`
	Value       *num               `json:"value"`
	ValueEpoch  int32              `json:"value_epoch"`
	Epoch       int32              `json:"epoch"`
	CreatedMS   int64              `json:"created_ms"`
	StartedMS   int64              `json:"started_ms"`
	EndedMS     int64              `json:"ended_ms"`
	Failure     string             `json:"failure"`
	Verdict     string             `json:"verdict"`
	StopReason  string             `json:"stop_reason"`
	Runs        []runRecord        `json:"runs"`
	Checkpoints []checkpointRecord `json:"checkpoints"`

	Source      string         `json:"source"`       // search, enqueued, population; empty before that was recorded
	Seen        int64          `json:"seen"`         // findings of the sweep that its proposer knew
	OriginTrial int64          `json:"origin_trial"` // the trial whose checkpoint it started from; 0 = none
	OriginEpoch int32          `json:"origin_epoch"`
	Pauses      int32          `json:"pauses"`
	Metrics     map[string]num `json:"metrics"` // of several objectives and of constraints, at value_epoch
	Infeasible  bool           `json:"infeasible"`
	Note        string         `json:"note"`       // why it waits, where a worker gave it back
	Data        string         `json:"data"`       // digest of what it trains and validates on; empty: not told
	OtherData   bool           `json:"other_data"` // other data than the sweep's first run had
}

func trialOf(t *atelierv1.Trial) trialRecord {
	r := trialRecord{Sweep: t.GetSweepId(), Trial: t.GetNumber(), State: wire.Status(t.GetStatus()).String(), Params: params(t.GetParamsJson()),
		Value: value(t.GetHasValue(), t.GetValue()), ValueEpoch: t.GetValueEpoch(), Epoch: t.GetEpoch(),
		CreatedMS: t.GetCreatedMs(), StartedMS: t.GetStartedMs(), EndedMS: t.GetEndedMs(), Failure: t.GetFailure(),
		Verdict: wire.Verdict(t.GetVerdict()).String(), StopReason: t.GetStopReason(),
		Runs: []runRecord{}, Checkpoints: []checkpointRecord{}}
	r.Source, r.Seen, r.Pauses, r.Infeasible, r.Note = wire.Source(t.GetSource()).String(), t.GetProposedSeen(), t.GetPauses(), t.GetInfeasible(), t.GetNote()
	r.Data, r.OtherData = t.GetData(), t.GetOtherData()
	r.OriginTrial, r.OriginEpoch, r.Metrics = t.GetOrigin().GetTrial(), t.GetOrigin().GetEpoch(), map[string]num{}
	for _, x := range t.GetMetrics() {
		r.Metrics[x.GetName()] = num(x.GetValue())
	}
	for _, x := range t.GetRuns() {
		r.Runs = append(r.Runs, runRecord{x.GetNumber(), x.GetToken(), x.GetWorker(), x.GetSlot(), x.GetStartedMs(), x.GetEndedMs(),
			wire.Exit(x.GetExit()).String(), x.GetMessage(), x.GetResumedEpoch()})
	}
	for _, x := range t.GetCheckpoints() {
		r.Checkpoints = append(r.Checkpoints, checkpointOf(x))
	}
	return r
}

func value(has bool, v float64) *num {
	if !has {
		return nil
	}
	n := num(v)
	return &n
}

// params passes a JSON object through as it is; what is none becomes null.
func params(text string) json.RawMessage {
	if !json.Valid([]byte(text)) {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}

// ---- for tables ----------------------------------------------------------

func short(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

func shortValue(n *num) string {
	if n == nil {
		return "-"
	}
	return short(float64(*n))
}

// pairs writes parameters as lr=0.01 depth=3, in the space's order.
func pairs(raw json.RawMessage) string {
	fields, err := flatten("", raw)
	if err != nil {
		return string(raw)
	}
	out := make([]string, 0, len(fields))
	for _, f := range fields {
		v := f.value
		if x, err := strconv.ParseFloat(v, 64); err == nil && strings.ContainsAny(v, ".eE") {
			v = short(x)
		}
		if f.key != "" {
			out = append(out, f.key+"="+v)
		}
	}
	return strings.Join(out, " ")
}

func (e *Env) age(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return roundly(e.Now().Sub(time.UnixMilli(ms)))
}

func (e *Env) span(fromMS, toMS int64) string {
	if fromMS == 0 {
		return "-"
	}
	if toMS == 0 {
		return e.age(fromMS)
	}
	return roundly(time.Duration(toMS-fromMS) * time.Millisecond)
}

func clock(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z")
}

// roundly is a duration in its two largest units.
func roundly(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', map[bool]int{true: 1, false: 0}[d < 10*time.Second], 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func bytesOf(n int64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func count(n int64) string { return strconv.FormatInt(n, 10) }
