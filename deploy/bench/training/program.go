package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"atelier/deploy/bench/harness"
)

// paced is a process that carries out a block of training steps when told to.
type paced struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	fault bytes.Buffer
	auto  string // the layout our trainer takes by itself
}

// startPaced runs a command line that speaks the protocol of
// atelier-trainer bench --paced.
func startPaced(ctx context.Context, name string, args []string) (*paced, error) {
	p := &paced{name: name, cmd: exec.CommandContext(ctx, args[0], args[1:]...)}
	p.cmd.Stderr = &p.fault
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// answer reads one line.
func (p *paced) answer(into any) error {
	if !p.lines.Scan() {
		p.stdin.Close()
		err := p.cmd.Wait()
		return fmt.Errorf("%s ended (%v): %s\n%s", p.name, err, strings.Join(p.cmd.Args, " "), harness.Tail(p.fault.Bytes()))
	}
	if err := json.Unmarshal(p.lines.Bytes(), into); err != nil {
		return fmt.Errorf("%s: line %q: %w", p.name, p.lines.Text(), err)
	}
	return nil
}

// ready waits until the warm-up is over.
func (p *paced) ready() error {
	var r struct {
		Ready bool
		Auto  string
	}
	if err := p.answer(&r); err != nil {
		return err
	}
	if !r.Ready {
		return fmt.Errorf("%s: first line %q, want {\"ready\": true}", p.name, p.lines.Text())
	}
	p.auto = r.Auto
	return nil
}

// begin starts a block; end waits for it and returns images a second.
func (p *paced) begin(steps int) error {
	_, err := fmt.Fprintln(p.stdin, steps)
	return err
}

func (p *paced) end() (float64, error) {
	var r struct {
		Rate float64 `json:"images_per_s"`
	}
	if err := p.answer(&r); err != nil {
		return 0, err
	}
	if r.Rate <= 0 {
		return 0, fmt.Errorf("%s: no rate in %q", p.name, p.lines.Text())
	}
	return r.Rate, nil
}

// close lets the process end and returns its peak resident memory, MiB.
func (p *paced) close() (float64, error) {
	p.stdin.Close()
	for p.lines.Scan() { // nothing more is expected; the pipe must be empty before Wait
	}
	if err := p.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", p.name, err, harness.Tail(p.fault.Bytes()))
	}
	return harness.Peak(p.cmd), nil
}

// kill ends what is still there after an error.
func (p *paced) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}
