package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"atelier/common/openmp"
	"atelier/common/trainerproto"
)

// TrainerName is the program that trains.
const TrainerName = "atelier-trainer"

// grace is how long a trainer has between SIGTERM and SIGKILL: one batch.
const grace = 20 * time.Second

// helloTimeout bounds loading libtorch.
const helloTimeout = 2 * time.Minute

// FindTrainer looks for the trainer: where it was said, beside this program,
// on the PATH.
func FindTrainer(said string) (string, error) {
	if said != "" {
		path, err := exec.LookPath(said)
		if err != nil {
			return "", fmt.Errorf("no trainer at %s: %w", said, err)
		}
		return filepath.Abs(path)
	}
	beside := ""
	if self, err := os.Executable(); err == nil {
		beside = filepath.Join(filepath.Dir(self), TrainerName)
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(TrainerName); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf("%s is not there (looked for %s, then on the PATH): build it with `make trainer`, name it with --trainer-bin, or train on a cluster with --addr", TrainerName, beside)
}

// child is one trainer process and all it starts, in a process group of its
// own that ends with this program, however that ends.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events *os.File
	reader *trainerproto.Reader
	log    *tail

	mu       sync.Mutex
	signaled bool // by us
	gone     bool // reaped
	exited   chan struct{}
}

// starts runs on one thread that never ends: the kernel sends a child its
// parent-death signal when the thread that made it ends.
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

// command prepares a trainer's process; it is not started yet.
func command(trainer string, log io.Writer, args ...string) *exec.Cmd {
	cmd := exec.Command(trainer, args...)
	cmd.Env = openmp.Environ()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func start(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	starts() <- func() { started <- cmd.Start() }
	return <-started
}

// startTrainer starts `atelier-trainer VERB` and waits for its hello.
func startTrainer(ctx context.Context, trainer, verb string, log *tail) (*child, string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	cmd := command(trainer, log, verb)
	cmd.ExtraFiles = []*os.File{w} // descriptor 3
	c := &child{cmd: cmd, events: r, reader: trainerproto.NewReader(r), log: log, exited: make(chan struct{})}
	if c.stdin, err = cmd.StdinPipe(); err == nil {
		err = start(cmd)
	}
	w.Close()
	if err != nil {
		r.Close()
		return nil, "", fmt.Errorf("start %s: %w", trainer, err)
	}
	go func() {
		cmd.Wait()
		c.mu.Lock()
		c.gone = true
		c.mu.Unlock()
		close(c.exited)
	}()
	defer context.AfterFunc(ctx, c.kill)()
	r.SetReadDeadline(time.Now().Add(helloTimeout))
	e, err := c.reader.Event()
	if err == nil && (e.Kind != trainerproto.EventHello || e.Protocol != trainerproto.Version) {
		err = fmt.Errorf("it speaks another protocol (%s %d, not hello %d): build both programs anew with `make build`", e.Kind, e.Protocol, trainerproto.Version)
	}
	if err != nil {
		c.kill()
		<-c.exited
		r.Close()
		switch {
		case ctx.Err() != nil:
			return nil, "", ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("no word from it within %s", helloTimeout)
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("it ended (%s) before it could say hello", cmd.ProcessState)
		}
		return nil, "", fmt.Errorf("start %s: %w%s", trainer, err, log.quote())
	}
	r.SetReadDeadline(time.Time{})
	return c, e.Message, nil
}

// run sends a job and passes events on until the process has ended. It returns
// the done or failed event, if there was one. When ctx ends the trainer gets a
// SIGTERM, later a SIGKILL.
func (c *child) run(ctx context.Context, job trainerproto.Job, on func(trainerproto.Event) error) (last trainerproto.Event, err error) {
	defer c.events.Close()
	stop := context.AfterFunc(ctx, func() {
		c.signal(syscall.SIGTERM)
		select {
		case <-c.exited:
		case <-time.After(grace):
			c.kill()
		}
	})
	defer stop()
	if err := trainerproto.NewWriter(c.stdin).Send(job); err != nil && !errors.Is(err, syscall.EPIPE) {
		c.kill()
		<-c.exited
		return last, fmt.Errorf("send the job: %w", err)
	}
	for {
		e, err := c.reader.Event()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			switch e.Kind {
			case trainerproto.EventDone, trainerproto.EventFailed:
				last = e
			default:
				err = on(e)
			}
		}
		if err != nil {
			c.kill()
			<-c.exited
			return last, err
		}
	}
	c.stdin.Close()
	select {
	case <-c.exited:
	case <-time.After(grace):
		c.kill()
		<-c.exited
	}
	return last, nil
}

// signal reaches the whole group, unless its number may be another's by now.
func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		c.signaled = true
		syscall.Kill(-c.cmd.Process.Pid, s)
	}
}

func (c *child) kill() { c.signal(syscall.SIGKILL) }

// killed tells whether a SIGKILL ended it that we did not send.
func (c *child) killed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return !c.signaled && ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// tail passes a trainer's standard error on to a file, calls warn for lines
// that warn, and keeps the last lines.
type tail struct {
	mu   sync.Mutex
	to   io.Writer
	warn func(string)
	part []byte
	last []string
}

const tailLines = 12

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.to != nil {
		t.to.Write(b) // a log that cannot be written must not end the training
	}
	t.part = append(t.part, b...)
	for {
		line, rest, ok := bytes.Cut(t.part, []byte{'\n'})
		if !ok {
			break
		}
		t.part = rest
		text := string(line)
		if t.last = append(t.last, text); len(t.last) > tailLines {
			t.last = t.last[1:]
		}
		if _, message, ok := strings.Cut(text, "level=WARN msg="); ok && t.warn != nil {
			t.warn(spoken(message))
		}
	}
	if len(t.part) > 1<<16 {
		t.part = nil
	}
	return len(b), nil
}

// spoken is what a structured log line's message and attributes say, for
// people: `"image skipped" file=a.png` becomes "image skipped (file a.png)".
func spoken(line string) string {
	message, rest := word(line)
	var about []string
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			return line // not of that kind
		}
		value, rest = word(value)
		about = append(about, name+" "+value)
	}
	if len(about) == 0 {
		return message
	}
	return message + " (" + strings.Join(about, "; ") + ")"
}

// word takes a word off the front of a line, or text in quotes.
func word(s string) (first, rest string) {
	if quoted, err := strconv.QuotedPrefix(s); err == nil {
		text, _ := strconv.Unquote(quoted)
		return text, strings.TrimPrefix(s[len(quoted):], " ")
	}
	first, rest, _ = strings.Cut(s, " ")
	return first, rest
}

// quote is the last lines, to be put behind an error.
func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.last
	if len(t.part) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(t.part))
	}
	if len(lines) == 0 {
		return ""
	}
	return "; its last words:\n" + strings.Join(lines, "\n")
}
