// Package purge takes deleted sweeps out of the state once they cannot be taken back
// any more (state.GraceMS). The state's changes name what a purge takes along: rows of the
// board, and checkpoints of the index, whose files their workers delete.
//
// The package refuses to purge what a person took back in the meantime: each purge
// names the deletion that it carries out.
package purge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

// Every is how often the duty looks.
const Every = time.Minute

// Log is the way to write.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of a Purger.
type Config struct {
	Log    Log
	View   func() *state.View
	NowMS  func() int64
	Every  time.Duration // 0 = Every
	Logger *slog.Logger
}

// Purger is the duty.
type Purger struct {
	cfg  Config
	stop context.CancelFunc
	done sync.WaitGroup
}

// New prepares the duty.
func New(c Config) *Purger {
	if c.Every <= 0 {
		c.Every = Every
	}
	return &Purger{cfg: c}
}

// Start begins it.
func (p *Purger) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.done.Add(1)
	go func() {
		defer p.done.Done()
		tick := time.NewTicker(p.cfg.Every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.look(ctx)
			}
		}
	}()
}

// Stop ends it.
func (p *Purger) Stop() {
	p.stop()
	p.done.Wait()
}

// look purges every sweep whose time has come. What does not succeed is tried at the
// next look.
func (p *Purger) look(ctx context.Context) {
	for _, s := range p.cfg.View().Sweeps() {
		now := p.cfg.NowMS()
		if s.DeletedMS == 0 || now < s.PurgeMS() {
			continue
		}
		r, err := p.cfg.Log.Propose(ctx, &logv1.Command{TimeMs: now, Op: &logv1.Command_PurgeSweep{PurgeSweep: &logv1.PurgeSweep{Id: s.ID, DeletedMs: s.DeletedMS}}})
		if err == nil {
			err = r.Err
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.cfg.Logger.Warn("a deleted sweep was not removed; it is tried again", "sweep", s.ID, "error", err)
		default:
			p.cfg.Logger.Info("a sweep deleted a day ago was removed", "sweep", s.ID, "trials", s.Len(), "checkpoint_bytes", s.StoredBytes)
		}
	}
}
