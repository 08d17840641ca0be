package runner

import (
	"fmt"
	"os"
	"time"
)

// logTimes says when the parts of a log were written, in a file beside it
// (NAME.times, lines OFFSET MILLISECONDS): a trainer's lines carry no time.
type logTimes struct {
	f    *os.File
	last time.Time
}

// timesEvery bounds how many marks there are.
const timesEvery = time.Second

// mark notes that what comes at an offset is written now, but for marks that would
// be too many. Faults are passed over: the log is worth more than its times.
func (t *logTimes) mark(log string, offset int64) {
	now := time.Now()
	if now.Sub(t.last) < timesEvery && offset > 0 {
		return
	}
	if t.f == nil {
		flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
		if offset == 0 {
			flags |= os.O_TRUNC
		}
		f, err := os.OpenFile(log+".times", flags, 0o644)
		if err != nil {
			return
		}
		t.f = f
	}
	t.last = now
	fmt.Fprintf(t.f, "%d %d\n", offset, now.UnixMilli())
}

// close ends the file; the next mark opens it anew.
func (t *logTimes) close() {
	if t.f != nil {
		t.f.Close()
	}
	*t = logTimes{}
}
