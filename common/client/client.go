// Package client speaks to a cluster's API: it takes the addresses of one or
// many coordinators, finds the others and the leader, and repeats a call that
// no leader could answer until its context ends.
//
// Every call may be repeated: requests that write carry a request id or a
// natural key, so a second arrival of the same request changes nothing. The
// package therefore never has to know which calls those are. It refuses to
// repeat streams (snapshots), whose bytes it does not keep, and it invents no
// request ids for callers: an id made here would be a new one on a restart of
// the calling program.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"atelier/common/identity"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/secret"

	"connectrpc.com/connect"
)

// DefaultAddr is where a coordinator listens unless told otherwise.
const DefaultAddr = "127.0.0.1:7600"

// Client speaks of sweeps, trials and workers in the records of common/trial. It
// is safe for use by many goroutines; one per process is enough, its connections
// are shared.
type Client struct {
	raw      Raw
	set      *addresses
	opts     options
	http     *http.Client
	follower *follower
	pulses   pulses
	notices  notices
	session  session
}

// Raw holds the generated clients of all services, which retry as the methods of
// Client do. It is for tests that look at what the API itself says: programs may not
// import the schema (deploy/rooms).
type Raw struct {
	Sweeps  atelierv1connect.SweepServiceClient
	Trials  atelierv1connect.TrialServiceClient
	Workers atelierv1connect.WorkerServiceClient
	Cluster atelierv1connect.ClusterServiceClient
	Access  atelierv1connect.AccessServiceClient

	c *Client
}

// Raw returns the generated clients.
func (c *Client) Raw() *Raw { return &c.raw }

type options struct {
	retryFor    time.Duration // 0: until the call's context ends
	attempt     time.Duration
	backoffLow  time.Duration
	backoffHigh time.Duration
	follow      bool
	followEvery time.Duration
	notice      func(*Notice) // nil: nobody is told
	tls         *tls.Config   // nil: the cluster is open
	token       secret.Text   // shown to a closed cluster; none: nothing is shown
}

// Option changes how a Client behaves.
type Option func(*options)

// WithRetryFor bounds how long a call is tried again while no leader answers.
// The default, 0, is until the call's context ends.
func WithRetryFor(d time.Duration) Option { return func(o *options) { o.retryFor = d } }

// WithAttemptTimeout bounds one attempt at one address, so that a node that
// took the connection and then froze does not hold the call; a request's
// wait_ms is added to it. The default is 10 s.
func WithAttemptTimeout(d time.Duration) Option { return func(o *options) { o.attempt = d } }

// WithoutFollowing makes the client keep to the addresses it was given, in the
// order given, and never ask where the leader is.
func WithoutFollowing() Option { return func(o *options) { o.follow = false } }

// WithFollowInterval sets how often a busy client asks who the leader is and
// which members there are. The default is 10 s; after a failed attempt it asks
// at once.
func WithFollowInterval(d time.Duration) Option { return func(o *options) { o.followEvery = d } }

// WithTLS speaks to a closed cluster: an address without a scheme then is https. nil leaves it open.
func WithTLS(c *tls.Config) Option { return func(o *options) { o.tls = c } }

// WithToken shows the token of a person, a program or a trial with each request. It goes over TLS alone:
// without WithTLS nothing is shown.
func WithToken(t secret.Text) Option { return func(o *options) { o.token = t } }

// New returns a client of the cluster that addrs ("host:port", or a URL with
// http or https) belong to; DefaultAddr when there are none. It opens no
// connection yet.
func New(addrs []string, opts ...Option) *Client {
	o := options{attempt: 10 * time.Second, backoffLow: 50 * time.Millisecond, backoffHigh: time.Second,
		follow: true, followEvery: 10 * time.Second}
	for _, f := range opts {
		f(&o)
	}
	if len(addrs) == 0 {
		addrs = []string{DefaultAddr}
	}
	c := &Client{set: newAddresses(addrs), opts: o, http: newHTTPClient(o.tls, o.token)}
	c.follower = &follower{c: c, born: time.Now()}
	common := []connect.ClientOption{connect.WithInterceptors(connect.UnaryInterceptorFunc(c.session.wrap), &retrier{c: c}),
		// A cluster's machines are near one another: packing small answers
		// costs more than it saves.
		connect.WithAcceptCompression("gzip", nil, nil)}
	// The host is replaced for each attempt, see chosen.
	const base = "http://cluster.invalid"
	c.raw = Raw{atelierv1connect.NewSweepServiceClient(c.http, base, common...), atelierv1connect.NewTrialServiceClient(c.http, base, common...),
		atelierv1connect.NewWorkerServiceClient(c.http, base, common...), atelierv1connect.NewClusterServiceClient(c.http, base, common...),
		atelierv1connect.NewAccessServiceClient(c.http, base, common...), c}
	return c
}

