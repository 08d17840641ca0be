package child

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

// ErrEndedEarly is of a trainer that ended before it said hello.
var ErrEndedEarly = errors.New("it ended without a hello event")

// ErrOtherProtocol is of a trainer that speaks another version of the protocol.
var ErrOtherProtocol = errors.New("it speaks another protocol")

// ErrSilent is of a trainer from which nothing came for too long.
var ErrSilent = errors.New("it is silent")

// Trainer is a process that takes its job on standard input, writes events to
// descriptor 3 and may take links to other trainers on descriptor 4.
type Trainer struct {
	*Process
	stdin   *os.File
	control *trainerproto.Writer
	links   *links.Sender
	events  *eventPipe
	reader  *trainerproto.Reader
}

// StartTrainer starts a trainer. It owns the command's standard input and extra
// files. Events are read with Hello and Event, and Close ends the reading.
func StartTrainer(cmd *exec.Cmd, o Options) (*Trainer, error) {
	if o.Linger == 0 {
		o.Linger = linger
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	evR, evW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, err
	}
	linksOurs, linksTheirs, err := links.Pair()
	if err != nil {
		for _, f := range []*os.File{inR, inW, evR, evW} {
			f.Close()
		}
		return nil, err
	}
	cmd.Stdin = inR
	cmd.ExtraFiles = []*os.File{trainerproto.EventsFD - 3: evW, trainerproto.LinksFD - 3: linksTheirs}
	t := &Trainer{stdin: inW, links: links.NewSender(linksOurs), events: &eventPipe{f: evR, leaderGone: make(chan struct{}), linger: o.Linger}}
	t.control = trainerproto.NewWriter(deadlineWriter{inW})
	t.reader = trainerproto.NewReader(t.events)
	gone, ended := o.Gone, o.Ended
	o.Gone = func() {
		t.events.leaderExited()
		if gone != nil {
			gone()
		}
	}
	o.Ended = func() {
		inW.Close()
		t.links.Close()
		if ended != nil {
			ended()
		}
	}
	t.Process, err = Start(cmd, o)
	inR.Close()
	evW.Close()
	linksTheirs.Close()
	if err != nil {
		inW.Close()
		evR.Close()
		t.links.Close()
		return nil, err
	}
	return t, nil
}

// Hello is what a trainer reports of itself.
type Hello struct {
	Message string // for people
	Groups  int    // version of the protocol between members of a group; 0 = it knows no groups
}

// stoppedFor is how long a trainer that has not said hello may be stopped by a signal:
// whoever stopped it would else have it waited for as one that loads its libraries.
const stoppedFor = 5 * time.Second

// Hello waits for a trainer's first event.
func (t *Trainer) Hello(timeout time.Duration) (Hello, error) {
	t.events.f.SetReadDeadline(time.Now().Add(timeout))
	said := make(chan struct{})
	var stopped atomic.Bool
	var watch sync.WaitGroup
	watch.Go(func() {
		if t.awaitStopped(said) {
			stopped.Store(true)
			t.events.f.SetReadDeadline(time.Now())
		}
	})
	e, err := t.reader.Event()
	close(said)
	watch.Wait()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && stopped.Load():
		return Hello{}, fmt.Errorf("it was stopped by a signal (SIGSTOP) before its hello event, for %s", stoppedFor)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Hello{}, fmt.Errorf("no hello event on descriptor %d within %s", trainerproto.EventsFD, timeout)
	case errors.Is(err, io.EOF):
		return Hello{}, ErrEndedEarly
	case err != nil:
		return Hello{}, err
	case e.Kind == trainerproto.EventFailed:
		return Hello{}, fmt.Errorf("it failed before its job: %s", e.Message)
	case e.Kind != trainerproto.EventHello:
		return Hello{}, fmt.Errorf("%w: its first event is %q, not hello", ErrOtherProtocol, e.Kind)
	case e.Protocol != trainerproto.Version:
		return Hello{}, fmt.Errorf("%w: version %d, this program version %d", ErrOtherProtocol, e.Protocol, trainerproto.Version)
	}
	t.events.f.SetReadDeadline(time.Time{})
	return Hello{Message: e.Message, Groups: e.Groups}, nil
}

