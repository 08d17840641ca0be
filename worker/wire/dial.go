package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/identity"
)

const (
	dialWithin   = 2 * time.Second // for a connection
	answerWithin = 2 * time.Second // for the answer over it: the other agent knows it at once
)

// errTaken is of a member whose trainer was handed a link to this one before.
var errTaken = errors.New("there was a link already")

// ask finds out what the agent of a member makes of it. To dial also makes the
// link, where the member is ready.
func (s *Seat) ask(p Peer, dial bool) (state, error) {
	if p.Here {
		_, at := s.hub.look(s.token, p.ID)
		return at, nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialWithin)
	defer cancel()
	conn, err := s.hub.cfg.Dial(ctx, p.Worker, p.Address)
	if err != nil {
		return absent, plainly(err, dialWithin)
	}
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(answerWithin))
	if err := writeRequest(conn, p.Address, s.token, s.self, p.ID, dial); err != nil {
		conn.Close()
		return absent, plainly(err, answerWithin)
	}
	a, err := readAnswer(conn)
	if err != nil {
		conn.Close()
		return absent, plainly(err, answerWithin)
	}
	if a.status == http.StatusSwitchingProtocols && dial {
		conn.SetDeadline(time.Time{})
		if !stop() || !s.claim(p.ID) {
			conn.Close()
			return ended, errors.New("the member ended meanwhile")
		}
		if err := s.attach(p.ID, p.Name, conn); err != nil {
			return ready, err
		}
		return ready, nil
	}
	conn.Close()
	switch a.status {
	case http.StatusUpgradeRequired:
		return ready, nil
	case http.StatusServiceUnavailable:
		return preparing, nil
	case http.StatusGone:
		return ended, nil
	case http.StatusNotFound:
		return absent, nil
	case http.StatusConflict:
		return ready, fmt.Errorf("%w: %s", errTaken, a.message)
	}
	return absent, fmt.Errorf("it answers %d: %s", a.status, a.message)
}

// dialTCP connects without encryption.
func dialTCP(ctx context.Context, _, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// plainly is an error of the network in words.
func plainly(err error, limit time.Duration) error {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", limit)
	}
	return identity.Explain(err)
}

// A cut network is noticed by the kernel too: what is sent and not acknowledged,
// and a peer that does not answer probes, end a connection after some seconds.
const (
	unackedWithin = 5 * time.Second
	probeAfter    = 2 * time.Second
	probeEvery    = time.Second
	probes        = 3
)

// tune sets a connection up for a link. Where the kernel refuses, members notice a
// silent link by themselves.
func tune(c *net.TCPConn) {
	c.SetNoDelay(true)
	c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes})
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedWithin.Milliseconds()))
		})
	}
}
