// Package sparselog writes a warning that would come again and again only now
// and then: the first time, and later at most once an interval with the number
// of times it came meanwhile.
package sparselog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// maxKeys bounds what is remembered; beyond it everything is forgotten, so that
// a stranger who always comes under another name fills no memory.
const maxKeys = 1024

// Log is a logger of repeating warnings. Its methods may be called from any
// goroutine.
type Log struct {
	to    *slog.Logger
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex
	seen map[string]*seen
}

type seen struct {
	said  time.Time
	since int // times it came and was not said
}

// New returns a Log that says the same at most once every interval. now is the
// clock; nil is time.Now.
func New(to *slog.Logger, every time.Duration, now func() time.Time) *Log {
	if now == nil {
		now = time.Now
	}
	return &Log{to: to, every: every, now: now, seen: map[string]*seen{}}
}

// Warn writes a warning, see Write.
func (l *Log) Warn(key, msg string, args ...any) { l.Write(slog.LevelWarn, key, msg, args...) }

// Write writes msg, unless the same key was written within the interval. What is
// counted and never written again is not reported at the end: the first line has
// all there is to do.
func (l *Log) Write(level slog.Level, key, msg string, args ...any) {
	l.mu.Lock()
	now := l.now()
	s := l.seen[key]
	switch {
	case s == nil:
		if len(l.seen) >= maxKeys {
			clear(l.seen)
		}
		l.seen[key] = &seen{said: now}
	case now.Sub(s.said) < l.every:
		s.since++
		l.mu.Unlock()
		return
	default:
		args = append(args[:len(args):len(args)], "times_since_last", s.since+1)
		*s = seen{said: now}
	}
	l.mu.Unlock()
	l.to.Log(context.Background(), level, msg, args...)
}
