package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"

	"atelier/common/space"
	"atelier/deploy/bench/search/suite"
)

// axis is a parameter as the peer is told of it.
type axis struct {
	Name    string      `json:"name"`
	Kind    string      `json:"kind"` // float, int or categorical; listed numbers are an int, by position
	Low     float64     `json:"low"`
	High    float64     `json:"high"`
	Log     bool        `json:"log"`
	Choices int         `json:"choices,omitempty"` // given by position
	When    []condition `json:"when,omitempty"`
}

type condition struct {
	Parent string `json:"parent"`
	Any    []int  `json:"any"` // positions of its choices
}

func axes(s *space.Space) []axis {
	var out []axis
	for i := range s.Params {
		p := &s.Params[i]
		a := axis{Name: p.Name, Kind: p.Kind.String(), Low: p.Low, High: p.High, Log: p.Log, Choices: len(p.Choices)}
		if len(p.Values) > 0 {
			a.Kind, a.Low, a.High, a.Log = "int", 0, float64(len(p.Values)-1), false
		}
		for _, w := range p.When {
			c := condition{Parent: w.Parent}
			parent, _ := s.Lookup(w.Parent)
			for _, v := range w.Any {
				k, _ := s.Params[parent].Index(v)
				c.Any = append(c.Any, int(k))
			}
			a.When = append(a.When, c)
		}
		out = append(out, a)
	}
	return out
}

// point reads the peer's numbers; a NaN stands where a parameter is inactive.
func point(s *space.Space, params map[string]float64) (space.Point, error) {
	p := make(space.Point, len(s.Params))
	for i := range s.Params {
		a := &s.Params[i]
		v, ok := params[a.Name]
		switch {
		case !ok:
		case a.Kind == space.KindCategorical:
			p[i] = a.Choices[int(v)]
		case len(a.Values) > 0:
			p[i] = a.Values[int(v)]
		default:
			p[i] = a.Nearest(v)
		}
	}
	return p, s.Check(p)
}

// optuna is Debian's Optuna: one Python process, begun with the first run, that
// asks us for the values.
type optuna struct {
	*bench
	sampler string
	open    int

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (o *optuna) run(ctx context.Context, p suite.Problem, seed uint64) ([]float64, error) {
	if o.cmd == nil {
		cmd := exec.CommandContext(ctx, o.Python, o.peer, o.sampler)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("%w (Optuna comes with apt-get install python3-optuna)", err)
		}
		o.cmd, o.in, o.out = cmd, in, bufio.NewReader(out)
	}
	return converse(o.in, o.out, p, seed, o.trials, o.open)
}

// close ends the process and says how it ended.
func (o *optuna) close() error {
	if o.cmd == nil {
		return nil
	}
	o.in.Close()
	return o.cmd.Wait()
}

// converse carries one run of the peer through.
func converse(in io.Writer, out *bufio.Reader, p suite.Problem, seed uint64, trials, open int) ([]float64, error) {
	f := p.Variant(seed)
	task := map[string]any{"space": axes(p.Space), "seed": seed, "trials": trials, "open": open}
	if err := json.NewEncoder(in).Encode(task); err != nil {
		return nil, err
	}
	least, best := math.Inf(1), []float64(nil)
	for len(best) < trials {
		text, err := out.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("the peer said nothing more after %d trials: %w", len(best), err)
		}
		var params map[string]float64
		if err := json.Unmarshal(text, &params); err != nil {
			return nil, fmt.Errorf("the peer said %q: %w", text, err)
		}
		at, err := point(p.Space, params)
		if err != nil {
			return nil, err
		}
		v := f(at)
		least = math.Min(least, v)
		best = append(best, least)
		if _, err := fmt.Fprintln(in, v); err != nil {
			return nil, err
		}
	}
	return best, nil
}
