// Package trainerproto is the protocol between a worker's agent and a trainer,
// in any language: one process a run.
//
// The agent starts a trainer ahead of time. The trainer writes a hello event to
// file descriptor 3 and waits for one line on standard input: the job, a JSON
// object. From then on it writes events to descriptor 3, one JSON object a
// line, and may read further lines from standard input: control messages.
// Standard error is for people; standard output is not used. The process ends
// with code 0 after a done event and with another after a failed event. A
// SIGTERM asks it to end soon, a SIGKILL follows after a grace time.
//
// The package refuses lines longer than MaxLine and events it cannot decode;
// it knows nothing of leases, raft or the network.
package trainerproto

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"atelier/common/trial"
)

// Version of the protocol, said in hello and in the job.
const Version = 1

// MaxLine is the longest line either side may write, in bytes.
const MaxLine = 1 << 20

// EventsFD is the descriptor a trainer writes its events to.
const EventsFD = 3

// LinksFD is a Unix socket on which a trainer that is a member of a group is
// handed connections to the other members (common/links). It is open in every
// trainer; one that knows no groups leaves it alone.
const LinksFD = 4

// GroupVersion is the version of the protocol between members, said in hello.
const GroupVersion = 1

// ErrLineTooLong is returned for a line beyond MaxLine.
var ErrLineTooLong = errors.New("trainer protocol: line longer than 1 MiB")

// LogSkipped is the name of an attribute of a warning on standard error (slog's
// text): it says that the warning is of one image, which is left out.
const LogSkipped = "skipped_image"

// LogAgain is the message of a member's log where its step in hand has to be done
// again; the view in which it is done is the attribute view.
const LogAgain = "a step is done again"

// Job is what a trainer is told: one run of one trial.
type Job struct {
	Protocol int             `json:"protocol"`
	Sweep    string          `json:"sweep"`
	Trial    int64           `json:"trial"`
	Run      int32           `json:"run"`
	Seed     uint64          `json:"seed"`
	Params   json.RawMessage `json:"params"`         // JSON object: the trial's point; overrides Training
	Training json.RawMessage `json:"training"`       // JSON object: the sweep's training settings
	Kind     string          `json:"kind,omitempty"` // "inference" where Training is a task of inference; "training" or empty else

	Metric   string `json:"metric"`   // objective metric: decides which checkpoint is best
	Maximize bool   `json:"maximize"` // direction of the objective

	Device      string `json:"device"`       // "cpu", "cuda:0"; "auto" = the first GPU, else the CPU
	Threads     int    `json:"threads"`      // CPU threads this run may use
	Dir         string `json:"dir"`          // absolute folder for checkpoints, exists
	BaseDir     string `json:"base_dir"`     // relative data paths are read from here
	CacheDir    string `json:"cache_dir"`    // for packed image sets, shared by all runs of a machine
	Resume      string `json:"resume"`       // absolute path of a checkpoint; empty = from scratch
	ResumeEpoch int    `json:"resume_epoch"` // epoch of that checkpoint

	// EndEpoch is the last epoch of this run: report it, write a checkpoint of it
	// and end with reason "paused", unless the training is at its own end then. 0 =
	// train to the end. A trainer that leaves it alone is told by a control line
	// once it has reported that epoch, and nothing beyond counts.
	EndEpoch int `json:"end_epoch,omitempty"`

	// Group makes the run one that several trainers carry out together. A trainer
	// whose hello names no version of groups is not given such a job.
	Group *Group `json:"group,omitempty"`

	// SheetsDir takes an image a class, <class>.png, of augmented training
	// images; empty = none. A trainer may leave it alone.
	SheetsDir string `json:"sheets_dir,omitempty"`
}

// Group is a member's part in a run (worker/trainer/group/DESIGN.md).
type Group struct {
	Token   uint64   `json:"token"`   // of the run's lease: a link of another one is refused
	Member  int      `json:"member"`  // own id
	Members []Fellow `json:"members"` // all that the run begins with, or that a newcomer finds; itself too, by id
	Join    bool     `json:"join,omitempty"`
	Shards  int      `json:"shards"`
}

