package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"atelier/common/child"
)

// Process is one server of the cluster: a real process with its own group,
// that ends when this program ends, however it ends.
type Process struct {
	Name   string // "c1", "w2", "redis"
	Addr   string // what clients speak to: API of a coordinator, file server of a worker, Redis itself
	Raft   string // of a coordinator
	Gossip string // gossip address of a coordinator or a worker
	Dir    string // its data folder; the same after a Restart
	Log    string // file that takes its output

	bin         string
	args        func(p *Process) []string // called at every start: ports are known after the first
	env         []string
	ready       func(ctx context.Context, p *Process) error
	addressFile string
	started     bool // once

	mu    sync.Mutex
	child *child.Process
}

// Start starts a process that has ended, with the same data and ports, and
// returns when it serves. A port that another program took meanwhile is waited
// for until ctx ends.
func (p *Process) Start(ctx context.Context) error {
	for {
		err := p.startOnce(ctx)
		var early *earlyExit
		if err == nil || !p.started || !errors.As(err, &early) || !strings.Contains(strings.ToLower(early.tail), "address already in use") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// earlyExit is the end of a process that never served; an address that was taken is one reason to
// try again.
type earlyExit struct {
	name, tail string
	err        error
}

// Error has the last lines of its log, where the reason is.
func (e *earlyExit) Error() string {
	return fmt.Sprintf("%s ended before it served (%v); its last lines:\n%s", e.name, e.err, e.tail)
}

// startOnce starts the process and returns when it serves. Its old address file goes first, so that
// none of an earlier start is believed.
func (p *Process) startOnce(ctx context.Context) error {
	// Asks other processes for their addresses, and they may be starting too:
	// before the lock.
	args := p.args(p)
	p.mu.Lock()
	if p.alive() {
		p.mu.Unlock()
		return fmt.Errorf("start %s: it runs already (pid %d)", p.Name, p.child.PID())
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		p.mu.Unlock()
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	if p.addressFile != "" {
		if err := os.Remove(p.addressFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.mu.Unlock()
			return fmt.Errorf("start %s: %w", p.Name, err)
		}
	}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		p.mu.Unlock()
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	from, _ := out.Seek(0, io.SeekEnd)
	cmd := exec.Command(p.bin, args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = out, out
	running, err := child.Start(cmd, child.Options{})
	out.Close()
	if err != nil {
		p.mu.Unlock()
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.child = running
	p.mu.Unlock()

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = p.check(ctx); last == nil {
			p.mu.Lock()
			p.started = true
			p.mu.Unlock()
			return nil
		}
		select {
		case <-running.Exited():
			return &earlyExit{p.Name, tail(p.Log, from), p.Wait()}
		case <-ctx.Done():
			p.Kill()
			return fmt.Errorf("start %s: %w; not ready because: %v; its last lines:\n%s", p.Name, ctx.Err(), last, tail(p.Log, from))
		case <-tick.C:
		}
	}
}

// check is nil once the process serves.
func (p *Process) check(ctx context.Context) error {
	if p.addressFile != "" {
		if err := p.readAddresses(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return p.ready(ctx, p)
}

// readAddresses takes the addresses that the process wrote once it served.
func (p *Process) readAddresses() error {
	b, err := os.ReadFile(p.addressFile)
	if err != nil {
		return err
	}
	var f struct {
		API, Raft, Gossip, Listen string
		PID                       int
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%s: %w", p.addressFile, err)
	}
	if f.PID != p.PID() {
		return fmt.Errorf("%s is of process %d, not of %d", p.addressFile, f.PID, p.PID())
	}
	if f.API == "" {
		f.API = f.Listen
	}
	if f.API == "" {
		return fmt.Errorf("%s names no address", p.addressFile)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// After a restart they are the same, and others may be reading them.
	if p.Addr != f.API || p.Raft != f.Raft || p.Gossip != f.Gossip {
		p.Addr, p.Raft, p.Gossip = f.API, f.Raft, f.Gossip
	}
	return nil
}

// addresses reads what a process that starts beside the reader may just write.
func (p *Process) addresses() (addr, gossip string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Addr, p.Gossip
}

// alive is for the holder of mu.
func (p *Process) alive() bool {
	if p.child == nil {
		return false
	}
	select {
	case <-p.child.Exited():
		return false
	default:
		return true
	}
}

// Alive reports whether the process runs; a stopped one (SIGSTOP) does.
func (p *Process) Alive() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.alive() }

// PID is the process's id, of the last start when it has ended; 0 before the first.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return 0
	}
	return p.child.PID()
}

// Signal sends a signal to the process alone. Its children are not told.
func (p *Process) Signal(sig os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return fmt.Errorf("signal %s: %w", p.Name, os.ErrProcessDone)
	}
	if err := p.child.SignalLeader(sig.(syscall.Signal)); err != nil {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Pause freezes the process (SIGSTOP) until Continue, and returns when it
// stands still: the kernel stops it some time after the signal was sent.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if stopped, err := frozen(p.PID()); err != nil || stopped {
			return err
		}
	}
	return fmt.Errorf("pause %s: process %d did not stop within 5 s", p.Name, p.PID())
}

// frozen reports whether every thread of a process is stopped.
func frozen(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false, fmt.Errorf("look at process %d: %w", pid, os.ErrProcessDone)
	}
	for _, f := range threads {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended meanwhile
		}
		// The state follows the name, which stands in parentheses and may hold some itself.
		if i := bytes.LastIndexByte(b, ')'); i < 0 || i+2 >= len(b) || b[i+2] != 'T' {
			return false, nil
		}
	}
	return true, nil
}

// Continue lets a process go on that Pause has frozen (SIGCONT): a machine that hung and came back.
func (p *Process) Continue() error { return p.Signal(syscall.SIGCONT) }

// Kill ends the process at once (SIGKILL) and returns when it has ended.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	p.Wait()
	return nil
}

// Stop asks the process to end (SIGTERM), kills it after grace, and returns
// when it has ended. The error tells that it had to be killed.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	}
	// A frozen process hears the request when it goes on.
	p.Signal(syscall.SIGCONT)
	p.mu.Lock()
	running := p.child
	p.mu.Unlock()
	select {
	case <-running.Exited():
		return nil
	case <-time.After(grace):
		if err := p.Kill(); err != nil {
			return err
		}
		return fmt.Errorf("stop %s: it did not end within %s and was killed; see %s", p.Name, grace, p.Log)
	}
}

// Restart kills the process if it runs, and starts it with the same data and ports.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Kill(); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Wait returns when the process has ended, and how: an *exec.ExitError unless
// it exited with 0.
func (p *Process) Wait() error {
	p.mu.Lock()
	running := p.child
	p.mu.Unlock()
	if running == nil {
		return nil
	}
	return running.Wait()
}

// tail returns the last lines that a log took since an offset.
func tail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(from, end-8192), io.SeekStart)
	}
	b, _ := io.ReadAll(f)
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(lines) > 20 {
		lines = lines[len(lines)-20:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}

// freePort finds a port that was free a moment ago, for servers that cannot
// be given port 0.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// find is a program of the build, in dir.
func find(dir, name string) (string, error) {
	p := filepath.Join(dir, name)
	st, err := os.Stat(p)
	if err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
		return "", fmt.Errorf("no program %s: build it first (make programs)", p)
	}
	return filepath.Abs(p)
}
