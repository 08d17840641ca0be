// Package mlflow writes runs where MLflow finds them: into an mlruns folder,
// exactly as MLflow's own file store does, or to a tracking server.
//
// It never slows a training and never fails one: a Run's methods check their
// arguments, put them into memory and return; what cannot be delivered is told
// and, for a server, kept on disk and sent later, no metric twice. It refuses
// to know what is tracked: sweeps and trials belong to its callers.
package mlflow

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"atelier/common/secret"
)

// Status of a run, as MLflow's files number it; the API has words.
type Status int

// The states a run can be in.
const (
	Running  Status = 1
	Finished Status = 3
	Failed   Status = 4
	Killed   Status = 5
)

var statusNames = map[Status]string{Running: "RUNNING", 2: "SCHEDULED", Finished: "FINISHED", Failed: "FAILED", Killed: "KILLED"}

// String is the status as MLflow's API spells it.
func (s Status) String() string {
	if n, ok := statusNames[s]; ok {
		return n
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// Tags that MLflow itself reads.
const (
	TagParent     = "mlflow.parentRunId"
	TagName       = "mlflow.runName"
	TagUser       = "mlflow.user"
	TagSource     = "mlflow.source.name"
	TagSourceType = "mlflow.source.type"
	TagNote       = "mlflow.note.content"
)

// tagIdentity marks a run with an id made here, so that a creation whose answer
// was lost can be found again.
const tagIdentity = "atelier.run"

// Errors that callers branch on.
var (
	ErrNotFound    = errors.New("not found in MLflow")
	ErrUnreachable = errors.New("MLflow is out of reach")
	ErrDeleted     = errors.New("deleted in MLflow")
)

// Options of Open. Zero values take the defaults named.
type Options struct {
	Dir    string       // relative paths are read from here; the working folder
	Buffer string       // journals of a server's runs; $XDG_STATE_HOME/atelier/mlflow
	User   string       // of new runs; the login name
	Source string       // mlflow.source.name of new runs; "atelier"
	Notify func(string) // told what goes wrong, one line each, from other goroutines; nil: nobody

	Password secret.Text // of the user in the address, where it was taken out of that (SplitPassword)

	Flush   time.Duration // how long entries gather before they are written or sent; 1 s
	Timeout time.Duration // of one request without a file; 30 s
	Settle  time.Duration // between a lost answer and reading back; 2 s
	Backoff time.Duration // first wait after a failure, doubled up to 30 s; 500 ms
	Pending int           // metrics a run may hold in memory; 65,536
	Journal int64         // bytes a journal may take; 256 MiB

	now func() time.Time
}

// RunSpec is what a new run is made from. Zero values take the defaults named.
type RunSpec struct {
	Experiment string // name; made when it is not there
	Name       string
	Parent     *Run              // nil: a run of its own
	ParentID   string            // instead of Parent, of a run that is already there
	Tags       map[string]string // beside those of MLflow: user, source, name, parent
	Start      time.Time         // now
	RunID      string            // go on with this run instead of making one
}

// RunInfo is a run that is in a store.
type RunInfo struct {
	ID, Experiment string // Experiment is its id
	Name           string
	Status         Status
	StartMS, EndMS int64
	Tags           map[string]string
}

// Point is one value of a metric.
type Point struct {
	Step   int64
	TimeMS int64 // Unix milliseconds
	Value  float64
}

// Store is a place that MLflow reads.
type Store interface {
	// Experiment returns the id of the experiment of that name, made when it is
	// not there. ErrDeleted: it lies in the trash, where its name is taken.
	Experiment(ctx context.Context, name string) (id string, err error)
	// StartRun returns a run to write to. It does not wait for a server.
	StartRun(ctx context.Context, spec RunSpec) (*Run, error)
	// FindRuns lists the experiment's living runs that carry all these tags, the
	// oldest first. An experiment that is not there has none.
	FindRuns(ctx context.Context, experiment string, tags map[string]string) ([]RunInfo, error)
	// History returns a metric of a run in the order it was written; none: empty.
	History(ctx context.Context, runID, key string) ([]Point, error)
	// Params returns the parameters of a run.
	Params(ctx context.Context, runID string) (map[string]string, error)
	// Artifacts returns the names in a folder of a run's artifacts, sorted;
	// "" is the top.
	Artifacts(ctx context.Context, runID, folder string) ([]string, error)
	// Ready waits until what earlier programs left for this store is delivered:
	// only then do the reading calls tell all that was said.
	Ready(ctx context.Context) error
	// Hint is what a person types to look at the store, one line each.
	Hint() []string
	// String names the store for people, without credentials.
	String() string
	// Close delivers what waits, until ctx ends. Its error says what could not be
	// delivered and where it is kept. No run may be used afterwards.
	Close(ctx context.Context) error
}

// Open opens the store at uri: http(s) is a tracking server; a path or a file:
// URI is an mlruns folder; "" is ./mlruns. It asks nothing of a server.
func Open(uri string, o Options) (Store, error) {
	if o.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("MLflow: %w", err)
		}
		o.Dir = dir
	}
	setDefault(&o.User, loginName())
	setDefault(&o.Source, "atelier")
	setDefault(&o.Flush, time.Second)
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.Settle, 2*time.Second)
	setDefault(&o.Backoff, 500*time.Millisecond)
	setDefault(&o.Pending, 65536)
	setDefault(&o.Journal, 256<<20)
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	if o.now == nil {
		o.now = time.Now
	}
	kind, path, err := place(uri, o.Dir)
	if err != nil {
		return nil, err
	}
	if kind == "rest" {
		return openREST(uri, o)
	}
	return openFiles(path, o)
}

// setDefault gives an option that was not set its value.
func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// loginName is who MLflow says has made a run.
func loginName() string {
	for _, k := range []string{"LOGNAME", "USER"} {
		if u := os.Getenv(k); u != "" {
			return u
		}
	}
	return "unknown"
}

// address is a server's without the http:// in front, which would become a folder.
var address = regexp.MustCompile(`^(//)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}(/.*)?$`)

// place tells what kind of store a URI names, and the folder of a file store. It refuses what MLflow would
// take and this package cannot write (databases, databricks) rather than make a folder of that name.
func place(uri, dir string) (kind, path string, err error) {
	if address.MatchString(uri) {
		server := strings.TrimPrefix(uri, "//")
		return "", "", fmt.Errorf("MLflow: tracking URI %q: did you mean http://%s? (a folder of that name is ./%s)", uri, server, server)
	}
	scheme, _, found := strings.Cut(uri, ":")
	if !found || strings.ContainsAny(scheme, "/.\\") {
		scheme = ""
	}
	switch s := strings.ToLower(scheme); s {
	case "http", "https":
		u, err := url.Parse(uri)
		if err != nil || u.Host == "" {
			return "", "", errors.New("MLflow: the tracking URI is not an address; give for example http://127.0.0.1:5000")
		}
		return "rest", "", nil
	case "":
		path = uri
		if path == "" {
			path = "mlruns"
		}
	case "file":
		u, err := url.Parse(uri)
		if err != nil || (u.Host != "" && u.Host != "localhost") || u.Path == "" && u.Opaque == "" {
			return "", "", fmt.Errorf("MLflow: tracking URI %q: give file:///FOLDER", uri)
		}
		path = u.Path
		if path == "" {
			path = u.Opaque
		}
	default:
		return "", "", fmt.Errorf("MLflow: a tracking URI of kind %q cannot be written from here; give http(s)://HOST:PORT of a server (for a database: mlflow server --backend-store-uri ...), or a folder", s)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return "file", filepath.Clean(path), nil
}