// Node returns a client of the cluster service of one address, for GetNode:
// no other node is asked, nothing is repeated.
func (r *Raw) Node(addr string) atelierv1connect.ClusterServiceClient {
	return atelierv1connect.NewClusterServiceClient(r.c.http, r.c.base(addr),
		connect.WithAcceptCompression("gzip", nil, nil))
}

// Learn takes the API addresses of all members as the cluster told them. They
// replace what was learned before; the addresses given to New stay.
func (c *Client) Learn(addrs []string) { c.set.learn(addrs) }

// Addrs returns the addresses known now: the given ones, then the learned ones.
func (c *Client) Addrs() []string { return c.set.all() }

// Close drops idle connections. Calls in progress go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// newHTTPClient keeps many connections: long polls and heartbeats of all slots go on at once.
// HTTP/1.1 alone: one stalled connection then holds up one call.
func newHTTPClient(secure *tls.Config, token secret.Text) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:        0, // no limit: the limit per host decides
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
		TLSClientConfig:     secure,
		DisableCompression:  true,
		Protocols:           &protocols,
	}
	return &http.Client{Transport: chosen{t, token}}
}

type addrKey struct{}

// chosen sends a request to the address its context names. HTTP connections
// are pooled by address below it.
type chosen struct {
	next  http.RoundTripper
	token secret.Text
}

// RoundTrip implements http.RoundTripper.
func (t chosen) RoundTrip(r *http.Request) (*http.Response, error) {
	base, ok := r.Context().Value(addrKey{}).(string)
	if !ok {
		return explained(t.next.RoundTrip(t.shown(r)))
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", base, err)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = u.Scheme, u.Host, u.Host
	return explained(t.next.RoundTrip(t.shown(r)))
}

// shown is the request with the token, where nobody on the way can read it.
func (t chosen) shown(r *http.Request) *http.Request {
	if !t.token.Set() || r.URL.Scheme != "https" {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.token.Reveal())
	return r
}

// explained says it in a sentence where one side refuses the other for who it is, or one speaks TLS and the other does not.
func explained(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, identity.Explain(err)
	}
	if resp.StatusCode != http.StatusBadRequest || resp.ProtoMinor != 0 || resp.TLS != nil {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	var refused *identity.RefusedError
	if errors.As(identity.Explain(errors.New(string(text))), &refused) {
		resp.Body.Close()
		return nil, refused
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), resp.Body), resp.Body}
	return resp, nil
}

// CloseIdleConnections lets http.Client reach the pool below.
func (t chosen) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// ParseAddrs splits a comma list of addresses and says what is wrong with one.
func ParseAddrs(list string) ([]string, error) {
	var out []string
	for _, a := range strings.Split(list, ",") {
		a = strings.TrimSpace(a)
		if a == "" {
			continue
		}
		u, err := url.Parse(baseURL(a, false))
		if err != nil || u.Hostname() == "" || u.Port() == "" && u.Scheme == "http" && !strings.Contains(a, "://") {
			return nil, fmt.Errorf("address %q: want host:port, such as %s", a, DefaultAddr)
		}
		if p := u.Port(); p != "" {
			if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
				return nil, fmt.Errorf("address %q: port %s: want 1 to 65535, such as %s", a, p, DefaultAddr)
			}
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("address %q: scheme %q is neither http nor https", a, u.Scheme)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("address list %q names no coordinator: want host:port[,host:port]", list)
	}
	return out, nil
}

// Loopback reports whether every address of the list is of this machine.
func Loopback(addrs []string) bool {
	for _, a := range addrs {
		u, err := url.Parse(baseURL(a, false))
		if err != nil {
			return false
		}
		host := u.Hostname()
		if host == "localhost" {
			continue
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return false
		}
	}
	return len(addrs) > 0
}

// base is an address as a URL of this client's cluster.
func (c *Client) base(addr string) string { return baseURL(addr, c.opts.tls != nil) }

// baseURL is an address as a URL; without a scheme it is http, or https of a closed cluster.
func baseURL(addr string, closed bool) string {
	if strings.Contains(addr, "://") {
		return strings.TrimRight(addr, "/")
	}
	if closed {
		return "https://" + addr
	}
	return "http://" + addr
}

// AfterFailure is for callers that learn by other means (a lost lease, a
// closed file server) that the leader may be gone: the next call looks for it.
func (c *Client) AfterFailure() { c.follower.suspect() }

var _ connect.Interceptor = (*retrier)(nil)

// withAddr names the address of one attempt.
func (c *Client) withAddr(ctx context.Context, addr string) context.Context {
	return context.WithValue(ctx, addrKey{}, c.base(addr))
}
