package client

import (
	"context"
	"errors"
	"sync"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

// A request that takes long and a node that is frozen (stopped, swapped out,
// its machine gone without a word) look alike from outside: the connection
// stands and nothing comes. So while an attempt is open, its node is asked
// GetNode, which any node answers from its own memory. One that answers is
// waited for as long as the caller likes; one that does not is left for the next
// address. A call is never sent to two nodes at once.
const (
	// An address that never answered this client is asked early: a command's
	// first call should not wait on the one coordinator that is frozen.
	firstLook    = 250 * time.Millisecond
	firstSilence = 750 * time.Millisecond
	// One that has answered before may be busy for a while.
	lookAfter = time.Second
	silence   = 2 * time.Second
	// A stream that has begun cannot go on elsewhere.
	streamSilence = 15 * time.Second
)

// errUnresponsive ends an attempt at a node that does not answer at all.
var errUnresponsive = errors.New("no answer, not even to a question about the node itself")

// pulses keeps, for each address, when it was last heard.
type pulses struct {
	mu sync.Mutex
	of map[string]*pulse
}

type pulse struct {
	mu    sync.Mutex
	heard time.Time // zero = never
	asked *inquest  // under way; nil = none
}

// inquest is one question, for all calls that wonder about the same node.
type inquest struct {
	over         chan struct{}
	unresponsive bool // set before over is closed
}

// at is the pulse of an address, made where there is none.
func (s *pulses) at(addr string) *pulse {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]*pulse{}
	}
	p := s.of[addr]
	if p == nil {
		p = &pulse{}
		s.of[addr] = p
	}
	return p
}

// beat notes that the node has said something.
func (p *pulse) beat() {
	p.mu.Lock()
	p.heard = time.Now()
	p.mu.Unlock()
}

// last is when it last did; zero for never.
func (p *pulse) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard
}

// patience is how long the node may be quiet before it is asked, and how long
// the answer to that may take.
func (p *pulse) patience() (quiet, wait time.Duration, heard time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard.IsZero() {
		return firstLook, firstSilence, p.heard
	}
	return lookAfter, silence, p.heard
}

// watch ends an attempt at addr with errUnresponsive once the node does not answer at
// all, for the usual time and at least for that of least. It ends with ctx; stop it
// first, most attempts are over before it begins.
func (c *Client) watch(ctx context.Context, addr string, least time.Duration, cut context.CancelCauseFunc) (stop func() bool) {
	p := c.pulses.at(addr)
	quiet, _, _ := p.patience()
	began := time.Now()
	return time.AfterFunc(quiet, func() {
		for ctx.Err() == nil {
			quiet, _, heard := p.patience()
			if d := quiet - time.Since(heard); d <= 0 {
				if c.unresponsive(ctx, p, addr) && time.Since(began) >= least && time.Since(p.last()) >= least {
					cut(errUnresponsive)
					return
				}
				continue
			} else if pause(ctx, d) != nil {
				return
			}
		}
	}).Stop
}

// unresponsive asks the node, or joins in a question under way.
func (c *Client) unresponsive(ctx context.Context, p *pulse, addr string) bool {
	_, wait, _ := p.patience()
	p.mu.Lock()
	q := p.asked
	if q == nil {
		q = &inquest{over: make(chan struct{})}
		p.asked = q
		go func() {
			one, stop := context.WithTimeout(context.Background(), wait)
			defer stop()
			_, err := c.raw.Node(addr).GetNode(one, connect.NewRequest(&atelierv1.GetNodeRequest{}))
			// A refusal is no silence: the attempt itself will hear of it.
			q.unresponsive = one.Err() != nil && err != nil
			p.mu.Lock()
			p.asked = nil
			if !q.unresponsive {
				p.heard = time.Now()
			}
			p.mu.Unlock()
			close(q.over)
		}()
	}
	p.mu.Unlock()
	select {
	case <-q.over:
		return q.unresponsive
	case <-ctx.Done():
		return false
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
