// Package links hands connected sockets to a trainer. The members of a group
// speak to each other over links, but a trainer opens no socket: whoever started
// it (an agent, or `atelier train`) makes the connection and passes it, with a
// header that tells whose it is, over the Unix socket that every trainer has on
// descriptor trainerproto.LinksFD.
//
// A message is four bytes, the length of the header, big endian; the header, a
// JSON object; and one descriptor, which comes with the first byte (SCM_RIGHTS).
//
// The package refuses headers beyond MaxHeader, messages without a descriptor or
// with several, and descriptors that are no stream socket. It knows nothing of
// what members say to each other.
package links

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// MaxHeader is the longest header, in bytes of JSON; MaxName of a member's name.
const (
	MaxHeader = 4096
	MaxName   = 512
)

// sendWithin bounds the wait for a trainer that does not take its links.
const sendWithin = 5 * time.Second

// Header tells a member whose link it is given.
type Header struct {
	Token  uint64 `json:"token"`           // of the run's lease
	Member int    `json:"member"`          // id of the member at the other end, from 1
	Name   string `json:"name"`            // worker/slot of that member
	Local  bool   `json:"local,omitempty"` // it is on this machine: descriptors can be passed over the link, memory shared
}

func (h Header) check() error {
	switch {
	case h.Member < 1 || h.Member > math.MaxInt32:
		return fmt.Errorf("links: member %d in a header; members count from 1", h.Member)
	case len(h.Name) > MaxName:
		return fmt.Errorf("links: name of member %d has %d bytes, more than %d", h.Member, len(h.Name), MaxName)
	case !utf8.ValidString(h.Name):
		return fmt.Errorf("links: name of member %d is not UTF-8", h.Member)
	}
	return nil
}

// Pair is a connection within this machine: both ends of a Unix stream socket,
// closed in programs that are started, non-blocking.
func Pair() (a, b *os.File, err error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return os.NewFile(uintptr(fd[0]), "link"), os.NewFile(uintptr(fd[1]), "link"), nil
}

// Sender passes sockets to one trainer; safe for concurrent use.
type Sender struct {
	mu   sync.Mutex
	conn *net.UnixConn
	err  error // there is no conn
}

// NewSender takes the host's end of the pair over.
func NewSender(f *os.File) *Sender {
	conn, err := unixConn(f)
	return &Sender{conn: conn, err: err}
}

// unixConn is the connection of a file, which is closed.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("links: descriptor of a %T, not of a Unix socket", c)
	}
	return u, nil
}

// Send passes a socket and closes it here, also when it returns an error. A
// trainer that takes nothing for 5 s is one.
func (s *Sender) Send(h Header, f *os.File) error {
	defer f.Close()
	if err := h.check(); err != nil {
		return err
	}
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(body) > MaxHeader {
		return fmt.Errorf("links: header of %d bytes, more than %d", len(body), MaxHeader)
	}
	if s.err != nil {
		return s.err
	}
	raw, err := f.SyscallConn() // Fd would make the socket blocking
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	message := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	s.conn.SetWriteDeadline(time.Now().Add(sendWithin))
	sent := 0
	if e := raw.Control(func(fd uintptr) {
		sent, _, err = s.conn.WriteMsgUnix(message, unix.UnixRights(int(fd)), nil)
	}); e != nil {
		err = e
	}
	for err == nil && sent < len(message) {
		var n int
		n, err = s.conn.Write(message[sent:])
		sent += n
	}
	if err != nil {
		return fmt.Errorf("pass the link with member %d (%s): %w", h.Member, h.Name, err)
	}
	return nil
}

// End is a member of a group and the way to its trainer.
type End struct {
	To     *Sender
	Member int
	Name   string
}

