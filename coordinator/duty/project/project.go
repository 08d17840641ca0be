// Package project keeps Redis's board up with the state: the leader writes what
// changed, in batches, each one script that also moves the watermark.
//
// What a watermark says is exact: the board equals what would be computed from
// the state at that index. The package refuses to guess: where Redis holds
// anything but what this projector can go on from (it was flushed, set back,
// left behind by another cluster, or changes were missed), the board is rebuilt
// beside the old one and takes its place in one step. The board of another
// cluster that runs is left alone. Redis may be away for any time; the
// cluster does not wait for it.
package project

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"atelier/coordinator/board"
	"atelier/coordinator/state"
)

const (
	// pauses between batches: ten times what the last one took, within these, so
	// that projection takes a tenth of a processor at most.
	minPause = 20 * time.Millisecond
	maxPause = 500 * time.Millisecond
	// lookEvery is how often an idle projector looks whether Redis still holds
	// what it wrote.
	lookEvery = time.Second
	// retryLow and retryHigh bound the pause while Redis does not answer.
	retryLow  = 100 * time.Millisecond
	retryHigh = 2 * time.Second
	// maxBatch is the most trials written in one script; more are a rebuild.
	maxBatch = 10_000
	// maxKept is the most changed trials a node that does not write remembers.
	maxKept = 100_000
	// fillChunk is how many trials one script of a rebuild writes.
	fillChunk = 1000
	// settle is how long changes may take from the state to this room.
	settle = 5 * time.Second
)

// Config of a Projector.
type Config struct {
	Redis *board.Redis
	View  func() *state.View
	// Generation draws a name that no rebuild has had: letters and digits.
	Generation func() string
	Logger     *slog.Logger
}

// Projector is the duty. It listens on every node, so that a new leader knows
// what changed since the watermark, and writes only while it leads.
type Projector struct {
	cfg  Config
	wake chan struct{}

	mu      sync.Mutex
	term    *term
	changed map[trialKey]uint64 // trial -> index of its last change
	since   uint64              // every change after this index is in changed
	heard   uint64              // index of the last change heard
	status  Status
}

type trialKey struct {
	sweep string
	trial int64
}

type term struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// Status says how far Redis is.
type Status struct {
	Index uint64 // watermark last written or seen
	Err   error  // why nothing can be written at the moment; nil while all is well
}

// New returns the duty. Its changes are complete from the view's index on, so
// it must hear of every change after this call.
func New(cfg Config) *Projector {
	index := cfg.View().Index()
	return &Projector{cfg: cfg, wake: make(chan struct{}, 1), changed: map[trialKey]uint64{}, since: index, heard: index}
}

// Start begins to write.
func (p *Projector) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.term = &term{ctx: ctx, cancel: cancel}
	p.status = Status{}
	go p.write(ctx)
}

// Stop ends it.
func (p *Projector) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.term != nil {
		p.term.cancel()
		p.term = nil
	}
}

// Status of the projection under this leader.
func (p *Projector) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Changed implements duty.Watcher.
func (p *Projector) Changed(changes []state.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		p.heard = max(p.heard, c.Index)
		switch c.Kind {
		case state.LeaseGranted, state.LeaseEnded, state.ReportRecorded, state.CheckpointRecorded,
			state.CheckpointDropped, state.TrialEnded, state.TrialPaused, state.TrialReopened:
			p.changed[trialKey{c.Sweep, c.Trial}] = c.Index
		case state.SweepPurged:
			if c.Trial > maxKept { // writing the board anew is less work
				p.forget(c.Index)
				break
			}
			for n := range c.Trial {
				p.changed[trialKey{c.Sweep, n + 1}] = c.Index
			}
		}
	}
	if len(p.changed) > maxKept {
		p.forget(p.heard)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Resync implements duty.Watcher.
func (p *Projector) Resync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The next batch finds that it cannot go on from any watermark before this.
	index := p.cfg.View().Index()
	p.heard = max(p.heard, index)
	p.forget(index)
}

