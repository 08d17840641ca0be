package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
)

// retrier repeats unary calls. An attempt that ended because the node was out
// of reach, had no leader, or stayed silent is followed by one at the next
// address; after each full round it pauses, longer each time.
type retrier struct{ c *Client }

// waiter is a request that asks the server to wait.
type waiter interface{ GetWaitMs() int64 }

func (r *retrier) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		o := r.c.opts
		attempt := o.attempt
		if w, ok := req.Any().(waiter); ok && w.GetWaitMs() > 0 {
			attempt += time.Duration(w.GetWaitMs()) * time.Millisecond
		}
		// A wait that the caller asked for is no part of the time that is
		// spent looking for a leader.
		var giveUp <-chan time.Time
		var deadline time.Time
		if o.retryFor > 0 {
			deadline = time.Now().Add(o.retryFor + attempt - o.attempt)
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			giveUp = t.C
		}
		r.c.follower.maybe(ctx)
		addr := r.c.set.first()
		pause := o.backoffLow
		for n := 1; ; n++ {
			limit := attempt
			if !deadline.IsZero() {
				limit = min(limit, max(time.Until(deadline), o.backoffHigh))
			}
			one, cancel := context.WithTimeout(withAddr(ctx, addr), limit)
			resp, err := next(one, req)
			cancel()
			if err == nil {
				return resp, nil
			}
			// The server is told the limit and may be the first to say it is over.
			frozen := ctx.Err() == nil && connect.CodeOf(err) == connect.CodeDeadlineExceeded
			if ctx.Err() == nil && !frozen && !unavailable(err) {
				return nil, err
			}
			if frozen {
				err = connect.NewError(connect.CodeUnavailable, fmt.Errorf("no answer within %s", limit.Round(time.Millisecond)))
			}
			last := &UnreachableError{Addr: addr, Attempts: n, NoLeader: noLeader(err), Err: err}
			if ctx.Err() != nil {
				return nil, ended(ctx, last)
			}
			r.c.follower.suspect()
			addr = r.c.set.next(addr)
			// Nodes that are gone answer at once: try the others first. A node
			// that answers "no leader" speaks for the cluster.
			if !last.NoLeader && !frozen && n%len(r.c.set.all()) != 0 {
				if deadline.IsZero() || time.Now().Before(deadline) {
					continue
				}
			}
			wait := time.NewTimer(pause/2 + rand.N(pause/2+1))
			select {
			case <-wait.C:
			case <-giveUp:
				wait.Stop()
				return nil, connect.NewError(connect.CodeUnavailable, last)
			case <-ctx.Done():
				wait.Stop()
				return nil, ended(ctx, last)
			}
			pause = min(2*pause, o.backoffHigh)
		}
	}
}

// unavailable reports whether another attempt may find what this one missed: a
// server said so, or the connection broke. A broken connection comes as
// Canceled (reset, broken pipe) or Unknown (cut off in an answer) without a
// server having said either.
func unavailable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable:
		return true
	case connect.CodeCanceled, connect.CodeUnknown:
		return !connect.IsWireError(err)
	}
	return false
}

func (r *retrier) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		r.c.follower.maybe(ctx)
		return next(withAddr(ctx, r.c.set.first()), spec)
	}
}

func (r *retrier) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// ended says both that the caller's time is over and what stood in the way.
func ended(ctx context.Context, last *UnreachableError) error {
	code := connect.CodeDeadlineExceeded
	if errors.Is(ctx.Err(), context.Canceled) {
		code = connect.CodeCanceled
	}
	if last.Attempts == 1 && (errors.Is(last.Err, context.Canceled) || errors.Is(last.Err, context.DeadlineExceeded)) {
		return connect.NewError(code, ctx.Err())
	}
	return connect.NewError(code, fmt.Errorf("%w: %w", ctx.Err(), last))
}
