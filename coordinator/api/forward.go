package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

const (
	// forwardedHeader marks a request that a follower has handed on. It is not
	// handed on again: two nodes that take each other for the leader would play
	// ball with it.
	forwardedHeader = "Atelier-Forwarded-By"
	// notLeaderHeader marks an answer that says: not the leader, nothing done.
	notLeaderHeader = "Atelier-Not-Leader"
	// leaderWait is how long a request waits for a leader.
	leaderWait = 3 * time.Second
	// forwardedWait is the same for a request that was handed on: the node asked
	// may be about to lead, and the node that asked waits anyway.
	forwardedWait = 300 * time.Millisecond
	lookAgain     = 15 * time.Millisecond
	// handedGrace is what a node that stops leaves the leader to answer.
	handedGrace = 300 * time.Millisecond
)

func newTransport() *http.Transport {
	return &http.Transport{
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

func (s *Server) handOn(w http.ResponseWriter, r *http.Request, local http.Handler) {
	streams := strings.HasPrefix(r.Header.Get("Content-Type"), "application/connect+") ||
		strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
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
			if body != nil {
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			local.ServeHTTP(w, r)
			return
		}
		if !forwarded {
			if id, _ := s.cfg.Cluster.Leader(); id != "" && id != s.cfg.ID {
				if addr := s.apiOf(id); addr != "" {
					if s.try(w, r, addr, body, sent) {
						return
					}
					if sent != nil && sent.begun.Load() {
						s.refuse(w, r, s.nobody())
						return
					}
				}
			}
		}
		select {
		case <-changed:
		case <-time.After(lookAgain):
		case <-deadline.C:
			if forwarded {
				w.Header().Set(notLeaderHeader, "1")
			}
			s.refuse(w, r, s.nobody())
			return
		case <-s.done:
			s.refuse(w, r, connect.NewError(connect.CodeUnavailable, errors.New("no leader here: this coordinator is stopping")))
			return
		case <-r.Context().Done():
			return
		}
	}
}

// try hands a request to the node at addr and its answer back. It returns false
// when nothing was done and nothing was answered, so that it may be tried again.
func (s *Server) try(w http.ResponseWriter, r *http.Request, addr string, body []byte, sent *once) bool {
	ctx, cancel := s.untilStopped(r.Context())
	defer cancel()
	var from io.Reader = bytes.NewReader(body)
	if sent != nil {
		from = sent
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, "http://"+addr+r.URL.RequestURI(), from)
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
	if sent != nil {
		out.ContentLength = r.ContentLength
	}
	resp, err := s.peers.RoundTrip(out)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return false
		}
		if ctx.Err() != nil && r.Context().Err() == nil {
			s.refuse(w, r, connect.NewError(connect.CodeUnavailable, errors.New("this coordinator is stopping: repeat the request with the same id at another")))
		} else if r.Context().Err() == nil {
			s.refuse(w, r, connect.NewError(connect.CodeUnavailable,
				fmt.Errorf("no leader any more: it went away before it answered; repeat the request with the same id (%v)", err)))
		}
		return true
	}
	defer resp.Body.Close()
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
		stream(w, resp.Body)
	} else if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}
	for k, v := range resp.Trailer {
		w.Header()[k] = v
	}
	return true
}

// untilStopped is the context of a request that was handed on. The leader may hold
// it for as long as its caller is willing to wait; this node, when it stops, waits
// only for answers that are about to come.
func (s *Server) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
		}
		select {
		case <-ctx.Done():
		case <-time.After(handedGrace):
			cancel()
		}
	}()
	return ctx, cancel
}

// once is a body that cannot be read twice; it notes that it has been begun.
type once struct {
	body  io.Reader
	begun atomic.Bool
}

func (o *once) Read(b []byte) (int, error) {
	o.begun.Store(true)
	return o.body.Read(b)
}

func stream(w http.ResponseWriter, from io.Reader) {
	flush := http.NewResponseController(w)
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
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

// hop reports headers that belong to one connection.
func hop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length":
		return true
	}
	return false
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err *connect.Error) {
	if !errWriter.IsSupported(r) {
		http.Error(w, err.Message(), http.StatusServiceUnavailable)
		return
	}
	errWriter.Write(w, r, err)
}

// apiOf is where a member's API is: as the log says, else as gossip does.
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
