package trial

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The numbers of these types are those of the API's schema, of the raft log and
// of snapshots: they are never given to another meaning. Package wire turns one
// into the other. Zero is "not said", and its word is empty.
type (
	Status      int32 // of a trial
	SweepStatus int32
	Exit        int32 // how a run ended; zero while it goes on
	Verdict     int32 // what a running trial is told
	Outcome     int32 // what became of something a run said
	Source      int32 // where a trial's point came from; zero before that was recorded
	Action      int32 // what a person does to a sweep
)

// What a trial can be.
const (
	Waiting   Status = iota + 1 // proposed, or released by a lost run, and not leased
	Running                     // leased
	Paused                      // gave its slot back, may go on from its checkpoint
	Finished                    // trained to its end, early stopping by patience included
	Stopped                     // ended early by a verdict; its values count
	Diverged                    // loss became NaN or infinite: a result, not a failure
	Failed                      // no retry left, or an exit that is never retried
	Cancelled                   // ended by a person
)

// What a sweep can be.
const (
	SweepRunning   SweepStatus = iota + 1
	SweepPaused                // no new leases; running trials go on
	SweepStopping              // no new trials; running trials are told to stop
	SweepFinished              // budget used or space exhausted, all trials ended
	SweepStopped               // ended by a person, results kept
	SweepCancelled             // ended by a person, open trials dropped at once
	SweepFailed                // its failure says why
)

// How a run can end. Retries depend on it; see coordinator/state/DESIGN.md.
const (
	ExitFinished    Exit = iota + 1
	ExitStopped          // obeyed a stop verdict
	ExitPaused           // obeyed a pause verdict
	ExitReleased         // the worker gave the lease back (drain); not counted
	ExitDiverged         // loss became NaN or infinite
	ExitOutOfMemory      // never retried
	ExitBadSpec          // tried once more, by another worker where there is one
	ExitDeviceFault      // retried, on another slot where there is one
	ExitDiskFull         // retried
	ExitKilled           // ended by a signal nobody here sent; retried
	ExitCrashed          // any other failure; retried
	ExitLost             // lease expired or agent restarted; retried

	ExitRestored    Exit = 20 // the cluster's state was restored; not counted
	ExitDataMissing Exit = 21 // the data is not on that worker; tried by others, not counted
)

const (
	VerdictContinue Verdict = iota + 1
	VerdictPause
	VerdictStop
)

const (
	OutcomeRecorded Outcome = iota + 1
	OutcomeAlready          // known before: a repeat
	OutcomeFenced           // the token is not the trial's lease: stop that run
	OutcomeRefused          // malformed, or of an unknown sweep or trial
)

const (
	SourceSearch     Source = iota + 1 // the search method, from what it knew then
	SourceEnqueued                     // given by a person
	SourcePopulation                   // population-based training, from another trial
)

const (
	ActionPause Action = iota + 1
	ActionResume
	ActionStop
	ActionCancel
	ActionArchive
	ActionUnarchive
	ActionDelete
	ActionUndelete
)

// The words by number; they are part of the command's JSON, of metrics and of
// what stands in Redis and in trackers.
var (
	statusWords  = []string{"", "waiting", "running", "paused", "finished", "stopped", "diverged", "failed", "cancelled"}
	sweepWords   = []string{"", "running", "paused", "stopping", "finished", "stopped", "cancelled", "failed"}
	exitWords    = []string{"", "finished", "stopped", "paused", "released", "diverged", "out_of_memory", "bad_spec", "device_fault", "disk_full", "killed", "crashed", "lost", ExitRestored: "restored", ExitDataMissing: "data_missing"}
	verdictWords = []string{"", "continue", "pause", "stop"}
	outcomeWords = []string{"", "recorded", "already", "fenced", "refused"}
	sourceWords  = []string{"", "search", "enqueued", "population"}
	actionWords  = []string{"", "pause", "resume", "stop", "cancel", "archive", "unarchive", "delete", "undelete"}
)

// word is that of a number; the number itself where a newer peer gave it a
// meaning that this program does not know.
func word[T ~int32](words []string, v T) string {
	if v == 0 {
		return ""
	}
	if v > 0 && int(v) < len(words) && words[v] != "" {
		return words[v]
	}
	return strconv.Itoa(int(v))
}

func parse[T ~int32](what string, words []string, text string) (T, error) {
	if at := slices.Index(words, text); at > 0 && text != "" {
		return T(at), nil
	}
	return 0, fmt.Errorf("unknown %s %q: want one of %s", what, text, strings.Join(known(words), ", "))
}

func known(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
}

func (s Status) String() string      { return word(statusWords, s) }
func (s SweepStatus) String() string { return word(sweepWords, s) }
func (e Exit) String() string        { return word(exitWords, e) }
func (v Verdict) String() string     { return word(verdictWords, v) }
func (o Outcome) String() string     { return word(outcomeWords, o) }
func (s Source) String() string      { return word(sourceWords, s) }
func (a Action) String() string      { return word(actionWords, a) }

