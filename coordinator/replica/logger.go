package replica

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets raft's libraries write to the program's log.
func raftLogger(to *slog.Logger) hclog.Logger {
	level := hclog.Warn
	switch {
	case to.Enabled(context.Background(), slog.LevelDebug):
		level = hclog.Debug
	case to.Enabled(context.Background(), slog.LevelInfo):
		level = hclog.Info
	}
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(sink{to, level})
	return l
}

type sink struct {
	to    *slog.Logger
	level hclog.Level
}

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < s.level {
		return
	}
	for _, a := range args {
		if err, ok := a.(error); ok {
			var refused *RefusedError
			if errors.As(err, &refused) {
				return // said once already, by name; raft asks again all the time
			}
		}
	}
	at := slog.LevelDebug
	switch level {
	case hclog.Info:
		at = slog.LevelInfo
	case hclog.Warn:
		at = slog.LevelWarn
	case hclog.Error:
		at = slog.LevelError
	}
	s.to.Log(context.Background(), at, "raft: "+msg, args...)
}
