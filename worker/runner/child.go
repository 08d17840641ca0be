package runner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"atelier/common/child"
	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/common/trial"
)

// Child is one trainer process: standing by after Start, at work in Run.
type Child struct {
	launcher *Launcher
	trainer  string
	slot     string
	marker   string
	read     []string // data opened to it at its start
	pidFile  string
	proc     *child.Trainer
	hello    child.Hello
	log      *runLog
	oom      oomCount

	jobSent chan struct{} // closed once the job is sent
}

// PID of the process; it leads a process group of the same number.
func (c *Child) PID() int { return c.proc.PID() }

// Trainer is the name the child was started under.
func (c *Child) Trainer() string { return c.trainer }

// Groups is the version of the protocol between members that the trainer speaks;
// 0 = it knows no groups.
func (c *Child) Groups() int { return c.hello.Groups }

// MayRead reports whether the child was started so that it may read all of these
// paths, which confine.Open told.
func (c *Child) MayRead(paths []string) bool {
	return c.launcher.cfg.Confine.Covers(c.read, paths)
}

// Links passes the trainer its links to other members of a group.
func (c *Child) Links() *links.Sender { return c.proc.Links() }

// Exited is closed once the process is reaped, its group dead and its pid file
// gone.
func (c *Child) Exited() <-chan struct{} { return c.proc.Exited() }

// Kill ends the process group at once.
func (c *Child) Kill() { c.proc.Kill() }

// Stop asks the process group to end, and kills it after the grace time.
// It does not wait.
func (c *Child) Stop() { c.proc.Stop(c.launcher.cfg.Grace) }

// SendVerdict sends a control line, after the job if that is still on its way. A
// trainer that does not read it within 5 s is reported as an error; what
// follows is the caller's decision.
func (c *Child) SendVerdict(verdict string) error {
	return c.SendControl(trainerproto.Control{Verdict: verdict})
}

// SendControl sends any control line as SendVerdict does.
func (c *Child) SendControl(line trainerproto.Control) error {
	select {
	case <-c.jobSent:
	case <-c.Exited():
		return os.ErrProcessDone
	}
	return c.proc.Send(line)
}

// Discard ends a child that was never given a job.
func (c *Child) Discard() {
	c.Kill()
	<-c.Exited()
	c.proc.Close()
}

// Run gives the child its job, passes each epoch, checkpoint, progress and view
// event to on in order, and returns when the process and its group are gone. A
// trainer that has sent an alive event and then sends nothing for
// Config.AliveWithin, or AloneWithin where the job is no group's, is killed: it is
// stopped, or hangs.
// on may block: the trainer is held back then by its full pipe. A child runs
// once. The log, when not empty, is the file for standard error.
func (c *Child) Run(job trainerproto.Job, log string, on func(trainerproto.Event)) Exit {
	defer c.proc.Close()
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
	var within time.Duration    // that an event has to come in; 0 = whenever
	silent, patience := false, c.launcher.cfg.AloneWithin
	if job.Group != nil {
		patience = c.launcher.cfg.AliveWithin
	}
	if err := c.proc.Send(job); err != nil {
		broken = fmt.Errorf("send job: %w", err)
		c.proc.GiveUp()
	}
	close(c.jobSent)
	for broken == nil {
		e, err := c.proc.EventWithin(within)
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, child.ErrSilent) {
			silent = true
			c.Kill()
			break
		}
		if err != nil {
			broken = err
			c.proc.GiveUp()
			break
		}
		switch e.Kind {
		case trainerproto.EventDone, trainerproto.EventFailed:
			within = 0
			if last.Kind == "" {
				last = e
				// It has said its last word: it may take this long to put its things away.
				t := time.AfterFunc(c.launcher.cfg.Grace, c.Stop)
				defer t.Stop()
			}
		case trainerproto.EventHello:
			broken = errors.New("trainer protocol: a second hello")
			c.proc.GiveUp()
		case trainerproto.EventAlive:
			if last.Kind == "" {
				within = patience
			}
		default:
			if last.Kind == "" {
				on(e)
			}
		}
	}
	// A large process takes a while to die of a kill; what the kernel counted is
	// asked now, before a signal of ours could be taken for the cause.
	oom := ""
	if !c.proc.Signaled() {
		oom = c.oom.since()
	}
	select {
	case <-c.Exited():
	case <-time.After(c.launcher.cfg.Grace): // descriptor 3 is closed, yet it goes on
		c.Stop()
		<-c.Exited()
	}
	if c.proc.Held() {
		c.killEscaped()
	}
	if silent {
		return Exit{Class: trial.ExitKilled, Message: fmt.Sprintf("gave no sign of life for %g s", patience.Seconds()), Silent: true}
	}
	return c.classify(last, broken, oom)
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
