package simulate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxLine   = 1 << 20         // bytes of one answer
	lastWords = 2000            // bytes of standard error kept for the message
	grace     = 5 * time.Second // for the command to end after its input does
)

type question struct {
	Trial  int64           `json:"trial"`
	Params json.RawMessage `json:"params"`
}

type answer struct {
	Trial int64
	Error *string

	value   float64            // NaN where metrics are given
	metrics map[string]float64 // nil where a value is given; looked up only
	line    string
}

// command is the program that evaluates trials. One goroutine writes to it,
// one reads from it; neither blocks the other, as at most the open trials are
// ever unanswered.
type command struct {
	cmd       *exec.Cmd
	stdin     io.WriteCloser
	questions chan question
	lines     chan string
	readErr   error // set before lines closes
	written   chan struct{}
	stderr    *tail
}

func start(argv []string, stderr io.Writer, open int) (*command, error) {
	c := &command{
		cmd:       exec.Command(argv[0], argv[1:]...),
		questions: make(chan question, open),
		lines:     make(chan string, open),
		written:   make(chan struct{}),
		stderr:    &tail{next: stderr},
	}
	// A group of its own, so that what a shell started ends with it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Stderr = c.stderr
	c.cmd.WaitDelay = grace
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	stdout, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	c.cmd.Stdout = write
	if err := c.cmd.Start(); err != nil {
		stdout.Close()
		write.Close()
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	write.Close()
	go c.write()
	go c.read(stdout)
	return c, nil
}

func (c *command) write() {
	defer close(c.written)
	enc := json.NewEncoder(c.stdin)
	enc.SetEscapeHTML(false)
	failed := false
	for q := range c.questions {
		if !failed && enc.Encode(q) != nil {
			failed = true // it has gone; the reader will say so
		}
	}
	c.stdin.Close()
}

func (c *command) read(stdout io.ReadCloser) {
	defer stdout.Close()
	defer close(c.lines)
	scanner := bufio.NewScanner(stdout)
	scanner.Buffer(make([]byte, 0, 64<<10), maxLine)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			c.lines <- line
		}
	}
	c.readErr = scanner.Err()
}

func (c *command) ask(q question) { c.questions <- q }

// answer waits for the next answer; open is how many trials wait for one.
func (c *command) answer(ctx context.Context, open int) (answer, error) {
	select {
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case line, ok := <-c.lines:
		if ok {
			return parse(line)
		}
	}
	if errors.Is(c.readErr, bufio.ErrTooLong) {
		return answer{}, fmt.Errorf("the command wrote a line of more than %d bytes; it must answer with one JSON object a line", maxLine)
	}
	// Its output has ended: it died, or closed it.
	timer := time.AfterFunc(time.Second, c.kill)
	err := c.cmd.Wait()
	timer.Stop()
	how := "ended"
	if err != nil {
		how = "ended (" + err.Error() + ")"
	}
	message := fmt.Sprintf("the command %s while %d trials waited for an answer; it must stay up until its input ends", how, open)
	if last := c.stderr.String(); last != "" {
		message += "; its last words: " + last
	}
	return answer{}, errors.New(message)
}

// close ends the command: its input ends, and it is killed at once when what
// it does is of no use any more, or else after a grace.
func (c *command) close(useless bool) {
	close(c.questions)
	wait := grace
	if useless {
		wait = 0
	}
	timer := time.AfterFunc(wait, c.kill)
	for range c.lines { // what it still says is of no use
	}
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Wait() // how it ends after the last answer is its own affair
	}
	timer.Stop()
	c.kill() // whatever of its group is left
	<-c.written
}

func (c *command) kill() { _ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }

// bare matches the numbers that Python writes and JSON does not have.
var bare = regexp.MustCompile(`:\s*([+-]?)(NaN|Infinity)\b`)

func parse(line string) (answer, error) {
	var raw struct {
		Trial   json.Number                `json:"trial"`
		Value   json.RawMessage            `json:"value"`
		Metrics map[string]json.RawMessage `json:"metrics"`
		Error   *string                    `json:"error"`
	}
	shown := line
	if len(shown) > 200 {
		shown = strings.ToValidUTF8(shown[:200], "") + "..."
	}
	bad := func(format string, args ...any) (answer, error) {
		return answer{}, fmt.Errorf(`the command must answer {"trial":1,"value":0.5}, {"trial":1,"metrics":{"val_acc":0.9,"latency_ms":3}} or {"trial":1,"error":"why"}: %s: %s`, fmt.Sprintf(format, args...), shown)
	}
	data := []byte(line)
	if !json.Valid(data) {
		data = bare.ReplaceAll(data, []byte(`:"$1$2"`))
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return bad("%v", err)
	}
	n, err := strconv.ParseInt(raw.Trial.String(), 10, 64)
	if err != nil {
		return bad("trial is not a number")
	}
	a := answer{Trial: n, Error: raw.Error, value: math.NaN(), line: shown}
	if a.Error != nil {
		return a, nil
	}
	switch {
	case raw.Metrics != nil:
		a.metrics = map[string]float64{}
		for name, text := range raw.Metrics {
			if a.metrics[name], err = number(text); err != nil {
				return bad("metric %q: %v", name, err)
			}
		}
	case raw.Value == nil:
		return bad("it has neither value, metrics nor error")
	default:
		if a.value, err = number(raw.Value); err != nil {
			return bad("value: %v", err)
		}
	}
	return a, nil
}

// number reads a JSON number, or one of the words that Python writes for those
// that JSON does not have.
func number(raw json.RawMessage) (float64, error) {
	text := string(bytes.Trim(raw, `"`))
	switch strings.ToLower(text) {
	case "null", "nan", "+nan", "-nan":
		return math.NaN(), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is not a number", text)
	}
	return f, nil
}

// tail passes standard error on and keeps its end.
type tail struct {
	next io.Writer
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - lastWords; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	if t.next != nil {
		_, _ = t.next.Write(p) // a closed terminal must not end the search
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(strings.ToValidUTF8(string(t.kept), "?"))
}
