// Package notify posts the ends of sweeps to the addresses that people gave: a JSON
// document, with a line of text that chat programs show.
//
// Each attempt goes into the log, so that a new leader continues where the last one was,
// and an end is posted once at least: a receiver that needs it once compares `delivery`. After an
// hour of failures it is given up, which `atelier sweep show` tells.
//
// The package refuses to follow redirects, to read more than a little of an answer, to
// speak to link-local addresses (where clouds keep their machines' credentials), and to
// name more of an address than scheme and host: the rest may be a secret.
package notify

import (
	"context"
	"log/slog"
	"sync"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

// Pauses are those between attempts: an hour in all. After the attempt that follows the
// last one the end is given up.
var Pauses = []time.Duration{5 * time.Second, 15 * time.Second, 40 * time.Second, 2 * time.Minute, 5 * time.Minute,
	10 * time.Minute, 15 * time.Minute, 27 * time.Minute}

const (
	// lookEvery is how often the duty looks although nothing woke it.
	lookEvery = 5 * time.Second
	// atOnce is how many posts are under way at a time, at most.
	atOnce = 8
)

// Log is the way to write.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of a Notifier.
type Config struct {
	Log    Log
	View   func() *state.View
	NowMS  func() int64
	Post   func(ctx context.Context, url string, body []byte) error // nil = Post
	Pauses []time.Duration                                          // nil = Pauses
	Logger *slog.Logger
}

// Notifier is the duty.
type Notifier struct {
	cfg  Config
	wake chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex
	busy map[target]bool // what is being posted
}

// target is a sweep and an address that its end is posted to. One that was corrected while
// the old one is slow to answer does not wait for that.
type target struct{ sweep, url string }

// New prepares the duty.
func New(c Config) *Notifier {
	if c.Post == nil {
		c.Post = Post
	}
	if c.Pauses == nil {
		c.Pauses = Pauses
	}
	return &Notifier{cfg: c, wake: make(chan struct{}, 1)}
}

// Start begins it.
func (n *Notifier) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.busy = map[target]bool{}
	n.done.Add(1)
	go func() { defer n.done.Done(); n.run(ctx) }()
}

// Stop ends it; posts under way are broken off, and are made again by the next leader.
func (n *Notifier) Stop() {
	n.stop()
	n.done.Wait()
}

// Changed implements duty.Watcher: a sweep may have ended.
func (n *Notifier) Changed(changes []state.Change) {
	for i := range changes {
		if changes[i].Kind == state.SweepChanged {
			n.Resync()
			return
		}
	}
}

// Resync implements duty.Watcher.
func (n *Notifier) Resync() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Notifier) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		next := n.look(ctx)
		due := time.NewTimer(next)
		select {
		case <-ctx.Done():
			due.Stop()
			return
		case <-tick.C:
		case <-n.wake:
		case <-due.C:
		}
		due.Stop()
	}
}

// look posts every end that is due, beside one another, and returns how long until the
// next one is, lookEvery at most.
func (n *Notifier) look(ctx context.Context) (next time.Duration) {
	next = lookEvery
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.cfg.View().Sweeps() {
		attempts, pending := s.PendingNotification()
		if !pending {
			continue
		}
		to := target{s.ID, s.Notification.URL}
		if n.busy[to] {
			continue
		}
		if attempts > 0 {
			pause := n.cfg.Pauses[min(int(attempts), len(n.cfg.Pauses))-1]
			if wait := pause - time.Duration(n.cfg.NowMS()-s.Notification.LastMS)*time.Millisecond; wait > 0 {
				next = min(next, wait)
				continue
			}
		}
		if len(n.busy) >= atOnce {
			break // an attempt that ends wakes this
		}
		n.busy[to] = true
		n.done.Add(1)
		go func() {
			defer n.done.Done()
			n.attempt(ctx, s, attempts+1)
			n.mu.Lock()
			delete(n.busy, to)
			n.mu.Unlock()
			n.Resync()
		}()
	}
	return next
}

// attempt posts once and writes down what came of it.
func (n *Notifier) attempt(ctx context.Context, s *state.Sweep, number int32) {
	host := trial.HookHost(s.Notification.URL)
	body, err := Document(s, n.cfg.NowMS())
	if err == nil {
		err = n.cfg.Post(ctx, s.Notification.URL, body)
	}
	if ctx.Err() != nil {
		return // another leader makes it again
	}
	record := &logv1.RecordNotification{Id: s.ID, EndMs: s.EndedMS, Attempt: number, Url: s.Notification.URL, Last: int(number) > len(n.cfg.Pauses)}
	about := []any{"sweep", s.ID, "to", host, "attempt", number}
	switch {
	case err == nil:
		n.cfg.Logger.Info("the end of a sweep was posted", about...)
	case record.Last:
		record.Error = err.Error()
		n.cfg.Logger.Error("the end of a sweep was not posted; no further attempt is made", append(about, "error", err)...)
	default:
		record.Error = err.Error()
		n.cfg.Logger.Warn("the end of a sweep was not posted; it is tried again", append(about, "error", err)...)
	}
	// Written until it is known or leadership ends: otherwise it would be posted again at once.
	for {
		_, err := n.cfg.Log.Propose(ctx, &logv1.Command{TimeMs: n.cfg.NowMS(), Op: &logv1.Command_RecordNotification{RecordNotification: record}})
		if err == nil { // an error of the command itself: the sweep is gone
			return
		}
		n.cfg.Logger.Warn("an attempt to post the end of a sweep was not recorded", append(about, "error", err)...)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
