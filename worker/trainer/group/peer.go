package group

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/links"
)

// peer is the link to another member. A reader goroutine takes its frames in; a
// frame to it is written at once by whoever sends it where the socket has room,
// else by a writer goroutine.
type peer struct {
	g     *Group
	id    int
	name  string
	local bool // descriptors can be passed, memory shared
	same  bool // on this machine: no network can part it from this member
	conn  net.Conn
	done  chan struct{} // the reader is gone

	// Guarded by the group's mutex.
	greeted  bool
	join     bool // a newcomer that was not taken in yet
	gone     bool // the link ended
	early    []frame
	page     *page
	segments map[int]*mapping
	segment  int // number of the last one sent to it
	lost     bool
	mover    string // its Mover's kind; empty: none
	device   string
	hosted   bool // moving failed at it

	heard atomic.Int64 // when something came last, since the group's start
	sent  atomic.Int64

	// The reader's.
	fds     []int
	buffers map[bufferKey][]float32

	mu      sync.Mutex
	urgent  []outgoing
	bulk    []outgoing
	current *outgoing // partly written
	busy    bool      // the writer goroutine has the rest
	over    bool      // nothing is taken any more
	wake    *sync.Cond
}

// outgoing is a frame on its way; fd goes with its first byte.
type outgoing struct {
	b    []byte
	fd   int // -1: none
	pool *[]byte
}

func newPeer(g *Group, l links.Link) *peer {
	p := &peer{g: g, id: l.Member, name: l.Name, conn: l.Conn, done: make(chan struct{}), segments: map[int]*mapping{}, buffers: map[bufferKey][]float32{}}
	_, unixConn := l.Conn.(*net.UnixConn)
	p.same, p.local = l.Local, l.Local && unixConn
	p.wake = sync.NewCond(&p.mu)
	p.heard.Store(int64(g.now()))
	return p
}

// send queues a frame; urgent ones overtake the others. b belongs to the peer
// from now on, fd too.
func (p *peer) send(b []byte, urgent bool, fd int, pool *[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := outgoing{b, fd, pool}
	if p.over {
		o.free()
		return
	}
	if urgent {
		p.urgent = append(p.urgent, o)
	} else {
		p.bulk = append(p.bulk, o)
	}
	for !p.busy && p.next() {
		if !p.try() {
			p.busy = true
			p.wake.Broadcast()
		}
	}
}

// next makes a frame the current one; false: there is none.
func (p *peer) next() bool {
	if p.current != nil {
		return true
	}
	queue := &p.urgent
	if len(*queue) == 0 {
		queue = &p.bulk
	}
	if len(*queue) == 0 {
		return false
	}
	o := (*queue)[0]
	(*queue)[0] = outgoing{}
	*queue = (*queue)[1:]
	if len(*queue) == 0 {
		*queue = nil
	}
	p.current = &o
	return true
}

// try writes the current frame without waiting; false: the writer has to.
func (p *peer) try() bool {
	sc, ok := p.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	o := p.current
	for len(o.b) > 0 {
		var oob []byte
		if o.fd >= 0 {
			oob = unix.UnixRights(o.fd)
		}
		var n int
		if e := raw.Write(func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), o.b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return true
		}); e != nil {
			err = e
		}
		if err == unix.EINTR {
			continue
		} else if err != nil {
			return false
		}
		o.wrote(n)
	}
	p.finished()
	return true
}

func (o *outgoing) wrote(n int) {
	o.b = o.b[n:]
	if o.fd >= 0 {
		unix.Close(o.fd)
		o.fd = -1
	}
}

func (o *outgoing) free() {
	if o.fd >= 0 {
		unix.Close(o.fd)
	}
	if o.pool != nil {
		payloads.Put(o.pool)
	}
}

func (p *peer) finished() {
	p.current.free()
	p.current = nil
	p.sent.Store(int64(p.g.now()))
}

// write is the writer goroutine: it writes what did not fit into the socket.
func (p *peer) write() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for !p.busy && !p.over {
			p.wake.Wait()
		}
		for p.busy && !p.over && p.next() {
			o := p.current
			for len(o.b) > 0 && !p.over {
				b, fd := o.b, o.fd
				p.mu.Unlock()
				n, err := p.block(b, fd)
				p.mu.Lock()
				if n > 0 {
					o.wrote(n)
				}
				if err != nil {
					p.discard() // the reader sees the end
				}
			}
			if !p.over {
				p.finished()
			}
		}
		p.busy = false
		p.wake.Broadcast()
		if p.over {
			return
		}
	}
}

func (p *peer) block(b []byte, fd int) (int, error) {
	if fd < 0 {
		return p.conn.Write(b)
	}
	u, ok := p.conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("a descriptor over a link to another machine")
	}
	n, _, err := u.WriteMsgUnix(b, unix.UnixRights(fd), nil)
	return n, err
}

// discard takes no further frames and drops those that wait.
func (p *peer) discard() {
	if p.over {
		return
	}
	p.over = true
	for _, o := range append(p.urgent, p.bulk...) {
		o.free()
	}
	if p.current != nil {
		p.current.free()
	}
	p.urgent, p.bulk, p.current = nil, nil, nil
	p.wake.Broadcast()
}

// finish writes what waits, for so long at most, and ends the link in a way that
// lets the other read all of it.
func (p *peer) finish(within time.Duration) {
	timer := time.AfterFunc(within, func() {
		p.mu.Lock()
		p.discard()
		p.mu.Unlock()
		p.conn.Close()
	})
	p.mu.Lock()
	for !p.over && (p.busy || p.current != nil || len(p.urgent)+len(p.bulk) > 0) {
		p.wake.Wait()
	}
	p.discard()
	p.mu.Unlock()
	if c, ok := p.conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		return // the reader closes at the other's end, or the timer does
	}
	timer.Stop()
	p.conn.Close()
}
