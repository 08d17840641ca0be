package webguard

import (
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Limits of a server's connections. What one request may cost is said by its route and its handler.
type Limits struct {
	Connections int           // at once; more wait to be accepted
	Header      time.Duration // until a request's header has come
	HeaderBytes int           // of it; browsers send all cookies of the host, those of other programs, too
	Read        time.Duration // until its body has come
	Write       time.Duration // from the header to the end of the answer
	Idle        time.Duration // between two requests of a connection
}

// DefaultLimits are those of a server whose requests take up to a time each.
func DefaultLimits(request time.Duration) Limits {
	return Limits{Connections: 256, Header: 10 * time.Second, HeaderBytes: 32 << 10, Read: request, Write: 2*request + 10*time.Second, Idle: 2 * time.Minute}
}

// Server serves a guard within the limits.
func (l Limits) Server(g *Guard) *http.Server {
	return &http.Server{Handler: g, ReadHeaderTimeout: l.Header, MaxHeaderBytes: l.HeaderBytes, ReadTimeout: l.Read, WriteTimeout: l.Write, IdleTimeout: l.Idle,
		DisableGeneralOptionsHandler: true, // OPTIONS * has a Host to be checked, too
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 100}}
}

// Listener bounds the number of connections.
func (l Limits) Listener(of net.Listener) net.Listener {
	return netutil.LimitListener(of, l.Connections)
}