// Connect links two trainers on this machine by a socket pair. After an error
// the other one has a link that is at its end.
func Connect(token uint64, a, b End) error {
	ours, theirs, err := Pair()
	if err != nil {
		return err
	}
	var faults []error
	if err := a.To.Send(Header{Token: token, Member: b.Member, Name: b.Name, Local: true}, ours); err != nil {
		faults = append(faults, fmt.Errorf("to member %d (%s): %w", a.Member, a.Name, err))
	}
	if err := b.To.Send(Header{Token: token, Member: a.Member, Name: a.Name, Local: true}, theirs); err != nil {
		faults = append(faults, fmt.Errorf("to member %d (%s): %w", b.Member, b.Name, err))
	}
	return errors.Join(faults...)
}

// Close tells the trainer that no link will come.
func (s *Sender) Close() error {
	if s.err != nil {
		return nil
	}
	return s.conn.Close()
}

// Link is a connection to another member.
type Link struct {
	Header
	Conn net.Conn // *net.UnixConn where both are on one machine, else mostly *net.TCPConn
}

// Receiver takes links; it is used by one goroutine, and closed by any.
type Receiver struct {
	conn *net.UnixConn
	err  error // final
}

// NewReceiver takes the trainer's end of the pair over.
func NewReceiver(f *os.File) *Receiver {
	conn, err := unixConn(f)
	return &Receiver{conn: conn, err: err}
}

// Next waits for a link. io.EOF is the end: the host closed its end or is gone, or
// the receiver was closed.
// After any error there is no further link.
func (r *Receiver) Next() (Link, error) {
	if r.err != nil {
		return Link{}, r.err
	}
	l, err := r.next()
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	r.err = err
	return l, err
}

func (r *Receiver) next() (Link, error) {
	var passed descriptors
	defer passed.close()
	var length [4]byte
	if err := passed.readFull(r.conn, length[:]); err != nil {
		return Link{}, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > MaxHeader {
		return Link{}, fmt.Errorf("links: header of %d bytes, not 1 to %d", n, MaxHeader)
	}
	body := make([]byte, n)
	if err := passed.readFull(r.conn, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Link{}, fmt.Errorf("links: header: %w", err)
	}
	h, err := decode(body)
	if err != nil {
		return Link{}, err
	}
	if len(passed) != 1 {
		return Link{}, fmt.Errorf("links: the header of member %d came with %d descriptors, not 1", h.Member, len(passed))
	}
	conn, err := net.FileConn(passed[0])
	if err != nil {
		return Link{}, fmt.Errorf("links: descriptor of member %d: %w", h.Member, err)
	}
	switch network := conn.LocalAddr().Network(); {
	case network == "unix", network == "tcp" && !h.Local:
		return Link{h, conn}, nil
	default:
		conn.Close()
		return Link{}, fmt.Errorf("links: descriptor of member %d is a socket of type %s (local: %t)", h.Member, network, h.Local)
	}
}

// decode reads a header.
func decode(b []byte) (Header, error) {
	var h Header
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("links: header %.80q: %w", b, err)
	}
	return h, h.check()
}

// Close ends a Next that waits.
func (r *Receiver) Close() error {
	if r.conn == nil {
		return nil
	}
	return r.conn.Close()
}

// descriptors came with a message.
type descriptors []*os.File

func (d *descriptors) close() {
	for _, f := range *d {
		f.Close()
	}
}

// readFull fills b, and collects the descriptors that come with its bytes; io.EOF
// is returned before the first byte only.
func (d *descriptors) readFull(c *net.UnixConn, b []byte) error {
	oob := make([]byte, unix.CmsgSpace(4))
	for at := 0; at < len(b); {
		n, oobn, flags, _, err := c.ReadMsgUnix(b[at:], oob)
		if e := d.parse(oob[:oobn]); e != nil {
			return e
		}
		at += n
		switch {
		case err == nil && n == 0, errors.Is(err, io.EOF):
			if at > 0 {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0:
			return errors.New("links: a header came with too many descriptors, or this process has no free one (ulimit -n)")
		}
	}
	return nil
}

func (d *descriptors) parse(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fmt.Errorf("links: %w", err)
		}
		for _, fd := range fds {
			*d = append(*d, os.NewFile(uintptr(fd), "link"))
		}
	}
	return nil
}
