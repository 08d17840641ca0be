package group

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// frame is one that came in. Payload of floats lies in a buffer of the reader.
type frame struct {
	header
	b      []byte    // other payloads
	floats []float32 // of the whole piece, as far as they came
	fd     int       // -1: none
}

// bufferKey is what a peer's floats are kept by until they are summed or copied:
// a buffer is used again only by a later step, which its sender begins when all
// of the step before was taken from it.
type bufferKey struct {
	kind         kind
	bucket, node int
}

// payloads are buffers of frames with floats on their way out.
var payloads = sync.Pool{New: func() any {
	b := make([]byte, 0, headerSize+maxPayload)
	return &b
}}

// read is the reader goroutine.
func (p *peer) read() {
	err := p.frames()
	for _, fd := range p.fds {
		unix.Close(fd)
	}
	p.fds = nil
	p.g.linkEnded(p, err)
}

func (p *peer) frames() error {
	buf := make([]byte, 64<<10)
	have := buf[:0]
	for {
		for len(have) < headerSize {
			if cap(have) < headerSize {
				have = buf[:copy(buf, have)]
			}
			n, err := p.receive(have[len(have):cap(have)])
			if err != nil {
				return err
			}
			have = have[:len(have)+n]
		}
		h, err := decodeHeader(have)
		if err != nil {
			return err
		}
		have = have[headerSize:]
		f := frame{header: h, fd: -1}
		to := p.target(&f)
		n := copy(to, have)
		have = have[n:]
		for n < len(to) {
			k, err := p.receive(to[n:])
			if err != nil {
				return err
			}
			n += k
		}
		if (h.kind == kindHello || h.kind == kindSegment) && len(p.fds) > 0 {
			f.fd, p.fds = p.fds[0], p.fds[1:]
		} else if h.kind == kindSegment {
			return errors.New("a segment without its descriptor")
		}
		if err := p.g.handle(p, f); err != nil {
			return err
		}
	}
}

// target is where the payload of a frame goes.
func (p *peer) target(f *frame) []byte {
	if f.kind != kindPart && f.kind != kindResult {
		f.b = make([]byte, f.payload)
		return f.b
	}
	key := bufferKey{f.kind, f.bucket, f.node}
	p.g.mu.Lock() // what was done with the buffer is done
	defer p.g.mu.Unlock()
	b := p.buffers[key]
	if len(b) != f.header.floats {
		b = make([]float32, f.header.floats)
		p.buffers[key] = b
	}
	f.floats = b
	return bytesOf(b)[4*f.at:][:f.payload]
}

// receive reads some bytes, and descriptors that come with them.
func (p *peer) receive(b []byte) (n int, err error) {
	if u, ok := p.conn.(*net.UnixConn); ok && p.local {
		var oob [64]byte
		var oobn int
		n, oobn, _, _, err = u.ReadMsgUnix(b, oob[:])
		if oobn > 0 {
			p.take(oob[:oobn])
		}
		if n == 0 && err == nil {
			err = io.EOF
		}
	} else {
		n, err = p.conn.Read(b)
	}
	if n > 0 {
		p.heard.Store(int64(p.g.now()))
		err = nil
	}
	return n, err
}

func (p *peer) take(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			p.fds = append(p.fds, fds...)
		}
	}
}
