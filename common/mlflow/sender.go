package mlflow

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"
)

// sender delivers one run to a server: entries from its journal, in order, each
// metric once. See DESIGN.md.
//
// Its goroutine, work, takes one step after the other: make the run, send a batch, read a history. A step
// that fails changes nothing that the next try does not find again, so whatever fails is answered in one
// way: wait, longer each time, and take the step again.
type sender struct {
	s    *restStore
	j    *journal
	name string

	parent  *sender // its id is waited for, nil: known or none
	before  *sender // goes first: an adopted journal of the same run
	adopted bool    // of an ended process: nothing more will come

	mu      sync.Mutex
	runID   string
	last    error // of the latest try, for the last message
	lost    int
	reason  error
	closing chan struct{}
	known   chan struct{} // closed when the run has an id
	done    chan struct{}
	cancel  context.CancelFunc
	once    sync.Once

	// Of the goroutine work alone; dead may be read once done is closed.
	uncertain int64 // entries up to this one may be there already
	most      int   // entries a batch, less after a refusal
	refusals  int   // one after another
	told      bool  // this outage
	dead      error // the run cannot be delivered at all
}

// StartRun returns before the server has heard of the run: it gets its id in the
// background, and an identity made here by which a creation whose answer was lost is
// found again.
func (s *restStore) StartRun(_ context.Context, spec RunSpec) (*Run, error) {
	if spec.RunID == "" {
		if err := checkExperiment(spec.Experiment); err != nil {
			return nil, err
		}
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("MLflow: identity: %w", err)
	}
	h := head{Store: s.base.String(), Identity: hex.EncodeToString(id[:]), Experiment: spec.Experiment, User: s.o.User, RunID: spec.RunID}
	var parent *sender
	parentID := spec.ParentID
	if spec.Parent != nil {
		if parentID = spec.Parent.ID(); parentID == "" {
			parent, _ = spec.Parent.sink.(*sender)
			if parent == nil || parent.s != s {
				return nil, errors.New("MLflow: the parent run is of another store")
			}
			h.Parent, h.ParentExp = parent.j.head.Identity, parent.j.head.Experiment
		}
	}
	var err error
	if h.Tags, err = spec.tags(s.o, parentID); err != nil {
		return nil, err
	}
	h.Name = h.Tags[TagName]
	if spec.RunID != "" && spec.Name == "" {
		h.Name = spec.RunID
	}
	start := spec.Start
	if start.IsZero() {
		start = s.o.now()
	}
	h.Start = start.UnixMilli()
	j, err := createJournal(s.folder, h, s.o.Journal)
	if err != nil {
		go s.o.Notify(fmt.Sprintf("MLflow run %s: no buffer on disk (%s): what cannot be sent before this program ends is lost", h.Name, err))
	}
	w := newSender(s, j, parent)
	s.mu.Lock()
	if spec.RunID != "" {
		for _, a := range s.adopted {
			if a.j.run == spec.RunID {
				w.before = a
			}
		}
	}
	s.senders[h.Identity] = w
	r := startRun(w, h.Name, s.o)
	s.runs = append(s.runs, r)
	s.mu.Unlock()
	w.begin()
	return r, nil
}

// newSender takes a journal, new or adopted. What is marked as sent and not as done is uncertain:
// the process that sent it ended before it knew.
func newSender(s *restStore, j *journal, parent *sender) *sender {
	w := &sender{s: s, j: j, name: j.head.Name, parent: parent, uncertain: j.sent, most: maxBatchAll,
		closing: make(chan struct{}), known: make(chan struct{}), done: make(chan struct{})}
	if j.run != "" {
		w.identify(j.run)
	}
	return w
}

// identify publishes the run's id, for which children may be waiting.
func (w *sender) identify(run string) {
	w.mu.Lock()
	w.runID = run
	w.mu.Unlock()
	close(w.known)
}

// begin has the run delivered in the background. The sender's context is its own: what is said
// about a run outlives the command that said it, until the store is closed.
func (w *sender) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go w.work(ctx)
}

