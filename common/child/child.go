// Package child is the host's side of a child process: it ends when this program
// ends, however that ends, and takes with it what it started. A trainer
// (trainer.go) is a child that speaks the trainer protocol.
//
// It refuses to know why a process is wanted, what becomes of what it says, and
// how its end is to be judged.
package child

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// linger is how long pipes may stay open once the process is gone.
const linger = 2 * time.Second

// Options of a start. All may be left out.
type Options struct {
	Linger  time.Duration       // how long pipes may stay open once the process is gone; 2 s
	Started func(pid int) error // called while the number is surely the process's own; an error ends it
	Gone    func()              // called when the process has ended, before its pipes are drained
	Held    func()              // called when something holds a pipe open longer than Linger
	Ended   func()              // called when all is over, before Exited is closed
}

// Process is a started command that leads a process group of its own.
type Process struct {
	cmd    *exec.Cmd
	o      Options
	exited chan struct{}
	err    error // of the wait; valid once exited is closed

	mu       sync.Mutex
	signaled bool // by us
	gone     bool // the leader is reaped: its number must not be signalled any more
}

// starts carries starts to one goroutine that never leaves its thread: the kernel
// sends a child its parent-death signal when the thread that made it ends, and Go
// ends threads whenever it likes. Waiting is done elsewhere: a thread that waits
// could not start.
var starts = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// Start starts a command in a group of its own that gets a SIGKILL when this
// program ends. It owns the command's SysProcAttr and WaitDelay, and waits for it.
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	if o.Linger == 0 {
		o.Linger = linger
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = o.Linger
	started := make(chan error, 1)
	starts() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, o: o, exited: make(chan struct{})}
	var err error
	if o.Started != nil {
		err = o.Started(p.PID())
	}
	go p.reap()
	if err != nil {
		p.Kill()
		<-p.exited
		return nil, err
	}
	return p, nil
}

// reap waits for the leader without reaping it, kills what is left of its group
// while the dead leader still holds the group's number, and only then reaps: the
// number cannot have been given to strangers in between.
func (p *Process) reap() {
	for unix.Waitid(unix.P_PID, p.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.mu.Lock()
	syscall.Kill(-p.PID(), syscall.SIGKILL)
	p.gone = true
	p.mu.Unlock()
	if p.o.Gone != nil {
		p.o.Gone()
	}
	p.err = p.cmd.Wait()
	if errors.Is(p.err, exec.ErrWaitDelay) {
		// Somebody still holds its output: a descendant that left the group.
		p.err = nil
		if p.o.Held != nil {
			p.o.Held()
		}
	}
	if p.o.Ended != nil {
		p.o.Ended()
	}
	close(p.exited)
}

// PID of the process; it leads a process group of the same number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed once the process is reaped and its group is dead.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait returns when the process has ended: nil for exit status 0, else an
// *exec.ExitError.
func (p *Process) Wait() error { <-p.exited; return p.err }

// State is how it ended. Exited must be closed.
func (p *Process) State() *os.ProcessState { return p.cmd.ProcessState }

// Signal sends a signal to the whole group.
func (p *Process) Signal(sig syscall.Signal) error { return p.signal(-p.PID(), sig) }

// SignalLeader sends a signal to the process alone.
func (p *Process) SignalLeader(sig syscall.Signal) error { return p.signal(p.PID(), sig) }

func (p *Process) signal(to int, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return os.ErrProcessDone
	}
	p.signaled = true
	return syscall.Kill(to, sig)
}

// Signaled reports whether this program sent it a signal.
func (p *Process) Signaled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.signaled
}

// Killed reports whether a SIGKILL ended it that this program did not send. Exited
// must be closed.
func (p *Process) Killed() bool {
	status, ok := p.State().Sys().(syscall.WaitStatus)
	return !p.Signaled() && ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Kill ends the process group at once.
func (p *Process) Kill() { p.Signal(syscall.SIGKILL) }

// Stop asks the process group to end, and kills it after a grace time. It does not
// wait.
func (p *Process) Stop(grace time.Duration) {
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT) // a stopped process would not see the request
	go func() {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.exited:
		case <-t.C:
			p.Kill()
		}
	}()
}
