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
	tail []byte
}

func (l *runLog) attach(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil {
		l.size = info.Size()
	}
	l.f, l.path = f, path
	held := l.held
	l.held = nil
	l.write(held)
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
	if l.f != nil {
		l.write(b)
	} else if room := standbyBytes - len(l.held); room > 0 {
		l.held = append(l.held, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

func (l *runLog) write(b []byte) {
	if l.size+int64(len(b)) > l.max && l.size > 0 {
		l.f.Close()
		os.Rename(l.path, l.path+".1")
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			l.f = nil
			return
		}
		l.f, l.size = f, 0
	}
	n, _ := l.f.Write(b)
	l.size += int64(n)
}

func (l *runLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
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
