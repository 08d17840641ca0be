package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"atelier/common/child"
	"atelier/common/openmp"
	"atelier/common/trainerproto"
	"atelier/tuner/session"
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
	path, beside, err := child.Find(TrainerName, said)
	switch {
	case err != nil && said != "":
		return "", fmt.Errorf("no trainer at %s: %w", said, err)
	case err != nil:
		return "", fmt.Errorf("%s not found (looked for %s, then on the PATH): build it with `make trainer`, give its path with --trainer-bin, or train on a cluster with --addr", TrainerName, beside)
	}
	return path, nil
}

// command prepares a trainer's process; it is not started yet.
func command(trainer string, log io.Writer, args ...string) *exec.Cmd {
	cmd := exec.Command(trainer, args...)
	cmd.Env = openmp.Environ()
	cmd.Stderr = log
	return cmd
}

// startTrainer starts `atelier-trainer VERB` and waits for its hello.
func startTrainer(ctx context.Context, trainer, verb string, log *tail) (*child.Trainer, child.Hello, error) {
	c, err := child.StartTrainer(command(trainer, log, verb), child.Options{})
	if err != nil {
		return nil, child.Hello{}, fmt.Errorf("start %s: %w", trainer, err)
	}
	defer context.AfterFunc(ctx, c.Kill)()
	said, err := c.Hello(helloTimeout)
	if err == nil {
		return c, said, nil
	}
	c.Kill()
	<-c.Exited()
	c.Close()
	switch {
	case ctx.Err() != nil:
		return nil, child.Hello{}, ctx.Err()
	case errors.Is(err, child.ErrEndedEarly):
		err = fmt.Errorf("%w (%s)", err, c.State())
	case errors.Is(err, child.ErrOtherProtocol):
		err = fmt.Errorf("%w: build both programs again with `make build`", err)
	}
	return nil, child.Hello{}, fmt.Errorf("start %s: %w%s", trainer, err, log.quote())
}

// carryOut sends a job and passes events on until the process has ended. It
// returns the done or failed event, if there was one. When ctx ends the trainer
// gets a SIGTERM, later a SIGKILL. One that has shown that it is alive, and then is
// silent for silence, is ended.
func carryOut(ctx context.Context, c *child.Trainer, job trainerproto.Job, silence time.Duration, on func(trainerproto.Event) error) (last trainerproto.Event, err error) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Stop(grace) })()
	if err := c.Send(job); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) { // one that ended may have said why
		c.Kill()
		<-c.Exited()
		return last, fmt.Errorf("send the job: %w", err)
	}
	within := time.Duration(0) // that an event has to come in
	for {
		e, err := c.EventWithin(within)
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, child.ErrSilent) {
			err = &session.Failure{Class: trainerproto.FailedCrashed, Message: fmt.Sprintf("the trainer gave no sign of life for %s (stopped by a signal, or hung) and was ended", within)}
		}
		if err == nil {
			switch e.Kind {
			case trainerproto.EventDone, trainerproto.EventFailed:
				last, within = e, 0
			case trainerproto.EventAlive:
				if last.Kind == "" {
					within = silence
				}
			default:
				err = on(e)
			}
		}
		if err != nil {
			c.Kill()
			<-c.Exited()
			return last, err
		}
	}
	c.CloseInput()
	select {
	case <-c.Exited():
	case <-time.After(grace):
		c.Kill()
		<-c.Exited()
	}
	return last, nil
}

// tail passes a trainer's standard error on to a file, calls warn for lines
// that warn, skipped for those of an image that is left out, and keeps the last
// lines.
type tail struct {
	mu      sync.Mutex
	to      io.Writer
	warn    func(string)
	skipped func(string) // nil = warn
	part    []byte
	last    []string
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
			text, ofImage := spoken(message)
			if ofImage && t.skipped != nil {
				t.skipped(text)
			} else {
				t.warn(text)
			}
		}
	}
	if len(t.part) > 1<<16 {
		t.part = nil
	}
	return len(b), nil
}

// spoken is what a structured log line's message and attributes say, for
// people: `"no weights" file=a.pth` becomes "no weights (file a.pth)". ofImage
// reports whether it is of an image that is left out.
func spoken(line string) (text string, ofImage bool) {
	message, rest := word(line)
	var about []string
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			return line, false // not of that kind
		}
		value, rest = word(value)
		if name == trainerproto.LogSkipped {
			ofImage = true
			continue
		}
		about = append(about, name+" "+value)
	}
	if len(about) == 0 {
		return message, ofImage
	}
	return message + " (" + strings.Join(about, "; ") + ")", ofImage
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
	return "; the last lines of its log:\n" + strings.Join(lines, "\n")
}
