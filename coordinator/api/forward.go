package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
)

const (
	// forwardedHeader marks a request that a follower has handed on. It is not
	// handed on again: two nodes that each believe the other leads would forward it
	// forever.
	forwardedHeader = "Atelier-Forwarded-By"
	// notLeaderHeader marks an answer that says: not the leader, nothing done. A
	// follower that handed the request on asks again by itself.
	notLeaderHeader = "Atelier-Not-Leader"
	// leaderWait is how long a request waits for a leader.
	leaderWait = 3 * time.Second
	// forwardedWait is the same for a request that was handed on: the node asked
	// may be about to lead, and the node that asked waits anyway.
	forwardedWait = 300 * time.Millisecond
	lookAgain     = 15 * time.Millisecond
	// handedGrace is what a node that stops leaves the leader to answer.
	handedGrace = 300 * time.Millisecond
	// deposedGrace is how long the answer of a node is still waited for once
	// another leads: a leader that handed over has it under way, one that is
	// frozen or cut off will not send it.
	deposedGrace = 500 * time.Millisecond
)

// errDeposed ends the wait for the answer of a node that leads no more.
var errDeposed = errors.New("it leads no more and does not answer")

// newTransport connects coordinators: many requests at once to few addresses, so connections are
// kept. A peer that cannot be reached within a second is not waited for, since the request can
// still be sent to the next leader.
func newTransport(secure *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:     secure,
		TLSHandshakeTimeout: time.Second,
		DialContext:         (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:        1024,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // answers pass as they are
	}
}

// errWriter writes errors as whichever protocol the request speaks.
var errWriter = connect.NewErrorWriter()

// lead serves a request here when this node leads, else hands it to the leader.
func (s *Server) lead(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Lead.Ready() {
			h.ServeHTTP(w, r)
			return
		}
		s.handOn(w, r, h)
	})
}

// streams reports whether a request may be a stream of messages of any length. Such a body is neither kept nor
// bounded, and so can be sent only once.
func streams(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, client.WorkerFilesPath) {
		return true
	}
	kind := r.Header.Get("Content-Type")
	return strings.HasPrefix(kind, "application/connect+") || strings.HasPrefix(kind, "application/grpc")
}

// handOn waits for a leader, this node or another, and has it answer. A request is sent again only
// where nothing can have come of it, or where repeating it is safe (see try); when the patience is
// over, the refusal says nothing_done, so that a client may repeat even what is not safe to repeat.
func (s *Server) handOn(w http.ResponseWriter, r *http.Request, local http.Handler) {
	streams := streams(r)
	forwarded := r.Header.Get(forwardedHeader) != ""
	patience := leaderWait
	if forwarded {
		patience = forwardedWait
	}
	var body []byte
	if !streams && !forwarded {
		// Kept, so that it can be sent again to a node that did nothing with it.
		var err error
		if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest+1<<10)); err != nil {
			s.refuse(w, r, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("read the request: %w", err)))
			return
		}
	}
	var sent *once
	if streams {
		sent = &once{body: r.Body}
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		changed := s.cfg.Lead.Changed()
		if s.cfg.Lead.Ready() {
			// This node has become the leader while the request waited.
			if body != nil {
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			local.ServeHTTP(w, r)
			return
		}
		if !forwarded {
			if id, _ := s.cfg.Cluster.Leader(); id != "" && id != s.cfg.ID {
				if addr := s.apiOf(id); addr != "" {
					if s.try(w, r, id, addr, body, sent) {
						return
					}
					if sent != nil && sent.begun.Load() { // a part of the stream is gone
						s.refuse(w, r, s.nobody(perhapsDone))
						return
					}
				}
			}
		}
		select {
		case <-changed:
		case <-time.After(lookAgain):
		case <-deadline.C:
			s.refuse(w, r, s.nobody(nothingDone))
			return
		case <-s.done:
			s.refuse(w, r, noLeader(nothingDone, "no leader here: this coordinator is stopping"))
			return
		case <-r.Context().Done():
			return
		}
	}
}

