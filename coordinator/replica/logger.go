package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"atelier/common/sparselog"
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
	l.RegisterSink(sink{to, sparselog.New(to, repeatEvery, nil), level})
	return l
}

// sink writes raft's lines to the program's log. raft reports an absent peer
// several times a second, for as long as it is absent, and an election that cannot
// be won twice a second: such lines come once, and then once a minute with their
// number.
type sink struct {
	to     *slog.Logger
	sparse *sparselog.Log
	level  hclog.Level
}

// repeatEvery is how often a line of raft's that repeats itself is written.
const repeatEvery = time.Minute

// repeating are the lines of level info that a node without a leader repeats; warnings
// and errors are all taken for such.
var repeating = []string{"entering candidate state", "pre-vote campaign failed, waiting for election timeout", "pre-vote received"}

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < s.level {
		return
	}
	key := msg
	for i, a := range args {
		switch a := a.(type) {
		case error:
			var refused *RefusedError
			if errors.As(a, &refused) {
				return // reported once already, by name; raft asks again all the time
			}
		case hclog.Format: // a format and its arguments
			if format, ok := a[0].(string); ok {
				args[i] = fmt.Sprintf(format, a[1:]...)
			}
		}
		if i%2 == 1 && slices.Contains([]any{"peer", "target", "server-id", "server"}, args[i-1]) {
			key += fmt.Sprint("/", a)
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
	if at >= slog.LevelWarn || slices.Contains(repeating, msg) {
		s.sparse.Write(at, key, "raft: "+msg, args...)
		return
	}
	s.to.Log(context.Background(), at, "raft: "+msg, args...)
}