func (s Status) MarshalText() ([]byte, error)      { return []byte(s.String()), nil }
func (s SweepStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (e Exit) MarshalText() ([]byte, error)        { return []byte(e.String()), nil }
func (v Verdict) MarshalText() ([]byte, error)     { return []byte(v.String()), nil }
func (o Outcome) MarshalText() ([]byte, error)     { return []byte(o.String()), nil }
func (s Source) MarshalText() ([]byte, error)      { return []byte(s.String()), nil }

// UnmarshalText takes a word, and the empty one for "not said".
func (s *Status) UnmarshalText(text []byte) error      { return unmarshal(s, ParseStatus, text) }
func (s *SweepStatus) UnmarshalText(text []byte) error { return unmarshal(s, ParseSweepStatus, text) }
func (e *Exit) UnmarshalText(text []byte) error        { return unmarshal(e, ParseExit, text) }
func (v *Verdict) UnmarshalText(text []byte) error     { return unmarshal(v, ParseVerdict, text) }
func (o *Outcome) UnmarshalText(text []byte) error     { return unmarshal(o, ParseOutcome, text) }
func (s *Source) UnmarshalText(text []byte) error      { return unmarshal(s, ParseSource, text) }

func unmarshal[T ~int32](to *T, parse func(string) (T, error), text []byte) (err error) {
	if *to = 0; len(text) > 0 {
		*to, err = parse(string(text))
	}
	return err
}

// ParseStatus reads a trial's status; as with all words here, the error of another word lists those there are.
func ParseStatus(text string) (Status, error) {
	return parse[Status]("state of a trial", statusWords, text)
}

// ParseSweepStatus reads a sweep's status.
func ParseSweepStatus(text string) (SweepStatus, error) {
	return parse[SweepStatus]("state of a sweep", sweepWords, text)
}

// ParseExit reads an exit class, such as out_of_memory.
func ParseExit(text string) (Exit, error) { return parse[Exit]("exit class", exitWords, text) }

// ParseVerdict reads continue, pause or stop.
func ParseVerdict(text string) (Verdict, error) {
	return parse[Verdict]("verdict", verdictWords, text)
}

// ParseOutcome reads recorded, already, fenced or refused.
func ParseOutcome(text string) (Outcome, error) {
	return parse[Outcome]("outcome", outcomeWords, text)
}

// ParseAction reads pause, resume, stop, cancel, archive, unarchive, delete or undelete.
func ParseAction(text string) (Action, error) { return parse[Action]("action", actionWords, text) }

// ParseSource reads search, enqueued or population.
func ParseSource(text string) (Source, error) { return parse[Source]("source", sourceWords, text) }

// StatusWords are all states of a trial, for people to choose from.
func StatusWords() []string { return known(statusWords) }

// Over reports whether the trial has reached its last status. A number that this
// program does not know is not over.
func (s Status) Over() bool { return s >= Finished && s <= Cancelled }

// Over reports whether the sweep has ended; an extension or a retry may yet make
// it run again. A number that this program does not know is not over.
func (s SweepStatus) Over() bool { return s >= SweepFinished && s <= SweepFailed }

// Text is the exit as a sentence takes it: "out of memory".
func (e Exit) Text() string { return strings.ReplaceAll(e.String(), "_", " ") }

// Objective is a metric that ranks trials, and which way.
type Objective struct {
	Metric   string
	Maximize bool
}

// Better reports whether value a beats b; ties do not.
func (o Objective) Better(a, b float64) bool {
	if o.Maximize {
		return a > b
	}
	return a < b
}

// Direction is the word of a spec: maximize or minimize.
func (o Objective) Direction() string {
	if o.Maximize {
		return "maximize"
	}
	return "minimize"
}

// MarshalJSON writes the direction as its word.
func (o Objective) MarshalJSON() ([]byte, error) {
	return unescaped(struct {
		Metric    string `json:"metric"`
		Direction string `json:"direction"`
	}{o.Metric, o.Direction()})
}

// unescaped leaves it to the encoder outside what it makes of <, > and &.
func unescaped(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// Constraint bounds a metric, bounds included: a trial is acceptable at an epoch
// where every constraint of its sweep holds.
type Constraint struct {
	Metric         string
	HasMax, HasMin bool
	Max, Min       float64 // meaningful where Has says so
}

// Holds reports whether a value meets the constraint; NaN meets none.
func (c Constraint) Holds(v float64) bool {
	return !math.IsNaN(v) && (!c.HasMax || v <= c.Max) && (!c.HasMin || v >= c.Min)
}

// Excess is by how much a value is beyond the bounds: 0 or less within them, NaN
// for NaN.
func (c Constraint) Excess(v float64) float64 {
	out := math.Inf(-1)
	if c.HasMax {
		out = math.Max(out, v-c.Max)
	}
	if c.HasMin {
		out = math.Max(out, c.Min-v)
	}
	return out
}

// String is the constraint as people write it.
func (c Constraint) String() string {
	var bounds []string
	if c.HasMin {
		bounds = append(bounds, fmt.Sprintf("%s >= %g", c.Metric, c.Min))
	}
	if c.HasMax {
		bounds = append(bounds, fmt.Sprintf("%s <= %g", c.Metric, c.Max))
	}
	return strings.Join(bounds, " and ")
}

// MarshalJSON writes null for a bound that there is not.
func (c Constraint) MarshalJSON() ([]byte, error) {
	bound := func(has bool, v float64) *Number {
		if !has {
			return nil
		}
		return new(Number(v))
	}
	return unescaped(struct {
		Metric string  `json:"metric"`
		Max    *Number `json:"max"`
		Min    *Number `json:"min"`
	}{c.Metric, bound(c.HasMax, c.Max), bound(c.HasMin, c.Min)})
}

// Origin names the checkpoint of another trial that a trial starts from; Trial
// is 0 for one that starts from scratch.
type Origin struct {
	Trial int64 `json:"trial"`
	Epoch int32 `json:"epoch"`
}

// SweepStatusWords are all states of a sweep.
func SweepStatusWords() []string { return known(sweepWords) }