// forget drops what was remembered up to an index: from there on alone the changes are known.
func (p *Projector) forget(index uint64) {
	clear(p.changed)
	p.since = max(p.since, index)
}

// Follow trims what a node that does not write remembers, until ctx ends: what
// the watermark has passed will not be needed.
func (p *Projector) Follow(ctx context.Context) {
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		idle := p.term != nil || len(p.changed) == 0
		p.mu.Unlock()
		if idle {
			continue
		}
		mark, err := p.cfg.Redis.Mark(ctx)
		if err != nil || mark.Cluster != p.cfg.View().ClusterID() {
			continue
		}
		p.mu.Lock()
		if p.term == nil {
			p.passed(mark.Index)
		}
		p.mu.Unlock()
	}
}

// passed drops the changes that a watermark has passed.
func (p *Projector) passed(index uint64) {
	if index <= p.since {
		return
	}
	for k, at := range p.changed {
		if at <= index {
			delete(p.changed, k)
		}
	}
	p.since = index
}

// write keeps Redis up until the leadership ends.
func (p *Projector) write(ctx context.Context) {
	var mark board.Mark // what Redis holds, once known
	known := false
	down := false
	retry := retryLow
	var others stranger
	for {
		began := time.Now()
		err := func() (err error) {
			defer func() { // rows that cannot be made are no reason to end the process
				if fault := recover(); fault != nil {
					p.cfg.Logger.Error("panic in the projection", "panic", fault, "stack", string(debug.Stack()))
					err = fmt.Errorf("a fault of the coordinator, please report it: panic: %v", fault)
				}
			}()
			if !known {
				if mark, err = p.look(ctx, &others); err != nil {
					return err
				}
				known = true
			}
			mark, err = p.advance(ctx, mark)
			return err
		}()
		if ctx.Err() != nil {
			return
		}
		pause := min(max(10*time.Since(began), minPause), maxPause)
		var held *board.HeldError
		switch {
		case err == nil:
			retry = retryLow
			if down || others.told != "" {
				p.cfg.Logger.Info("redis is written again", "index", mark.Index)
			}
			down, others.told = false, ""
			p.set(Status{Index: mark.Index})
		case errors.As(err, &held):
			known = false
			pause = lookEvery
			if others.told != held.Cluster {
				p.cfg.Logger.Warn("redis is left alone; the state answers", "error", err)
			}
			others.told = held.Cluster
			p.set(Status{Err: err})
		case errors.Is(err, board.ErrOvertaken):
			known = false // look again what is there
			pause = minPause
		default:
			known = false
			if !down {
				p.cfg.Logger.Warn("redis cannot be written; the state answers meanwhile", "error", err)
			}
			down = true
			pause = retry
			retry = min(2*retry, retryHigh)
			p.set(Status{Index: mark.Index, Err: err})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if err != nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-time.After(lookEvery):
			known = false // nothing to write: see whether Redis still holds it
		}
	}
}

// stranger is what was seen of another cluster's board.
type stranger struct {
	told  string     // the cluster that was named in the log
	mark  board.Mark // of one that does not say whether it is kept
	since time.Time  // that it has stood at mark
}

// look reads what Redis holds. The error is a board.HeldError as long as that is,
// or may be, the board of another cluster that runs.
func (p *Projector) look(ctx context.Context, others *stranger) (board.Mark, error) {
	cluster := p.cfg.View().ClusterID()
	found, err := p.cfg.Redis.Look(ctx, cluster)
	if err != nil || !found.Unclaimed || cluster == "" {
		*others = stranger{told: others.told}
		return found.Mark, err
	}
	if found.Mark != others.mark || others.since.IsZero() {
		others.mark, others.since = found.Mark, time.Now()
	}
	if time.Since(others.since) < board.HeldFor {
		return found.Mark, p.cfg.Redis.Held(found.Cluster)
	}
	return found.Mark, nil
}

// set publishes how far Redis is.
func (p *Projector) set(s Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = s
}

