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

// optuna runs Debian's Optuna over the problems, in one Python process that
// asks us for the values.
func optuna(ctx context.Context, s settings, problems []suite.Problem, sampler string, open int) ([][]float64, error) {
	cmd := exec.CommandContext(ctx, s.python, s.peer, sampler)
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
	var curves [][]float64
	answers := bufio.NewReader(out)
	for _, p := range problems {
		var runs [][]float64
		for seed := uint64(firstSeed); seed < uint64(firstSeed+s.seeds); seed++ {
			best, err := converse(in, answers, p, seed, s.trials, open)
			if err != nil {
				in.Close()
				return nil, fmt.Errorf("%s: %w; %v", p.Name, err, cmd.Wait())
			}
			runs = append(runs, best)
		}
		curves = append(curves, median(runs, s.trials))
	}
	in.Close()
	return curves, cmd.Wait()
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
