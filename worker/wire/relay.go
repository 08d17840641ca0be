package wire

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// linger is how long what was written before an end may take to arrive, and how
// long a writer that does not know of the end yet is listened to.
const linger = time.Second

// relay carries bytes between a trainer and another agent until one side ends.
type relay struct {
	near *net.UnixConn // to the trainer
	far  net.Conn      // to the other agent

	sent, received atomic.Int64 // bytes to far, from far
}

// relay starts to carry. The seat's Close ends it.
func (s *Seat) relay(near *net.UnixConn, far net.Conn) {
	r := &relay{near: near, far: far}
	h := s.hub
	h.mu.Lock()
	over := s.ctx.Err() != nil
	if !over {
		s.relays[r] = struct{}{}
	}
	h.mu.Unlock()
	if over {
		near.Close()
		far.Close()
		return
	}
	go func() {
		r.carry()
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(s.relays, r)
		h.stats.Sent += r.sent.Load()
		h.stats.Received += r.received.Load()
	}()
}

// carry returns when both sides are closed. The end of one is passed on behind its
// last bytes, and ends the other: a link is never open on one side alone. Bytes
// that still come are read and dropped for a moment, since a socket that is closed
// with unread bytes takes back what it sent.
func (r *relay) carry() {
	var both sync.WaitGroup
	both.Go(func() { r.oneWay(r.far, r.near, &r.sent) })
	both.Go(func() { r.oneWay(r.near, r.far, &r.received) })
	both.Wait()
	r.near.Close()
	r.far.Close()
}

func (r *relay) oneWay(to, from net.Conn, n *atomic.Int64) {
	copyCounted(to, from, n)
	r.end()
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
	io.Copy(io.Discard, from)
}

// end ends both sides soon.
func (r *relay) end() {
	by := time.Now().Add(linger)
	r.near.SetDeadline(by)
	r.far.SetDeadline(by)
}

// relayBuffer is large, so that a message of megabytes takes few calls.
const relayBuffer = 256 << 10

// copyCounted copies until an end or an error. The kernel's splice, which io.Copy
// would use, takes as much processor time (BENCHMARKS.md of worker/agent) and
// counts at the end only.
func copyCounted(to, from net.Conn, n *atomic.Int64) {
	b := make([]byte, relayBuffer)
	for {
		got, err := from.Read(b)
		if got > 0 {
			n.Add(int64(got))
			if _, err := to.Write(b[:got]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
