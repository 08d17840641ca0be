package runner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/trainerproto"
)

// ErrEndedEarly is of a trainer that ended before it said hello.
var ErrEndedEarly = errors.New("it ended without a hello event")

// Child is one trainer process: standing by after Start, at work in Run.
type Child struct {
	launcher *Launcher
	trainer  string
	slot     string
	marker   string
	pid      int
	pidFile  string
	cmd      *exec.Cmd
	stdin    *os.File
	control  *trainerproto.Writer
	events   *eventPipe
	reader   *trainerproto.Reader
	log      *runLog
	oom      oomCount

	told   chan struct{} // closed once the job is sent
	exited chan struct{} // closed once reaped, its group dead and its pid file gone
	state  *os.ProcessState

	mu       sync.Mutex
	signaled bool // by us
	gone     bool // the leader is reaped: its number must not be signalled any more
}

// PID of the process; it leads a process group of the same number.
func (c *Child) PID() int { return c.pid }

// Trainer is the name the child was started under.
func (c *Child) Trainer() string { return c.trainer }

// Exited is closed once the process is reaped and its group is dead.
func (c *Child) Exited() <-chan struct{} { return c.exited }

func (c *Child) hello(timeout time.Duration) error {
	c.events.f.SetReadDeadline(time.Now().Add(timeout))
	e, err := c.reader.Event()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no hello event on descriptor %d within %s", trainerproto.EventsFD, timeout)
	case errors.Is(err, io.EOF):
		return ErrEndedEarly
	case err != nil:
		return err
	case e.Kind == trainerproto.EventFailed:
		return fmt.Errorf("it failed before its job: %s", e.Message)
	case e.Kind != trainerproto.EventHello:
		return fmt.Errorf("its first event is %q, not hello", e.Kind)
	case e.Protocol != trainerproto.Version:
		return fmt.Errorf("it speaks protocol version %d, this agent %d", e.Protocol, trainerproto.Version)
	}
	c.events.f.SetReadDeadline(time.Time{})
	return nil
}

// reap waits for the leader without reaping it, kills what is left of its
// group while the dead leader still holds the group's number, and only then
// reaps: the number cannot have been given to strangers in between.
func (c *Child) reap() {
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	c.mu.Lock()
	syscall.Kill(-c.pid, syscall.SIGKILL)
	c.gone = true
	c.mu.Unlock()
	c.events.leaderExited()
	if err := c.cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
		// Somebody still holds standard error: a descendant that left the group.
		c.killEscaped()
	}
	c.state = c.cmd.ProcessState
	c.stdin.Close()
	os.Remove(c.pidFile)
	l := c.launcher
	l.mu.Lock()
	delete(l.children, c)
	l.mu.Unlock()
	close(c.exited)
}

// signal sends sig to the whole group.
func (c *Child) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	c.signaled = true
	syscall.Kill(-c.pid, sig)
}

// wasSignaled: by this agent.
func (c *Child) wasSignaled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signaled
}

// Kill ends the process group at once.
func (c *Child) Kill() { c.signal(syscall.SIGKILL) }

// Stop asks the process group to end, and kills it after the grace time.
// It does not wait.
func (c *Child) Stop() {
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGCONT) // a stopped process would not see the request
	go func() {
		t := time.NewTimer(c.launcher.cfg.Grace)
		defer t.Stop()
		select {
		case <-c.exited:
		case <-t.C:
			c.Kill()
		}
	}()
}

// Tell sends a control line, after the job if that is still on its way. A
// trainer that does not read it within 5 s is reported as an error; what
// follows is the caller's decision.
func (c *Child) Tell(verdict string) error {
	select {
	case <-c.told:
	case <-c.exited:
		return os.ErrProcessDone
	}
	return c.control.Send(trainerproto.Control{Verdict: verdict})
}

// Discard ends a child that was never given a job.
func (c *Child) Discard() {
	c.Kill()
	<-c.exited
	c.events.f.Close()
}

// Run gives the child its job, passes each epoch, checkpoint and progress
// event to on in order, and returns when the process and its group are gone.
// on may block: the trainer is held back then by its full pipe. A child runs
// once. The log, when not empty, is the file for standard error.
func (c *Child) Run(job trainerproto.Job, log string, on func(trainerproto.Event)) Exit {
	defer c.events.f.Close()
	defer c.log.close()
	if log != "" {
		if err := c.log.attach(log); err != nil {
			c.launcher.cfg.Logger.Warn("no log file for this run", "file", log, "error", err)
		}
	}
	c.oom = readOOM()
	job.Protocol = trainerproto.Version
	var last trainerproto.Event // done or failed
	var broken error            // protocol error
	if err := c.control.Send(job); err != nil {
		broken = fmt.Errorf("send job: %w", err)
		c.giveUp()
	}
	close(c.told)
	for broken == nil {
		e, err := c.reader.Event()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			broken = err
			c.giveUp()
			break
		}
		switch e.Kind {
		case trainerproto.EventDone, trainerproto.EventFailed:
			if last.Kind == "" {
				last = e
				// It has said its last word: it may take this long to put its things away.
				t := time.AfterFunc(c.launcher.cfg.Grace, c.Stop)
				defer t.Stop()
			}
		case trainerproto.EventHello:
			broken = errors.New("trainer protocol: a second hello")
			c.giveUp()
		default:
			if last.Kind == "" {
				on(e)
			}
		}
	}
	// A large process takes a while to die of a kill; what the kernel counted is
	// asked now, before a signal of ours could be taken for the cause.
	oom := ""
	if !c.wasSignaled() {
		oom = c.oom.since()
	}
	select {
	case <-c.exited:
	case <-time.After(c.launcher.cfg.Grace): // descriptor 3 is closed, yet it goes on
		c.Stop()
		<-c.exited
	}
	if c.events.held {
		c.killEscaped()
	}
	return c.classify(last, broken, oom)
}

// giveUp ends a trainer that broke the protocol. One that was just dying, and
// left half a line behind, gets a moment to do so: its exit state says more.
func (c *Child) giveUp() {
	select {
	case <-c.events.leaderGone:
	case <-time.After(100 * time.Millisecond):
		c.Kill()
	}
}

// killEscaped ends descendants that left the process group, known by the marker
// in their environment. Called when a pipe of the dead trainer is still open;
// looking through all processes after each run would cost more than it finds.
func (c *Child) killEscaped() {
	for _, pid := range findMarked([]pidRecord{{Marker: c.marker}}) {
		c.launcher.cfg.Logger.Warn("a trainer left a process behind; ended", "trainer", c.trainer, "slot", c.slot, "pid", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

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
	exited     <-chan struct{}
	leaderGone chan struct{}
	linger     time.Duration
	held       bool // for the reader: still open a linger after the trainer's end
}

func (p *eventPipe) leaderExited() {
	close(p.leaderGone)
	p.f.SetReadDeadline(time.Now()) // wakes a reader that waits without a limit
}

func (p *eventPipe) Read(b []byte) (int, error) {
	for {
		gone := false
		var until time.Time
		select {
		case <-p.leaderGone:
			gone, until = true, time.Now().Add(p.linger)
			p.f.SetReadDeadline(until)
		default:
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
			return 0, err // the hello time-out
		}
	}
}
