package mlflow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// entry is one thing said about a run. Exactly one of the groups is used. Its JSON is the journal's: keys
// are short, for a training writes some hundred thousand, and an old journal has to be read for ever.
type entry struct {
	Metric string  `json:"m,omitempty"`
	Value  float64 `json:"-"`           // may be no number: encoded by hand
	Text   string  `json:"v,omitempty"` // Value as python writes it
	Step   int64   `json:"s,omitempty"`
	TimeMS int64   `json:"t,omitempty"`

	Params []pair `json:"p,omitempty"` // sorted by key
	Tags   []pair `json:"g,omitempty"`
	Seal   bool   `json:"l,omitempty"` // write the tags only if nothing of the run was lost

	File   string `json:"f,omitempty"` // absolute path of an artifact
	Folder string `json:"d,omitempty"` // among the artifacts, "" = top

	End Status `json:"e,omitempty"`
}

type pair struct{ Key, Value string }

// sink is a run's place in a store; its methods are called from one goroutine.
type sink interface {
	// write takes entries in order. What it cannot take it keeps or tells.
	write([]entry)
	// finish is called once, after the last write; it delivers until ctx ends.
	finish(ctx context.Context) error
	// id is the run's id, "" while it has none.
	id() string
	// pending counts what write took and the store has not; the error says that
	// it will never have it.
	pending() (int64, error)
}

// Run is one run being written. Its methods may be called from several
// goroutines and return at once.
type Run struct {
	sink  sink
	name  string
	limit int
	tell  func(string)
	now   func() time.Time

	mu      sync.Mutex
	items   []entry
	metrics int              // of items
	last    map[string]int64 // newest time of each metric
	params  map[string]string
	dropped int64 // metrics
	ended   bool  // End was said
	closed  bool  // the store is being closed
	writing bool  // what take returned is not in the sink yet

	wake chan struct{} // capacity 1: something urgent is there
	stop chan struct{} // closed by close
	done chan struct{} // closed when the writing goroutine is gone
}