// adopt takes over what ended processes left for this server. A journal that somebody holds is passed over,
// one that cannot be read stays where it is and is told. Senders begin once all are known, for a child's
// parent may be among them.
func (s *restStore) adopt() {
	files, err := filepath.Glob(filepath.Join(escapeGlob(s.folder), "*.journal"))
	if err != nil {
		return
	}
	for _, file := range files {
		j, err := adoptJournal(file, s.o.Journal)
		if err != nil {
			if !errors.Is(err, fs.ErrPermission) {
				go s.o.Notify(fmt.Sprintf("MLflow: a buffer of an earlier run cannot be read and stays where it is: %s", err))
			}
			continue
		}
		if j == nil {
			continue
		}
		if !j.end { // nobody can say any more how it ended
			j.add([]entry{{End: Killed, TimeMS: max(j.lastMS, j.head.Start)}}, s.o.Pending)
		}
		w := newSender(s, j, nil)
		w.adopted = true
		s.adopted = append(s.adopted, w)
		s.senders[j.head.Identity] = w
	}
	for _, w := range s.adopted {
		if p := s.senders[w.j.head.Parent]; w.j.head.Parent != "" && p != nil {
			w.parent = p
		}
		w.begin()
	}
}

// Ready waits for the journals of ended processes: until then a search does not find all of their runs, and
// a sweep that goes on would make them a second time.
func (s *restStore) Ready(ctx context.Context) error {
	s.mu.Lock()
	adopted := s.adopted
	s.mu.Unlock()
	for _, w := range adopted {
		if !await(ctx, w.done, nil) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return fmt.Errorf("MLflow at %s: what an earlier program left is not delivered yet: %w", s, cmpErr(w.last, ctx.Err()))
		}
	}
	return nil
}

// Close sends what waits until ctx ends; the rest stays in the journal, and the next
// program that opens the store sends it.
func (s *restStore) Close(ctx context.Context) error {
	s.mu.Lock()
	runs, adopted := s.runs, s.adopted
	s.runs, s.adopted = nil, nil
	s.mu.Unlock()
	for _, w := range adopted {
		w.close()
	}
	err := closeRuns(ctx, s.String(), runs)
	for _, w := range adopted {
		if e := w.finish(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("MLflow at %s: %w", s, e))
		}
	}
	s.client.CloseIdleConnections()
	return err
}

func (w *sender) id() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runID
}

// pending counts entries without an answer, and one more while the run has no id.
func (w *sender) pending() (int64, error) {
	n := w.j.left()
	select {
	case <-w.done:
		if n > 0 && w.dead == nil {
			return n, fmt.Errorf("MLflow run %s: the store is closed", w.name)
		}
		return 0, w.dead
	default:
	}
	if w.id() == "" {
		n++
	}
	return n, nil
}

// write puts entries into the journal. What goes wrong is told once: the first metric that is
// dropped, the moment at which the disk is given up.
func (w *sender) write(entries []entry) {
	dropped, err := w.j.add(entries, w.s.o.Pending)
	if err != nil {
		w.s.o.Notify(fmt.Sprintf("MLflow run %s: the buffer on disk was given up (%s): what cannot be sent before this program ends is lost", w.name, err))
	}
	if dropped > 0 {
		w.mu.Lock()
		first := w.lost == 0
		w.lost += dropped
		w.reason = errors.New("the buffer is full")
		w.mu.Unlock()
		if first {
			w.s.o.Notify(fmt.Sprintf("MLflow run %s: the buffer is full; metrics are dropped until the server answers", w.name))
		}
	}
}

// close has the sender end when nothing is left, and shortens its waits.
func (w *sender) close() { w.once.Do(func() { close(w.closing) }) }

// finish waits for the sender until ctx ends, and says what became of the rest: it waits in the
// journal for the next program, is put aside (the server will never take it), or is lost (there was
// no journal).
func (w *sender) finish(ctx context.Context) error {
	w.close()
	select {
	case <-w.done:
	case <-ctx.Done():
		w.cancel()
		<-w.done
	}
	w.cancel()
	left := w.j.left()
	w.mu.Lock()
	dead, last, lost, reason, made := w.dead, w.last, w.lost, w.reason, w.runID != ""
	w.mu.Unlock()
	var errs []error
	if left > 0 || !made {
		cause := cmpErr(dead, last, ctx.Err())
		if file := w.j.keep(dead != nil); file == "" {
			errs = append(errs, fmt.Errorf("run %s: %d entries are lost: there is no buffer on disk: %w", w.name, left, cause))
		} else if dead != nil {
			errs = append(errs, fmt.Errorf("run %s: %d entries are put aside in %s: %w", w.name, left, file, cause))
		} else {
			errs = append(errs, fmt.Errorf("run %s: %d entries wait in %s and will be sent when this server is used next: %w", w.name, left, file, cause))
		}
	} else {
		w.j.remove()
	}
	if lost > 0 {
		errs = append(errs, fmt.Errorf("run %s: %d entries were dropped: %w", w.name, lost, reason))
	}
	return errors.Join(errs...)
}