// Fellow is a member as messages name it.
type Fellow struct {
	Member int    `json:"member"`
	Name   string `json:"name"` // worker/slot
}

// Control is a line to a running trainer.
type Control struct {
	// Verdict "stop" or "pause": end after writing a checkpoint of the epoch in
	// progress or the last complete one, whichever is sooner, with a done event
	// whose reason is "stopped" or "paused". Of a member of a group also "leave":
	// leave at the next step's boundary, while the others continue; done says "left".
	Verdict string `json:"verdict,omitempty"`

	// Reported and Kept are the last epoch whose report, and whose checkpoint, will
	// not be lost: a member that begins to report says again what lies behind them.
	Reported int `json:"reported,omitempty"`
	Kept     int `json:"kept,omitempty"`
}

// Event kinds.
const (
	EventHello      = "hello"
	EventEpoch      = "epoch"
	EventCheckpoint = "checkpoint"
	EventProgress   = "progress"
	EventDone       = "done"
	EventFailed     = "failed"
	EventAlive      = "alive" // of a training, every AlivePause: it is no hung process
	EventView       = "view"  // of each member: who computes together from now on
)

// AlivePause is the time between two alive events.
const AlivePause = 250 * time.Millisecond

// AloneWithin is for how long nothing may come from a trainer that has sent an alive
// event and is no member of a group. Nobody waits for it, and what it has not kept is
// lost with it: a machine that swaps has more time than a member, for which others wait.
const AloneWithin = 30 * time.Second

// Reasons of a done event.
const (
	DoneFinished = "finished" // trained to the last epoch, or stopped by its own patience
	DoneStopped  = "stopped"
	DonePaused   = "paused"
	DoneLeft     = "left" // of a member that does not report: it left, or the run is at its end
)

// Classes of a failed event.
const (
	FailedOutOfMemory = "out_of_memory"
	FailedDeviceFault = "device_fault"
	FailedBadSpec     = "bad_spec"     // the settings cannot be carried out
	FailedDataMissing = "data_missing" // what they name is not on this machine: others are asked
	FailedDiverged    = "diverged"
	FailedDiskFull    = "disk_full"
	FailedCrashed     = "crashed"
	FailedCutOff      = "cut_off" // a member that the others go on without: it does not reach them
)

// Event is a line from a trainer. Which fields count depends on Kind.
type Event struct {
	Kind string `json:"event"`

	// hello
	Protocol int    `json:"protocol,omitempty"`
	Name     string `json:"name,omitempty"`
	Groups   int    `json:"groups,omitempty"` // GroupVersion; 0 = it knows no groups

	// epoch, checkpoint; progress: of the epoch that is under way, so far
	Epoch   int     `json:"epoch,omitempty"` // from 1; 0 in progress before the first
	Metrics Metrics `json:"metrics,omitempty"`
	Seconds float64 `json:"seconds,omitempty"` // wall time of the epoch

	// epoch, the first of a process: what it trains and validates on, one word
	// that is another where the data is (common/trial). May be left out.
	Data string `json:"data,omitempty"`

	// checkpoint: written, synced and renamed before the event
	Path   string `json:"path,omitempty"`
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // hex

	// progress, at most about once a second: what `trial show` and bars print
	Step  int64 `json:"step,omitempty"`  // batches since the first epoch
	Steps int64 `json:"steps,omitempty"` // batches of all epochs

	// view
	View *View `json:"view,omitempty"`

	// progress and epoch of a group
	Pace *Pace `json:"pace,omitempty"`

	// done
	Reason string `json:"reason,omitempty"`

	// failed
	Class string `json:"class,omitempty"`

	// any: a line for people
	Message string `json:"message,omitempty"`
}

// View is who computes together from a step on.
type View struct {
	Number  int     `json:"number"`  // from 1
	Members []int   `json:"members"` // ids in rank order; the first reports
	Step    int64   `json:"step"`    // steps committed before it
	Reason  string  `json:"reason"`  // for people
	Pause   float64 `json:"pause"`   // seconds from the last commit before to the first after; 0 = not known
}