// startRun begins the goroutine that alone speaks to the sink: whoever says something about the run
// never waits for a disk.
func startRun(s sink, name string, o Options) *Run {
	r := &Run{sink: s, name: name, limit: o.Pending, tell: o.Notify, now: o.now, last: map[string]int64{}, params: map[string]string{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go r.work(o.Flush)
	return r
}

// ID is the run's id in MLflow: 32 hexadecimal digits, or "" while a server
// could not be asked for one yet.
func (r *Run) ID() string { return r.sink.id() }

// Name is the run's name, for people.
func (r *Run) Name() string { return r.name }

// Metric says one value of a metric. NaN and infinities are values. A zero time
// is now. The error tells a name that MLflow does not take, or a run that has
// ended; a full queue drops the value and tells it otherwise.
func (r *Run) Metric(key string, value float64, step int64, at time.Time) error {
	if err := CheckKey("metric", key); err != nil {
		return err
	}
	if at.IsZero() {
		at = r.now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return err
	}
	if r.metrics >= r.limit {
		if r.dropped++; r.dropped == 1 {
			go r.tell(fmt.Sprintf("MLflow run %s: %d metrics wait already; metrics are dropped until there is room", r.name, r.limit))
		}
		return nil
	}
	// A key and a time name one value: see DESIGN.md.
	ms := max(at.UnixMilli(), 0)
	if last, ok := r.last[key]; ok && ms <= last {
		ms = last + 1
	}
	r.last[key] = ms
	r.items = append(r.items, entry{Metric: key, Value: value, Step: step, TimeMS: ms})
	r.metrics++
	// A full batch does not wait for the tick.
	if r.metrics >= maxBatchMetrics && r.metrics%maxBatchMetrics == 0 {
		r.rouse()
	}
	return nil
}

// Params says parameters. A value of more than 6,000 characters is cut, as MLflow
// does, and told. A parameter keeps its first value for ever: another one is an
// error here, the same one is nothing new.
func (r *Run) Params(values map[string]string) error {
	return r.pairs("parameter", values, maxParam, func(p []pair) entry { return entry{Params: p} })
}

// Tag sets a tag. A value of more than 5,000 characters is cut and told.
func (r *Run) Tag(key, value string) error {
	return r.pairs("tag", map[string]string{key: value}, maxTag, func(p []pair) entry { return entry{Tags: p} })
}

// Seal is Tag for a tag that says that the run is complete: it is left out when
// something that was said before could not be written.
func (r *Run) Seal(key, value string) error {
	return r.pairs("tag", map[string]string{key: value}, maxTag, func(p []pair) entry { return entry{Tags: p, Seal: true} })
}

// pairs says parameters or tags, each of which stands for itself: a wrong one is an error and the
// others are said.
func (r *Run) pairs(what string, values map[string]string, limit int, make func([]pair) entry) error {
	var errs []error
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return err
	}
	var all []pair
	for k, v := range values {
		if err := CheckKey(what, k); err != nil {
			errs = append(errs, err)
			continue
		}
		v = strings.ToValidUTF8(v, "\uFFFD")
		if n := utf8.RuneCountInString(v); n > limit {
			v = cut(v, limit)
			go r.tell(fmt.Sprintf("MLflow run %s: %s %s has %d characters; the first %d are kept", r.name, what, k, n, limit))
		}
		if what == "parameter" {
			if old, ok := r.params[k]; ok {
				if old != v {
					errs = append(errs, fmt.Errorf("MLflow: parameter %q is %q already and cannot become %q", k, cut(old, 40), cut(v, 40)))
				}
				continue
			}
			r.params[k] = v
		}
		all = append(all, pair{k, v})
	}
	slices.SortFunc(all, func(a, b pair) int { return strings.Compare(a.Key, b.Key) })
	for len(all) > 0 {
		// An entry is never split again by the sender, so each is a quarter of a request at most.
		n, size := 0, 0
		for n < len(all) && n < maxBatchParams && (n == 0 || size+jsonSize(all[n:n+1]) < maxBatchBytes/4) {
			size += jsonSize(all[n : n+1])
			n++
		}
		r.items = append(r.items, make(all[:n]))
		all = all[n:]
	}
	r.rouse()
	return errors.Join(errs...)
}

// Artifact keeps a file in a folder of the run's artifacts ("" = top, made when
// it is not there). The file must stay as it is until the store is closed.
func (r *Run) Artifact(file, folder string) error {
	abs, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("MLflow artifact: %w", err)
	}
	if st, err := os.Stat(abs); err != nil {
		return fmt.Errorf("MLflow artifact: %w", err)
	} else if !st.Mode().IsRegular() {
		return fmt.Errorf("MLflow artifact: %s is not a file", abs)
	}
	if folder != "" {
		if c := path.Clean(folder); c != folder || folder == "." || strings.HasPrefix(folder, "/") || strings.HasPrefix(folder, "..") {
			return fmt.Errorf("MLflow artifact: folder %q: give a path such as plots/epochs", folder)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return err
	}
	r.items = append(r.items, entry{File: abs, Folder: folder})
	r.rouse()
	return nil
}

// End says how the run ended, and when; a zero time is now. Nothing can be said
// afterwards. A run that is never ended stays RUNNING in MLflow.
func (r *Run) End(status Status, at time.Time) error {
	if status != Finished && status != Failed && status != Killed {
		return fmt.Errorf("MLflow: a run cannot end as %s", status)
	}
	if at.IsZero() {
		at = r.now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return err
	}
	r.ended = true
	r.items = append(r.items, entry{End: status, TimeMS: at.UnixMilli()})
	r.rouse()
	return nil
}

// open is an error once the run has ended. The caller holds mu.
func (r *Run) open() error {
	if r.ended || r.closed {
		return fmt.Errorf("MLflow: run %s has ended", r.name)
	}
	return nil
}

// rouse has what waits written now, not at the next tick.
func (r *Run) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (r *Run) take() []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	items := r.items
	r.items, r.metrics = nil, 0
	r.writing = len(items) > 0
	return items
}

// wrote says that what take returned is written; over: no more will come.
func (r *Run) wrote() (over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = false
	return r.ended && len(r.items) == 0
}

// Wait returns when the store has all that was said so far, or ctx ends. It polls, for
// a store has no event for it. Callers wait before they forget a run, and when much comes at once, so that the
// queue does not overflow.
func (r *Run) Wait(ctx context.Context) error {
	for {
		r.rouse()
		r.mu.Lock()
		n := int64(len(r.items))
		if r.writing {
			n++
		}
		r.mu.Unlock()
		waits, err := r.sink.pending()
		if err != nil || n+waits == 0 {
			return err
		}
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("MLflow run %s: %d entries wait: %w", r.name, n+waits, ctx.Err())
		}
	}
}

// work brings entries to the sink: metrics once a while, the rest at once.
func (r *Run) work(every time.Duration) {
	defer close(r.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.wake:
		case <-r.stop:
			if items := r.take(); len(items) > 0 {
				r.sink.write(items)
				r.wrote()
			}
			return
		}
		if items := r.take(); len(items) > 0 {
			if r.sink.write(items); r.wrote() {
				return
			}
		}
	}
}

// close ends the writing and delivers until ctx ends.
func (r *Run) close(ctx context.Context) error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	dropped := r.dropped
	r.mu.Unlock()
	if !first {
		return nil
	}
	close(r.stop)
	select {
	case <-r.done:
	case <-ctx.Done():
		// Even so what was said goes to the disk, unless that hangs.
		select {
		case <-r.done:
		case <-time.After(time.Second):
			return fmt.Errorf("run %s: still being written: %w", r.name, ctx.Err())
		}
	}
	err := r.sink.finish(ctx)
	if dropped > 0 {
		err = errors.Join(err, fmt.Errorf("run %s: %d metrics were dropped", r.name, dropped))
	}
	return err
}