// cmpErr is the first error that is one.
func cmpErr(errs ...error) error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return errors.New("interrupted")
}

// work delivers until there is nothing more to come, or ctx ends.
func (w *sender) work(ctx context.Context) {
	defer close(w.done)
	var before, parent <-chan struct{}
	if w.before != nil {
		before = w.before.done
	}
	// A child names its parent's id, and a run that goes on follows what its earlier process has
	// said.
	if w.parent != nil {
		parent = w.parent.known
		if !await(ctx, parent, w.parent.done) {
			return
		}
	}
	if before != nil && !await(ctx, before, nil) {
		return
	}
	if w.uncertain > w.j.done || w.j.made && w.id() == "" {
		// The process that sent it may have ended this very moment.
		w.wait(ctx, w.s.o.Settle)
	}
	backoff, failures := w.s.o.Backoff, 0
	for ctx.Err() == nil {
		idle, err := w.turn(ctx)
		if err == nil {
			backoff, failures = w.s.o.Backoff, 0
			w.mu.Lock()
			w.last, w.told = nil, false
			w.mu.Unlock()
			if !idle {
				continue
			}
			if w.adopted || w.isClosing() || w.j.ended() {
				w.j.remove()
				return
			}
			select {
			case <-w.j.more:
			case <-w.closing:
			case <-ctx.Done():
			}
			continue
		}
		if ctx.Err() != nil {
			w.mu.Lock()
			w.last = cmpErr(w.last, err)
			w.mu.Unlock()
			return
		}
		w.fail(err)
		if w.dead != nil {
			return
		}
		// What waits is on disk. A server that is not there will hardly come back
		// now; one that stumbles may do.
		if failures++; w.isClosing() && (failures >= 10 || failures >= 3 && unsent(err)) {
			return
		}
		d := backoff
		// A request that may have arrived may still be acted upon: a look that comes too soon would
		// miss it.
		if !unsent(err) {
			d = max(d, w.s.o.Settle)
		}
		w.wait(ctx, d)
		backoff = min(2*backoff, 30*time.Second)
	}
}

// await waits for either channel; false: ctx ended first.
func await(ctx context.Context, a, b <-chan struct{}) bool {
	select {
	case <-a:
	case <-b:
	case <-ctx.Done():
		return false
	}
	return true
}

// turn takes a step when it is this run's turn: a sweep has hundreds of runs, and a server answers some at
// a time. The turn is given back while the sender waits, so that a run which fails holds up no other.
func (w *sender) turn(ctx context.Context) (idle bool, err error) {
	select {
	case w.s.turns <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-w.s.turns }()
	return w.step(ctx)
}

// isClosing reports whether close was called.
func (w *sender) isClosing() bool {
	select {
	case <-w.closing:
		return true
	default:
		return false
	}
}

// wait pauses after a failure; it is cut short once when the store is closed.
func (w *sender) wait(ctx context.Context, d time.Duration) {
	closing := w.closing
	if w.isClosing() {
		closing = nil
		d = min(d, w.s.o.Settle)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-closing:
		w.wait(ctx, min(d, w.s.o.Settle))
	case <-ctx.Done():
	}
}

// fail remembers why, and tells it once an outage.
func (w *sender) fail(err error) {
	w.mu.Lock()
	w.last = err
	first := !w.told
	w.told = true
	w.mu.Unlock()
	if first {
		w.s.o.Notify(fmt.Sprintf("MLflow at %s: run %s: %s; records are buffered meanwhile", w.s, w.name, err))
	}
}

// drop leaves out what the server will never take, counts it and tells it: the entries behind it go
// on.
func (w *sender) drop(what string, err error) {
	w.mu.Lock()
	w.lost++
	w.reason = err
	w.mu.Unlock()
	w.s.o.Notify(fmt.Sprintf("MLflow at %s: run %s: %s was refused and is left out: %s", w.s, w.name, what, err))
}
