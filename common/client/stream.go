package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

// snapshotChunk keeps messages well below what a server takes at once.
const snapshotChunk = 256 << 10

// nothingDone reports whether a request may be sent again, to any node.
func nothingDone(f Finding) bool { return f.Kind == Gone || RefusalOf(f.Err).NothingDone }

// A stream cannot be repeated by the client below it, whose bytes are gone. So
// it goes to an address that has just said that it knows a leader.
func (r *retrier) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		if _, chosen := ctx.Value(addrKey{}).(string); chosen {
			return next(ctx, spec)
		}
		r.c.follower.maybe(ctx)
		addr := r.c.set.first()
		if a, err := r.c.choose(ctx, newFindings(), r.c.giveUpAt(), 1); err == nil {
			addr = a
		}
		return next(r.c.withAddr(ctx, addr), spec)
	}
}

// giveUpAt is when looking for a leader ends; zero = with the call's context.
func (c *Client) giveUpAt() time.Time {
	if c.opts.retryFor == 0 {
		return time.Time{}
	}
	return time.Now().Add(c.opts.retryFor)
}

// choose finds an address that answers and knows a leader. n is the number of
// attempts, this one included.
func (c *Client) choose(ctx context.Context, seen *findings, end time.Time, n int) (string, error) {
	wait := c.opts.backoffLow
	addr := c.set.first()
	for ; ; n++ {
		limit := c.opts.attempt
		if seen.hopeBeside(addr, c.set.all()) {
			limit = min(limit, firstLook+firstSilence)
		}
		if !end.IsZero() {
			limit = min(limit, max(time.Until(end), c.opts.backoffHigh))
		}
		one, cancel := context.WithTimeoutCause(ctx, limit, errSlow{limit})
		seen.begin(addr)
		node, err := c.raw.Node(addr).GetNode(seen.traced(one), connect.NewRequest(&atelierv1.GetNodeRequest{}))
		if err != nil && one.Err() != nil && ctx.Err() == nil {
			err = context.Cause(one)
		}
		cancel()
		seen.begin("")
		switch {
		case err == nil && node.Msg.LeaderId != "":
			c.pulses.at(addr).beat()
			return addr, nil
		case err == nil:
			c.learnMembers(node.Msg.Members)
			err = errNoneKnown
			seen.set(Finding{addr, NoLeader, err})
		case connect.IsWireError(err) && connect.CodeOf(err) != connect.CodeUnavailable:
			return addr, nil // it answers: the call itself says what is wrong
		default:
			seen.note(ctx, addr, err)
		}
		last := &UnreachableError{Addr: addr, Attempts: n, NoLeader: seen.noLeader(), Err: err, Found: seen.list()}
		if ctx.Err() != nil {
			return "", ended(ctx, last)
		}
		addr = c.set.next(addr)
		if n%len(c.set.all()) != 0 && (end.IsZero() || time.Now().Before(end)) {
			continue
		}
		if !end.IsZero() && !time.Now().Add(wait).Before(end) {
			return "", connect.NewError(connect.CodeUnavailable, c.surveyed(ctx, last))
		}
		if err := pause(ctx, wait); err != nil {
			return "", ended(ctx, last)
		}
		wait = min(2*wait, c.opts.backoffHigh)
	}
}

// streaming carries out one call that streams, at one address after the other
// until again says that it is over. again is told what stood in the way.
func (c *Client) streaming(ctx context.Context, call func(context.Context, *pulse) error, again func(Finding) bool) error {
	c.follower.maybe(ctx)
	seen := newFindings()
	end := c.giveUpAt()
	seen.giveUpAt(end)
	for n := 1; ; n++ {
		looking := c.lookout(ctx, seen)
		addr, err := c.choose(ctx, seen, end, n)
		looking()
		if err != nil {
			return err
		}
		one, cut := context.WithCancelCause(c.withAddr(ctx, addr))
		one = seen.traced(one)
		stop := c.watch(one, addr, streamSilence, cut)
		p := c.pulses.at(addr)
		err = call(one, p)
		stop()
		if cause := context.Cause(one); err != nil && cause != nil && ctx.Err() == nil {
			err = cause
		}
		cut(nil)
		if err == nil {
			return nil
		}
		found, retry := seen.note(ctx, addr, err)
		if !retry {
			return err
		}
		last := &UnreachableError{Addr: addr, Attempts: n, NoLeader: seen.noLeader(), Err: found.Err, Found: seen.list()}
		if ctx.Err() != nil {
			return ended(ctx, last)
		}
		c.follower.suspect()
		c.set.next(addr)
		if !again(found) || !end.IsZero() && time.Now().After(end) {
			return connect.NewError(connect.CodeUnavailable, last)
		}
		if err := pause(ctx, c.opts.backoffLow); err != nil {
			return ended(ctx, last)
		}
	}
}