// awaitStopped reports whether the process was seen stopped by a signal at each look
// for stoppedFor, before done is closed.
func (t *Trainer) awaitStopped(done <-chan struct{}) bool {
	const each = 250 * time.Millisecond
	tick := time.NewTicker(each)
	defer tick.Stop()
	for seen := time.Duration(0); seen < stoppedFor; {
		select {
		case <-done:
			return false
		case <-tick.C:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.PID()))
		if i := bytes.LastIndex(b, []byte(") ")); err == nil && i >= 0 && bytes.HasPrefix(b[i+2:], []byte("T ")) {
			seen += each
		} else {
			seen = 0
		}
	}
	return true
}

// Event is the trainer's next; io.EOF when there is none any more. An event that
// it wrote is read, however late.
func (t *Trainer) Event() (trainerproto.Event, error) { return t.EventWithin(0) }

// EventWithin is the next event of a trainer that has to show that it is alive: an
// error, ErrSilent, if nothing comes for so long, and then no event comes any more.
// The time runs while it is waited for only, and not while this program is stopped.
// 0 = there is no limit.
func (t *Trainer) EventWithin(limit time.Duration) (trainerproto.Event, error) {
	t.events.within = limit
	e, err := t.reader.Event()
	if limit > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: no event for %s", ErrSilent, limit)
	}
	return e, err
}

// Send sends the job, or a control line. A trainer that does not read it within
// 5 s is reported as an error.
func (t *Trainer) Send(line any) error { return t.control.Send(line) }

// Links passes the trainer its links to other members of a group.
func (t *Trainer) Links() *links.Sender { return t.links }

// Held reports whether something held descriptor 3 open when the trainer was gone.
// It is for who reads the events.
func (t *Trainer) Held() bool { return t.events.held }

// GiveUp ends a trainer that broke the protocol. One that was just dying, and left
// half a line behind, gets a moment to do so: its exit state says more.
func (t *Trainer) GiveUp() {
	select {
	case <-t.events.leaderGone:
	case <-time.After(100 * time.Millisecond):
		t.Kill()
	}
}

// CloseInput tells a trainer that no control line will come.
func (t *Trainer) CloseInput() { t.stdin.Close() }

// Close ends the reading of events; the trainer must be gone.
func (t *Trainer) Close() { t.events.f.Close() }

// deadlineWriter bounds each write to a trainer's standard input.
type deadlineWriter struct{ f *os.File }

func (w deadlineWriter) Write(b []byte) (int, error) {
	w.f.SetWriteDeadline(time.Now().Add(5 * time.Second))
	return w.f.Write(b)
}

// eventPipe is descriptor 3. While the trainer lives a read waits as long as it
// takes. Once it is gone everything already written is still read, but a
// descriptor held open by an escaped grandchild does not keep the run alive
// for longer than linger.
type eventPipe struct {
	f          *os.File
	leaderGone chan struct{}
	linger     time.Duration
	within     time.Duration // for the reader: how long it waits; 0 = as long as it takes
	limited    bool          // for the reader: a deadline of that is set
	held       bool          // for the reader: still open a linger after the trainer's end
}

func (p *eventPipe) leaderExited() {
	close(p.leaderGone)
	p.f.SetReadDeadline(time.Now()) // wakes a reader that waits without a limit
}

func (p *eventPipe) Read(b []byte) (int, error) {
	again := false
	for {
		gone := false
		var until time.Time
		select {
		case <-p.leaderGone:
			gone, until = true, time.Now().Add(p.linger)
			p.f.SetReadDeadline(until)
		default:
			if p.within > 0 {
				p.f.SetReadDeadline(time.Now().Add(p.within / 2))
			} else if p.limited {
				p.f.SetReadDeadline(time.Time{})
			}
			p.limited = p.within > 0
			select {
			case <-p.leaderGone: // its deadline may have been overwritten
				continue
			default:
			}
		}
		n, err := p.f.Read(b)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if gone && !time.Now().Before(until) {
			p.held = true
			return 0, io.EOF
		}
		select {
		case <-p.leaderGone: // woken by leaderExited: read on with a limit
		default:
			// The second half shows whether it was this program that did not run: then there
			// is something to read.
			if p.within == 0 || again {
				return 0, err // the hello time-out, or silence
			}
			again = true
		}
	}
}
