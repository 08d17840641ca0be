// Package stdio keeps a program alive when the reader of its standard error or
// standard output goes away: after a restart of the journal or of tee, or when
// head has seen enough.
//
// Go ends a program with SIGPIPE when a write to descriptor 1 or 2 finds nobody
// at the other end of a pipe. For a coordinator, a worker or a training that is
// the wrong end: messages are lost, work is not. For a command that only prints,
// it is the right one. So: standard error never ends anything, standard output
// ends the program unless it has work to do.
package stdio

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// exitPipe is the exit code of a program that SIGPIPE ended, as shells say it.
const exitPipe = 128 + int(syscall.SIGPIPE)

// Guard makes a write to a broken pipe an error that the writer gets. It is the
// first thing that a main function calls. The signal is caught and not ignored:
// an ignored one would be ignored in all child processes too.
func Guard() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// Err is standard error. Its writes never fail: who writes messages can do
// nothing about a reader that is gone, and what hands on the messages of a child
// process has to go on reading them, or the child would be ended in turn.
func Err() io.Writer { return messages{os.Stderr} }

type messages struct{ to io.Writer }

func (m messages) Write(p []byte) (int, error) {
	m.to.Write(p)
	return len(p), nil
}

// Out is standard output. A write that finds the reader gone ends the program as
// SIGPIPE does, without a word, until GoOn is called.
type Out struct {
	to   io.Writer
	work atomic.Bool
}

// Output is the standard output of this process.
func Output() *Out { return &Out{to: os.Stdout} }

// GoOn says that the program has work to do: from now on what cannot be written
// is thrown away.
func (o *Out) GoOn() { o.work.Store(true) }

func (o *Out) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if !errors.Is(err, syscall.EPIPE) {
		return n, err
	}
	if o.work.Load() {
		return len(p), nil
	}
	signal.Reset(syscall.SIGPIPE)
	o.to.Write(p)     // ends the program by the signal
	os.Exit(exitPipe) // where the signal was ignored from the start
	return 0, err
}
