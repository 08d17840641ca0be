package runner

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	standbyBytes = 64 << 10 // kept of what a standby writes before it has a log
	tailBytes    = 2 << 10  // last words quoted in messages
)

// runLog takes standard error (and output) of a child. It never makes the child
// wait for a disk that is full: what cannot be written is dropped, the tail is
// kept in memory. A file that reaches max is renamed to NAME.1, once.
type runLog struct {
	mu   sync.Mutex
	max  int64
	f    *os.File
	path string
	size int64
	held []byte // before attach
	over bool   // closed: nothing is kept but the tail
	tail []byte

	times logTimes
}

// attach says where the log goes: a trainer that stood by has no run, and so no file, until it gets
// a job.
func (l *runLog) attach(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.path = path
	held := l.held
	l.held = nil
	if len(held) == 0 {
		return nil
	}
	return l.write(held)
}

// open makes the file once there is something to write: most runs say nothing,
// and a sweep may have a hundred thousand of them.
func (l *runLog) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil {
		l.size = info.Size()
	}
	l.f = f
	return nil
}

// Write never fails: an error would end the copying and block the child.
func (l *runLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b) >= tailBytes {
		l.tail = append(l.tail[:0], b[len(b)-tailBytes:]...)
	} else {
		if over := len(l.tail) + len(b) - tailBytes; over > 0 {
			l.tail = append(l.tail[:0], l.tail[over:]...)
		}
		l.tail = append(l.tail, b...)
	}
	if l.path != "" {
		l.write(b)
	} else if room := standbyBytes - len(l.held); room > 0 && !l.over {
		l.held = append(l.held, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// write appends, and begins a new file when the old one is full; one older one is kept. The caller
// holds mu.
func (l *runLog) write(b []byte) error {
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.size+int64(len(b)) > l.max && l.size > 0 {
		l.f.Close()
		os.Rename(l.path, l.path+".1")
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			l.f = nil
			return err
		}
		l.times.close()
		l.f, l.size = f, 0
	}
	l.times.mark(l.path, l.size)
	n, err := l.f.Write(b)
	l.size += int64(n)
	return err
}

// close ends the file. What still comes is kept as the tail alone.
func (l *runLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.times.close()
		l.f = nil
	}
	l.path, l.over = "", true
}

// tailText is the last whole lines written, as valid UTF-8.
func (l *runLog) tailText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := string(l.tail)
	if len(l.tail) >= tailBytes {
		if _, rest, ok := strings.Cut(s, "\n"); ok && rest != "" {
			s = rest
		}
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return strings.TrimSpace(s)
}