// SaveSnapshot writes the cluster's state to w and returns its size. It goes on
// at another node as long as none has sent a byte.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer) (n int64, err error) {
	var writing error
	err = c.streaming(ctx, func(ctx context.Context, p *pulse) error {
		s, err := c.raw.Cluster.SaveSnapshot(ctx, connect.NewRequest(&atelierv1.SaveSnapshotRequest{}))
		if err != nil {
			return err
		}
		defer s.Close()
		for s.Receive() {
			p.beat()
			m, err := w.Write(s.Msg().GetData())
			n += int64(m)
			if err != nil {
				writing = fmt.Errorf("write the snapshot: %w", err)
				return nil
			}
		}
		return s.Err()
	}, func(Finding) bool { return n == 0 })
	if err == nil {
		err = writing
	}
	return n, err
}

// ErrUncertain is returned by RestoreSnapshot when the restore may have been
// carried out or not.
var ErrUncertain = errors.New("whether the state was replaced is not known: atelier cluster status and atelier sweep list show which one it is; the restore may be repeated")

// Restored is what a restore made of the cluster.
type Restored struct {
	Index          uint64
	Sweeps, Trials int64
	LeasesEnded    int64 // of the restored state: their trials wait again
	NoChecksum     bool  // the file was of a version that wrote none
	TakenMS        int64 // when it was saved; 0 = not said by the file
}

func restored(m *atelierv1.RestoreSnapshotResponse) *Restored {
	return &Restored{m.GetIndex(), m.GetSweeps(), m.GetTrials(), m.GetLeasesEnded(), m.GetNoChecksum(), m.GetTakenMs()}
}

// RestoreSnapshot replaces the cluster's state by a snapshot. As long as it is
// known that nothing was done it goes on at another node, from the beginning of
// the snapshot where in can be read again from there (io.Seeker). id names the
// restore: after ErrUncertain RestoreOutcome tells what became of it. progress,
// if any, is told how many bytes are sent.
func (c *Client) RestoreSnapshot(ctx context.Context, id string, in io.Reader, progress func(sent int64)) (*Restored, error) {
	var resp *Restored
	var reading error
	sent := false // since the beginning of the snapshot
	uncertain := false
	err := c.streaming(ctx, func(ctx context.Context, _ *pulse) error {
		if sent {
			if reading = rewind(in); reading != nil {
				return nil
			}
		}
		// Of any end but an answer it is only known that the state was sent.
		s := c.raw.Cluster.RestoreSnapshot(ctx)
		buf := make([]byte, snapshotChunk)
		name, total := id, int64(0) // the name goes with the first message
		for {
			n, err := io.ReadFull(in, buf)
			if n > 0 {
				sent = true
				if err := s.Send(&atelierv1.SnapshotChunk{Data: buf[:n], RestoreId: name}); err != nil {
					break // the answer says why
				}
				name = ""
				total += int64(n)
				if progress != nil {
					progress(total)
				}
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				reading = fmt.Errorf("read the snapshot: %w", err)
				return nil // the stream ends with its context: half a snapshot is none
			}
		}
		r, err := s.CloseAndReceive()
		if err == nil {
			resp = restored(r.Msg)
		}
		return err
	}, func(f Finding) bool {
		uncertain = !nothingDone(f)
		return !uncertain
	})
	if sent && err != nil && ctx.Err() != nil {
		uncertain = true
	}
	switch {
	case reading != nil:
		return nil, reading
	case uncertain:
		return nil, connect.NewError(connect.CodeOf(err), fmt.Errorf("%w: %w", ErrUncertain, err))
	}
	return resp, err
}

// RestoreOutcome asks whichever leader there is what became of a restore, at one
// node after the other until ctx ends. What is not committed when a leader is
// asked is given up, so its answer is for certain: what was restored, or an error
// of CodeAborted. Any other error leaves it open.
func (c *Client) RestoreOutcome(ctx context.Context, id string) (*Restored, error) {
	const each, between = 5 * time.Second, 300 * time.Millisecond
	addr := c.set.first()
	for {
		one, done := context.WithTimeout(ctx, each)
		s := c.raw.Node(addr).RestoreSnapshot(one)
		s.Send(&atelierv1.SnapshotChunk{RestoreId: id, Inquire: true}) // the answer has its error
		r, err := s.CloseAndReceive()
		done()
		if err == nil {
			return restored(r.Msg), nil
		}
		if connect.CodeOf(err) == connect.CodeAborted || pause(ctx, between) != nil {
			return nil, err
		}
		addr = c.set.next(addr)
	}
}

// rewind goes back to the beginning of what is read.
func rewind(in io.Reader) error {
	s, ok := in.(io.Seeker)
	if !ok {
		return errors.New("the node that was to take the snapshot went away, nothing was replaced; what came through a pipe cannot be sent again: repeat the command")
	}
	if _, err := s.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("the node that was to take the snapshot went away, nothing was replaced; the snapshot cannot be read again from its beginning, repeat the command: %w", err)
	}
	return nil
}
