package agent

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"

	"atelier/common/trial"
)

// What a run's log ends with is sent to the coordinators while it grows: soon, so
// that a machine that dies has sent something, and then less and less often.
const (
	logFirst  = 2 * time.Second
	logEvery  = 30 * time.Second
	logLimit  = 4 * time.Second // for one sending
	logsGrace = time.Second     // for what is under way when the agent ends
)

// sendLog sends the end of a run's log while the run goes on, and once more when
// ended is called. A run whose trainer writes nothing sends nothing. Of a group the
// member that reports does.
func (a *Agent) sendLog(h *holding) (ended func()) {
	if a.cfg.KeepLog == nil {
		return func() {}
	}
	over := make(chan struct{})
	a.logs.Go(func() {
		var sent int64
		for pause := logFirst; ; pause = min(2*pause, logEvery) {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
				sent = a.sendTail(h, sent)
			case <-over:
				t.Stop()
				a.sendTail(h, sent)
				return
			}
		}
	})
	return func() { close(over) }
}

// sendTail sends the end of a log that has changed since it had so many bytes,
// and returns how many it has. A log that nobody took is sent again.
func (a *Agent) sendTail(h *holding, sent int64) int64 {
	l := h.lease
	if h.group != nil && !h.group.reports(l) {
		return sent
	}
	text, size, err := logTail(a.logFile(l))
	if err != nil || size == sent {
		return sent // most often there is none
	}
	ctx, cancel := context.WithTimeout(context.Background(), logLimit)
	defer cancel()
	if err := a.cfg.KeepLog(ctx, l.Sweep, l.Trial, l.Run, text); err != nil {
		a.sparse.Warn("log", "no coordinator takes the end of a run's log; the whole is here", "sweep", l.Sweep, "trial", l.Trial, "run", l.Run, "error", err)
		return sent
	}
	return size
}

// logTail is the end of a log, from the beginning of a line, and how many bytes
// the log has.
func logTail(path string) (text []byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	size = info.Size()
	text, err = io.ReadAll(io.NewSectionReader(f, max(0, size-trial.KeptLog), trial.KeptLog))
	if size > trial.KeptLog {
		if _, rest, whole := bytes.Cut(text, []byte("\n")); whole {
			text = rest
		}
	}
	return text, size, err
}

// awaitLogs waits a moment for what is being sent when the agent ends.
func (a *Agent) awaitLogs() {
	over := make(chan struct{})
	go func() { a.logs.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(logsGrace):
	}
}
