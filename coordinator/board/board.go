package board

import (
	"context"
	"errors"
	"fmt"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
)

// Sources of an answer.
const (
	FromRedis = "redis"
	FromState = "state"
)

// patience is how long a reader waits for Redis to catch up with what the
// reader may already have seen, before the state answers.
const patience = 400 * time.Millisecond

var (
	// ErrSource is returned for a source other than "", "redis" and "state".
	ErrSource = errors.New(`source is "redis" or "state", or empty for whichever is there`)
	// ErrOff is returned when Redis is asked for and none is configured.
	ErrOff = errors.New("this cluster runs without redis: start coordinators with --redis HOST:PORT, or ask for source state")
)

// Board answers from Redis where it can and from the state where it must.
type Board struct {
	redis *Redis // nil = off
}

// New returns a board. Without Redis (nil) the state answers everything.
func New(r *Redis) *Board { return &Board{redis: r} }

// Answer says what an answer reflects and where it came from.
type Answer struct {
	Index  uint64
	Source string
}

// Leaderboard returns the top rows of a sweep, all with top 0. With an empty
// source the answer is never older than view.
func (b *Board) Leaderboard(ctx context.Context, view *state.View, s *state.Sweep, top int, source string) ([]*atelierv1.LeaderboardRow, Answer, error) {
	return ask(ctx, b, view, s, source, func(ctx context.Context) ([]*atelierv1.LeaderboardRow, uint64, error) {
		return b.redis.Leaderboard(ctx, view.ClusterID(), s.ID, top)
	}, func() []*atelierv1.LeaderboardRow { return LeaderboardOf(s, top) })
}

// Checkpoints returns the checkpoints of a trial, of all trials with trial 0.
func (b *Board) Checkpoints(ctx context.Context, view *state.View, s *state.Sweep, trial int64, source string) ([]*atelierv1.Checkpoint, Answer, error) {
	return ask(ctx, b, view, s, source, func(ctx context.Context) ([]*atelierv1.Checkpoint, uint64, error) {
		return b.redis.Checkpoints(ctx, view.ClusterID(), s.ID, trial)
	}, func() []*atelierv1.Checkpoint { return CheckpointsOf(s, trial) })
}

func ask[T any](ctx context.Context, b *Board, view *state.View, s *state.Sweep, source string,
	redis func(context.Context) ([]T, uint64, error), fromState func() []T) ([]T, Answer, error) {
	switch source {
	case FromState:
		return fromState(), Answer{view.Index(), FromState}, nil
	case "":
		if b.redis == nil {
			return fromState(), Answer{view.Index(), FromState}, nil
		}
	case FromRedis:
		if b.redis == nil {
			return nil, Answer{}, ErrOff
		}
	default:
		return nil, Answer{}, fmt.Errorf("%w, not %q", ErrSource, source)
	}
	// The sweep as this reader may know it: an older board would take back what
	// somebody has already seen.
	for deadline := time.Now().Add(patience); ; {
		rows, index, err := redis(ctx)
		if err == nil && index >= s.ModifiedIndex {
			return rows, Answer{index, FromRedis}, nil
		}
		if ctx.Err() != nil {
			return nil, Answer{}, ctx.Err()
		}
		var other *OtherError
		behind := err == nil || errors.Is(err, ErrNotThere) && !errors.As(err, &other) || errors.Is(err, ErrOvertaken)
		if !behind || time.Now().After(deadline) {
			if source == FromRedis {
				return rows, Answer{index, FromRedis}, err
			}
			return fromState(), Answer{view.Index(), FromState}, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
