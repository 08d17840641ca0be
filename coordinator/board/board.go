package board

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// Sources of an answer.
const (
	FromRedis = "redis"
	FromState = "state"
)

// Fresh is how old a board may be that is shown as it is: longer than the leader
// is silent while all is well.
const Fresh = 2 * time.Second

var (
	// ErrSource is returned for a source other than "", "redis" and "state".
	ErrSource = errors.New(`source is "redis" or "state", or empty for whichever is there`)
	// ErrOff is returned when Redis is asked for and none is configured.
	ErrOff = errors.New("this cluster runs without redis: start coordinators with --redis HOST:PORT, or ask for source state")
)

// Board is Redis as one coordinator reads it, leader or not.
type Board struct {
	redis *Redis // nil = off
	// highest is the newest index that this node has seen there: a board that goes
	// back behind it was set back.
	highest atomic.Uint64
}

// New returns a board; r is nil without Redis.
func New(r *Redis) *Board { return &Board{redis: r} }

// On reports whether Redis is configured.
func (b *Board) On() bool { return b.redis != nil }

// Answer says what an answer of Redis reflects. Its index is that of the view where
// the sweep has not changed since the watermark.
type Answer struct {
	Found
	// SetBack: an earlier answer had a higher index.
	SetBack bool
}

// Fresh reports whether the answer may be shown without asking the leader.
func (a Answer) Fresh() bool { return a.Age >= 0 && a.Age <= Fresh && !a.SetBack }

// CheckSource refuses a source that there is not.
func CheckSource(source string) error {
	switch source {
	case "", FromRedis, FromState:
		return nil
	}
	return fmt.Errorf("%w, not %q", ErrSource, source)
}

// Leaderboard reads the top rows of a sweep from Redis, all with top 0.
func (b *Board) Leaderboard(ctx context.Context, view *state.View, s *state.Sweep, top int) ([]trial.Row, Answer, error) {
	return read(b, view, s, func(r *Redis) ([]trial.Row, Found, error) {
		return r.Leaderboard(ctx, view.ClusterID(), s, top)
	})
}

// Checkpoints reads the checkpoints of a trial from Redis, of all trials with
// trial 0.
func (b *Board) Checkpoints(ctx context.Context, view *state.View, s *state.Sweep, number int64) ([]trial.Checkpoint, Answer, error) {
	return read(b, view, s, func(r *Redis) ([]trial.Checkpoint, Found, error) {
		return r.Checkpoints(ctx, view.ClusterID(), s, number)
	})
}

// read asks Redis and says what the answer reflects: the watermark, or, for a sweep that has not
// changed since, what this node has applied. It refuses what is of before a restore, and notes what
// is older than what was shown before.
func read[T any](b *Board, view *state.View, s *state.Sweep, ask func(*Redis) ([]T, Found, error)) ([]T, Answer, error) {
	if b.redis == nil {
		return nil, Answer{}, ErrOff
	}
	rows, found, err := ask(b.redis)
	if err != nil {
		return nil, Answer{}, err
	}
	if _, restored := view.Restored(); found.Index < restored {
		return nil, Answer{}, fmt.Errorf("%w: what is there is of index %d, and a snapshot was restored at index %d", ErrNotThere, found.Index, restored)
	}
	answer := Answer{Found: found}
	for {
		highest := b.highest.Load()
		answer.SetBack = found.Index < highest
		if answer.SetBack || b.highest.CompareAndSwap(highest, found.Index) {
			break
		}
	}
	if found.Index >= s.ModifiedIndex {
		answer.Index = max(found.Index, view.Index())
	}
	return rows, answer, nil
}