// Pace is how a group's steps went lately.
type Pace struct {
	Step    float64 `json:"step_s"`  // seconds of a step, mean
	Waiting float64 `json:"waiting"` // share of it in which a member waits for others, mean over the members
	Slowest int     `json:"slowest"` // id of the member that computes longest
	Lag     float64 `json:"lag"`     // how much longer than the mean it computes, a share
}

// Metrics of a group's pace, as reports and MLflow have them.
const (
	MetricStep    = "step_seconds"  // of a step, mean
	MetricWaiting = "waiting_share" // of a step in which a member waits for others, mean over the members
)

// Reported are an epoch's metrics as they are recorded: of a group with its pace,
// unless the trainer has metrics of these names.
func (e *Event) Reported() Metrics {
	if e.Pace == nil {
		return e.Metrics
	}
	all := slices.Clone(e.Metrics)
	for _, m := range []Metric{{Name: MetricStep, Value: e.Pace.Step}, {Name: MetricWaiting, Value: e.Pace.Waiting}} {
		if _, ok := all.Get(m.Name); !ok {
			all = append(all, m)
		}
	}
	return all
}

// Metrics keep the order in which a trainer lists them. Values that JSON has no
// number for travel as the strings "NaN", "Infinity" and "-Infinity".
type (
	Metrics = trial.Metrics
	Metric  = trial.Metric
)

// Writer writes lines; safe for concurrent use.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter writes to w, one Write call a line.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes one Job, Control or Event as a line.
func (w *Writer) Send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("trainer protocol: %w", err)
	}
	if len(b) >= MaxLine {
		return ErrLineTooLong
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(append(b, '\n'))
	return err
}

// Reader reads lines.
type Reader struct{ s *bufio.Scanner }

// NewReader reads from r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), MaxLine)
	return &Reader{s: s}
}

func (r *Reader) line() ([]byte, error) {
	for r.s.Scan() {
		if b := r.s.Bytes(); len(b) > 0 {
			return b, nil
		}
	}
	if errors.Is(r.s.Err(), bufio.ErrTooLong) {
		return nil, ErrLineTooLong
	}
	if err := r.s.Err(); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

// Event reads the next event and checks it. io.EOF ends the stream.
func (r *Reader) Event() (Event, error) {
	var e Event
	b, err := r.line()
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("trainer protocol: %.120q: %w", b, err)
	}
	return e, e.check()
}

func (e *Event) check() error {
	switch e.Kind {
	case EventHello, EventProgress, EventDone, EventFailed, EventAlive:
		return nil
	case EventView:
		if e.View == nil || e.View.Number < 1 || len(e.View.Members) == 0 {
			return errors.New("trainer protocol: view event without a number or members")
		}
		return nil
	case EventEpoch, EventCheckpoint:
		if e.Epoch < 1 || e.Epoch > math.MaxInt32 {
			return fmt.Errorf("trainer protocol: %s event of epoch %d; epochs count from 1", e.Kind, e.Epoch)
		}
		if e.Kind == EventCheckpoint && e.Path == "" {
			return errors.New("trainer protocol: checkpoint event without a path")
		}
		return nil
	}
	return fmt.Errorf("trainer protocol: unknown event %.40q", e.Kind)
}

// Job reads the job line.
func (r *Reader) Job() (Job, error) {
	var j Job
	b, err := r.line()
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, fmt.Errorf("trainer protocol: job: %w", err)
	}
	if j.Protocol != Version {
		return j, fmt.Errorf("trainer protocol: job speaks version %d, this trainer %d", j.Protocol, Version)
	}
	return j, nil
}

// Control reads the next control line.
func (r *Reader) Control() (Control, error) {
	var c Control
	b, err := r.line()
	if err != nil {
		return c, err
	}
	err = json.Unmarshal(b, &c)
	return c, err
}