// try hands a request to the leader, id at addr, and its answer back. It returns
// false when nothing was answered and the request may be sent again: nothing was
// done, or another leads by now and what was kept of the request can be
// repeated, as every request can that is no stream.
func (s *Server) try(w http.ResponseWriter, r *http.Request, id, addr string, body []byte, sent *once) bool {
	ctx, cancel := context.WithCancelCause(r.Context())
	var moved atomic.Int64 // when a stream last moved, in Unix milliseconds
	defer s.untilStopped(ctx, cancel)()
	defer s.abandon(ctx, id, &moved, cancel)()
	if sent != nil {
		sent.moved = &moved
	}
	var from io.Reader = bytes.NewReader(body)
	if sent != nil {
		from = sent
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, s.urlOf(addr)+r.URL.RequestURI(), from)
	if err != nil {
		s.refuse(w, r, connect.NewError(connect.CodeInternal, err))
		return true
	}
	for k, v := range r.Header {
		if !hop(k) {
			out.Header[k] = v
		}
	}
	out.Header.Set(forwardedHeader, s.cfg.ID)
	handCaller(out.Header, callerOf(r.Context()))
	if sent != nil {
		out.ContentLength = r.ContentLength
	}
	left := func() bool { return true }
	if s.cfg.TLS != nil {
		out, left = traced(out)
	}
	resp, err := s.peers.RoundTrip(out)
	if err != nil {
		// No connection, or none that is encrypted: the request did not leave.
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" || !left() {
			return false
		}
		// Another leads by now. The one asked may have done it or not: the next one knows by the request's id.
		if r.Context().Err() == nil && sent == nil && errors.Is(context.Cause(ctx), errDeposed) {
			return false
		}
		if errors.Is(context.Cause(ctx), errStopping) {
			s.refuse(w, r, connect.NewError(connect.CodeUnavailable, errStopping))
		} else if r.Context().Err() == nil {
			s.refuse(w, r, noLeader(perhapsDone, "no leader any more: it went away before it answered; repeat the request with the same id (%v)", err))
		}
		return true
	}
	defer resp.Body.Close()
	// Read to its end, so that the connection can be used again.
	if resp.Header.Get(notLeaderHeader) != "" {
		io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		return false
	}
	for k, v := range resp.Header {
		if !hop(k) {
			w.Header()[k] = v
		}
	}
	for k := range resp.Trailer {
		w.Header().Add("Trailer", k)
	}
	w.WriteHeader(resp.StatusCode)
	if sent != nil {
		stream(w, resp.Body, &moved)
	} else if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}
	for k, v := range resp.Trailer {
		w.Header()[k] = v
	}
	return true
}

// traced tells whether a request has got a connection, after its handshake.
func traced(r *http.Request) (*http.Request, func() bool) {
	var got atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.Store(true) }}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace)), got.Load
}

// errStopping ends the wait for the leader's answer when this node stops.
var errStopping = errors.New("this coordinator is stopping: repeat the request with the same id at another")

// untilStopped ends a request that was handed on a while after this node began to
// stop. The leader may hold it for as long as its caller is willing to wait; this
// node waits only for answers that are about to come.
func (s *Server) untilStopped(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-s.done:
		}
		select {
		case <-over:
		case <-ctx.Done():
		case <-time.After(handedGrace):
			cancel(errStopping)
		}
	}()
	return func() { close(over) }
}

// abandon ends a request to the leader id that stands still a while after another
// node has become leader. It ends with ctx; stop it first, most requests are over
// before it begins.
func (s *Server) abandon(ctx context.Context, id string, moved *atomic.Int64, cancel context.CancelCauseFunc) (stop func() bool) {
	return time.AfterFunc(deposedGrace, func() {
		look := time.NewTicker(deposedGrace)
		defer look.Stop()
		for deposed := false; ; {
			now, _ := s.cfg.Cluster.Leader()
			switch {
			case now == "" || now == id:
				deposed = false
			case deposed && time.Since(time.UnixMilli(moved.Load())) >= deposedGrace:
				cancel(errDeposed)
				return
			default:
				deposed = true
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				return
			}
		}
	}).Stop
}

// once is a body that cannot be read twice; it notes that it has been begun, and
// when it moved last.
type once struct {
	body  io.Reader
	begun atomic.Bool
	moved *atomic.Int64
}

// Read notes that the body is no longer whole, and that it moves.
func (o *once) Read(b []byte) (int, error) {
	o.begun.Store(true)
	o.moved.Store(time.Now().UnixMilli())
	return o.body.Read(b)
}

// stream passes an answer on piece by piece, each at once: a snapshot has no end to wait for. An
// answer that breaks off breaks the connection, for headers are long out and half of it must not
// look whole.
func stream(w http.ResponseWriter, from io.Reader, moved *atomic.Int64) {
	flush := http.NewResponseController(w)
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		moved.Store(time.Now().UnixMilli())
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				panic(http.ErrAbortHandler)
			}
			flush.Flush()
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// hop reports whether a header belongs to one connection and is not handed on.
func hop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length":
		return true
	}
	return false
}

// refuse answers with an error in the protocol of the request, which no handler has seen. What tells other
// coordinators that nothing was done becomes a header here: connect writes an error's metadata as headers in some
// protocols only.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err *connect.Error) {
	if v := err.Meta().Get(notLeaderHeader); v != "" {
		err.Meta().Del(notLeaderHeader)
		w.Header().Set(notLeaderHeader, v)
	}
	if !errWriter.IsSupported(r) {
		http.Error(w, err.Message(), http.StatusServiceUnavailable)
		return
	}
	errWriter.Write(w, r, err)
}

// apiOf is where a member's API is: as the log says, which is decided, else as gossip does, which is a hint.
// "" is unknown.
func (s *Server) apiOf(id string) string {
	if id == "" {
		return ""
	}
	for _, m := range s.cfg.View().Members() {
		if m.ID == id && m.APIAddress != "" {
			return m.APIAddress
		}
	}
	return s.cfg.Peers.API(id)
}
