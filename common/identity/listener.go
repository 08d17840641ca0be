package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"atelier/common/sparselog"
)

const (
	// HandshakeTime is how long a peer may take for its handshake.
	HandshakeTime = 5 * time.Second
	// Pending bounds the handshakes that are under way at a listener, unless it is told otherwise.
	Pending = 256
)

// Options of a listener.
type Options struct {
	Handshake time.Duration // 0 = HandshakeTime
	Pending   int           // 0 = Pending
	// Refused hears of each connection that came to nothing; the error is a RefusedError where the peer was refused for
	// who it is. It must not block.
	Refused func(from net.Addr, err error)
}

// refusedEvery is how often the refusal of the same peer is said.
const refusedEvery = time.Minute

// LogRefused is an Options.Refused that logs who was refused at a port and why, each now and then.
func LogRefused(log *slog.Logger, port string) func(net.Addr, error) {
	sparse := sparselog.New(log, refusedEvery, nil)
	return func(from net.Addr, err error) {
		var r *RefusedError
		host, _, _ := net.SplitHostPort(from.String())
		switch {
		case errors.As(err, &r):
			sparse.Warn(fmt.Sprintf("%s/%s/%s", host, r.Why, r.Peer), port+": a connection was refused", "from", from, "reason", r)
		case errors.Is(err, ErrPending):
			sparse.Warn("pending", port+": "+err.Error(), "from", from)
		default:
			log.Debug(port+": a connection came to nothing", "from", from, "error", err)
		}
	}
}

// ErrPending is what Refused hears of a connection that came while too many handshakes were under way.
var ErrPending = errors.New("too many connections are silent in their handshake; further ones are closed")

// listener hands on only connections whose handshake is done.
type listener struct {
	net.Listener
	cfg     *tls.Config
	opt     Options
	ready   chan net.Conn
	pending chan struct{}
	done    chan struct{}
	failed  error // why it ended, once done is closed
	once    sync.Once
}

// Listen does the handshakes of l's connections, each in a goroutine of its own. Accept gives *tls.Conn whose peers were
// let in. A program that accepts from it never waits for a peer, and never sees one that it must not see.
func Listen(l net.Listener, cfg *tls.Config, o Options) net.Listener {
	if o.Handshake == 0 {
		o.Handshake = HandshakeTime
	}
	if o.Pending == 0 {
		o.Pending = Pending
	}
	if o.Refused == nil {
		o.Refused = func(net.Addr, error) {}
	}
	t := &listener{Listener: l, cfg: cfg, opt: o, ready: make(chan net.Conn), pending: make(chan struct{}, o.Pending), done: make(chan struct{})}
	go t.listen()
	return t
}

// Accept implements net.Listener.
func (t *listener) Accept() (net.Conn, error) {
	select {
	case c := <-t.ready:
		return c, nil
	case <-t.done:
		return nil, t.failed
	}
}

// Close implements net.Listener. Handshakes that are under way are given up.
func (t *listener) Close() error {
	t.end(net.ErrClosed)
	return t.Listener.Close()
}

func (t *listener) end(err error) {
	t.once.Do(func() {
		t.failed = err
		close(t.done)
	})
}

func (t *listener) listen() {
	for {
		c, err := t.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				t.end(err)
				return
			}
			select { // too many open files, most often: some will be closed
			case <-t.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			t.opt.Refused(t.Addr(), err)
			continue
		}
		select {
		case t.pending <- struct{}{}:
			go t.shake(c)
		default:
			c.Close()
			t.opt.Refused(c.RemoteAddr(), ErrPending)
		}
	}
}

// shake does one handshake.
func (t *listener) shake(raw net.Conn) {
	defer func() { <-t.pending }() // also while it waits to be taken
	ctx, cancel := context.WithTimeout(context.Background(), t.opt.Handshake)
	go func() {
		select {
		case <-t.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	c := tls.Server(raw, t.cfg)
	err := c.HandshakeContext(ctx)
	late := ctx.Err() == context.DeadlineExceeded
	cancel()
	if err == nil {
		select {
		case t.ready <- c:
		case <-t.done:
			raw.Close()
		}
		return
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && plainHTTP(record.RecordHeader[:]) {
		record.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		record.Conn.Write([]byte("HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" + plainAnswer + "\n"))
	}
	defer raw.Close()
	select {
	case <-t.done:
		return
	default:
	}
	switch {
	case late || errors.Is(err, os.ErrDeadlineExceeded):
		err = &RefusedError{Why: Silent, Here: true, Text: "no handshake of TLS came within " + t.opt.Handshake.String()}
	case errors.As(err, &record):
		err = &RefusedError{Why: PlainText, Here: true, Text: "it does not speak TLS, which this cluster asks for: join it with an invite, or log in"}
	case gone(err):
	default:
		err = Explain(err)
	}
	t.opt.Refused(raw.RemoteAddr(), err)
	if !late {
		linger(raw)
	}
}

// linger lets a refused peer read why: closed while bytes of it are unread, a connection is reset, and the alert
// may be lost on its way.
func linger(raw net.Conn) {
	if c, ok := raw.(*net.TCPConn); ok && c.CloseWrite() == nil {
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		io.CopyN(io.Discard, c, 64<<10)
	}
}

// plainAnswer has the words that Go's own server would say, by which Explain knows them.
const plainAnswer = "Client sent an HTTP request to an HTTPS server: this cluster is closed; use https, and join or log in first."

// plainHTTP reports whether a connection begins like a request without TLS.
func plainHTTP(b []byte) bool {
	for _, m := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "CONNE", "PATCH"} {
		if bytes.HasPrefix(b, []byte(m)) {
			return true
		}
	}
	return false
}
