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
// of reach, had no leader, or stayed unresponsive is followed by one at the next
// address; after each full round it pauses, longer each time.
type retrier struct{ c *Client }

// waiter is a request that asks the server to wait.
type waiter interface{ GetWaitMs() int64 }

// WrapUnary repeats a call until it is answered, or until nobody who may know has answered for
// retryFor. It is right for every call: those that change something carry a request id, or a
// natural key, by which the cluster knows a repetition.
func (r *retrier) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		o := r.c.opts
		attempt := o.attempt
		if w, ok := req.Any().(waiter); ok && w.GetWaitMs() > 0 {
			attempt += time.Duration(w.GetWaitMs()) * time.Millisecond
		}
		// A wait that the caller asked for is no part of the time that is spent
		// looking for a leader, as far as a node does wait with it.
		asked := attempt - o.attempt
		deadline := r.c.giveUpAt()
		r.c.follower.maybe(ctx)
		addr := r.c.set.first()
		wait := o.backoffLow
		learned := false
		seen := newFindings()
		seen.giveUpAt(deadline)
		defer r.c.lookout(ctx, seen)()
		for n := 1; ; n++ {
			limit := attempt
			if !deadline.IsZero() {
				limit = min(limit, max(time.Until(deadline), o.backoffHigh)+asked)
			}
			began := time.Now()
			resp, err := r.attempt(ctx, addr, limit, seen, func(one context.Context) (connect.AnyResponse, error) { return next(one, req) })
			if err == nil {
				return resp, nil
			}
			found, retry := seen.note(ctx, addr, err)
			if !retry {
				return nil, stranger(addr, err)
			}
			if !deadline.IsZero() && found.Kind != Gone {
				waited := min(time.Since(began), asked)
				asked -= waited
				deadline = deadline.Add(waited)
				seen.giveUpAt(deadline)
			}
			last := &UnreachableError{Addr: addr, Attempts: n, NoLeader: seen.noLeader(), Err: found.Err, Found: seen.list()}
			if ctx.Err() != nil {
				return nil, ended(ctx, last)
			}
			r.c.follower.suspect()
			if found.Kind == NoLeader && !learned {
				learned = true
				r.c.learnFrom(ctx, addr)
			}
			addr = r.c.set.next(addr)
			// Nodes that are gone or unresponsive say nothing of the others: try those
			// first. A node that answers "no leader" speaks for the cluster.
			if found.Kind != NoLeader && found.Kind != Slow && n%len(r.c.set.all()) != 0 {
				if deadline.IsZero() || time.Now().Before(deadline) {
					continue
				}
			}
			rest := wait/2 + rand.N(wait/2+1)
			if !deadline.IsZero() && time.Until(deadline) < rest {
				if pause(ctx, time.Until(deadline)) != nil {
					return nil, ended(ctx, last)
				}
				return nil, connect.NewError(connect.CodeUnavailable, r.c.surveyed(ctx, last))
			}
			if pause(ctx, rest) != nil {
				return nil, ended(ctx, last)
			}
			wait = min(2*wait, o.backoffHigh)
		}
	}
}

// stranger says it where another program answers at an address.
func stranger(addr string, err error) error {
	if connect.CodeOf(err) == connect.CodeUnimplemented && !connect.IsWireError(err) {
		return connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s answers, and is not a coordinator of Atelier (%s): look at the port, which is that of --api", addr, Message(err)))
	}
	return err
}

// attempt makes one attempt at one address. It is cut off at the limit, and
// earlier where the node does not answer at all while this call has not yet
// found every other one gone or unresponsive as well: then it waits as long as it
// may, for perhaps it is this machine that is slow.
func (r *retrier) attempt(ctx context.Context, addr string, limit time.Duration, seen *findings, call func(context.Context) (connect.AnyResponse, error)) (connect.AnyResponse, error) {
	base, cut := context.WithCancelCause(r.c.withAddr(ctx, addr))
	defer cut(nil)
	one, cancel := context.WithTimeoutCause(base, limit, errSlow{limit})
	defer cancel()
	one = seen.traced(one)
	seen.begin(addr)
	defer seen.begin("")
	if seen.hopeBeside(addr, r.c.set.all()) {
		defer r.c.watch(one, addr, 0, cut)()
	}
	resp, err := call(one)
	if err == nil {
		r.c.pulses.at(addr).beat()
		return resp, nil
	}
	// The server is told the limit and may be the first to say it is over.
	if connect.CodeOf(err) == connect.CodeDeadlineExceeded && one.Err() == nil && ctx.Err() == nil {
		return nil, errSlow{limit}
	}
	if cause := context.Cause(one); cause != nil && ctx.Err() == nil {
		return nil, cause
	}
	if connect.IsWireError(err) {
		r.c.pulses.at(addr).beat()
	}
	return nil, err
}

// WrapStreamingHandler is of servers.
func (r *retrier) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// ended says both that the caller's time is over and what stood in the way.
func ended(ctx context.Context, last *UnreachableError) error {
	code := connect.CodeDeadlineExceeded
	if errors.Is(ctx.Err(), context.Canceled) {
		code = connect.CodeCanceled
	}
	if last.Attempts == 1 && last.Found == nil {
		return connect.NewError(code, ctx.Err())
	}
	return connect.NewError(code, fmt.Errorf("%w: %w", ctx.Err(), last))
}