// advance brings Redis from mark to the state of now: by the trials that
// changed where they are all known, else by a rebuild.
func (p *Projector) advance(ctx context.Context, mark board.Mark) (board.Mark, error) {
	began := time.Now()
	view := p.cfg.View()
	if view.ClusterID() == "" {
		return mark, nil // nothing has been written to this cluster yet
	}
	if err := p.await(ctx, view); err != nil {
		return mark, err
	}
	// A board from before a restore tells of what may never have been.
	_, restored := view.Restored()
	p.mu.Lock()
	fits := mark.Index >= restored && mark.Cluster == view.ClusterID() && mark.Usable() && mark.Index != 0 &&
		mark.Index >= p.since && mark.Index <= view.Index() && len(p.changed) <= maxBatch
	var keys []trialKey
	if fits {
		for k := range p.changed {
			keys = append(keys, k)
		}
	}
	p.mu.Unlock()

	if !fits {
		fresh, err := p.rebuild(ctx, began, view, mark)
		if err == nil {
			p.done(view.Index())
		}
		return fresh, err
	}
	rows := make([]board.TrialRows, 0, len(keys))
	for _, k := range keys {
		s, ok := view.Sweep(k.sweep)
		if !ok {
			if _, gone := view.Purged(k.sweep); gone { // else it is of a later index than the view's
				rows = append(rows, board.TrialRows{Sweep: k.sweep, Trial: k.trial})
			}
			continue
		}
		if t := s.Trial(k.trial); t != nil {
			rows = append(rows, board.RowsOf(s, t))
		}
	}
	// Nothing new is news as well: readers hear that the board lacks nothing.
	fresh, err := p.cfg.Redis.Advance(ctx, mark, view.Index(), time.Since(began), rows)
	if err == nil {
		p.done(view.Index())
	}
	return fresh, err
}

// done forgets what Redis now has.
func (p *Projector) done(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed(index)
}

// await returns once every change that the view shows has been heard of here.
func (p *Projector) await(ctx context.Context, view *state.View) error {
	newest := view.PurgedIndex()
	for _, s := range view.Sweeps() {
		newest = max(newest, s.ModifiedIndex)
	}
	for deadline := time.Now().Add(settle); ; {
		p.mu.Lock()
		ok := p.heard >= newest
		p.mu.Unlock()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			p.Resync()
			return fmt.Errorf("changes up to index %d were not heard of: the board will be rebuilt", newest)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// rebuild writes the whole board of a view beside the old one and publishes it. It
// began when the view was taken.
func (p *Projector) rebuild(ctx context.Context, began time.Time, view *state.View, mark board.Mark) (board.Mark, error) {
	b, err := p.cfg.Redis.Begin(ctx, view.ClusterID(), p.cfg.Generation())
	if err != nil {
		return mark, err
	}
	rows := make([]board.TrialRows, 0, fillChunk)
	total := 0
	fill := func() error {
		at := time.Now()
		if err := b.Fill(ctx, rows); err != nil {
			return err
		}
		total += len(rows)
		rows = rows[:0]
		select { // leave the processor to others for a while
		case <-ctx.Done():
		case <-time.After(time.Since(at) / 2):
		}
		return ctx.Err()
	}
	for _, s := range view.Sweeps() {
		for t := range s.Trials(1) {
			if !t.HasValue && len(t.Checkpoints) == 0 {
				continue
			}
			rows = append(rows, board.RowsOf(s, t))
			if len(rows) == fillChunk {
				if err := fill(); err != nil {
					return mark, err
				}
			}
		}
	}
	if len(rows) > 0 {
		if err := fill(); err != nil {
			return mark, err
		}
	}
	fresh, err := b.Publish(ctx, view.Index(), time.Since(began))
	if err != nil {
		return mark, err
	}
	p.cfg.Logger.Info("board rebuilt in redis", "index", fresh.Index, "trials", total, "found", mark.Index,
		"took", time.Since(began).Round(time.Millisecond))
	if err := p.cfg.Redis.Clear(ctx); err != nil {
		p.cfg.Logger.Info("old boards not cleared; the next rebuild will", "error", err)
	}
	return fresh, nil
}
