// Package simulate runs a sweep's search alone: no cluster, no trainer. A
// command that stays up reads one JSON object a line, {"trial":1,"params":{}},
// and answers each, in any order, with {"trial":1,"value":0.5} or
// {"trial":1,"error":"why"}.
//
// Results are taken one at a time and open places refilled after each, so the
// proposals depend on the order of the results and on nothing else.
package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"atelier/tuner/search"
	"atelier/tuner/sweep"
)

// Options of a simulation.
type Options struct {
	Spec     *sweep.Spec
	Command  []string  // program and arguments; it stays up for the whole run
	Parallel int       // trials open at once; 0 = 1
	Out      io.Writer // receives one JSON object a trial, as it ends
	Stderr   io.Writer // receives the command's standard error; nil drops it
}

// Shell is the Command of a line for the shell.
func Shell(line string) []string { return []string{"/bin/sh", "-c", line} }

// row is one line of the output.
type row struct {
	Trial     int64           `json:"trial"`
	State     string          `json:"state"` // finished, diverged or failed
	Params    json.RawMessage `json:"params"`
	Value     *float64        `json:"value"` // null unless finite
	Best      *float64        `json:"best"`  // best value so far; null before the first
	BestTrial int64           `json:"best_trial,omitempty"`
	Error     string          `json:"error,omitempty"`
}

// Run carries the simulation out: until the budget is used, the space is
// exhausted, the command fails or ctx ends.
func Run(ctx context.Context, o Options) error {
	switch {
	case o.Spec == nil:
		return errors.New("simulate: no spec")
	case len(o.Command) == 0:
		return errors.New("simulate: no command to evaluate trials with; give --exec")
	case o.Parallel < 0:
		return fmt.Errorf("simulate: %d trials open at once; give 1 or more", o.Parallel)
	}
	s := o.Spec
	r := &run{options: o, open: max(1, o.Parallel), budget: s.Budget.Trials, enc: json.NewEncoder(o.Out)}
	r.enc.SetEscapeHTML(false)
	var err error
	r.method, err = search.New(s.SearchMethod, s.Algorithm, search.Problem{
		Space: &s.Space, Maximize: s.Objective.Maximize, Seed: s.Seed, Budget: s.Budget.Trials, Parallelism: int64(r.open),
	})
	if err != nil {
		return err
	}
	r.command, err = start(o.Command, o.Stderr, r.open)
	if err != nil {
		return err
	}
	err = r.loop(ctx)
	r.command.close(err != nil)
	return err
}

type run struct {
	options Options
	open    int
	budget  int64
	method  search.Method
	command *command
	enc     *json.Encoder

	history   []search.Trial
	ended     int
	exhausted bool
	best      *float64
	bestTrial int64
}

func (r *run) loop(ctx context.Context) error {
	for {
		if err := r.fill(ctx); err != nil {
			return err
		}
		if r.ended == len(r.history) {
			if r.exhausted || int64(r.ended) >= r.budget {
				return nil
			}
			return fmt.Errorf("simulate: %s proposes nothing although no trial is open, after %d trials", r.options.Spec.SearchMethod, r.ended)
		}
		a, err := r.command.answer(ctx, len(r.history)-r.ended)
		if err != nil {
			return err
		}
		if err := r.end(a); err != nil {
			return err
		}
	}
}

// fill opens trials up to the number wanted.
func (r *run) fill(ctx context.Context) error {
	room := min(int64(r.open-(len(r.history)-r.ended)), r.budget-int64(len(r.history)))
	if r.exhausted || room <= 0 {
		return nil
	}
	proposal, err := r.method.Propose(ctx, r.history, int(room))
	if err != nil {
		return err
	}
	r.exhausted = proposal.Exhausted
	for _, p := range proposal.Points {
		n := int64(len(r.history)) + 1
		r.history = append(r.history, search.Trial{Number: n, Point: p})
		r.command.ask(question{n, json.RawMessage(r.options.Spec.Space.Encode(p))})
	}
	return nil
}

// end records one answer and prints its line.
func (r *run) end(a answer) error {
	if a.Trial < 1 || a.Trial > int64(len(r.history)) {
		return fmt.Errorf("the command answered trial %d, which was not asked: %s", a.Trial, a.line)
	}
	t := &r.history[a.Trial-1]
	if t.Status != search.Open {
		return fmt.Errorf("the command answered trial %d twice: %s", a.Trial, a.line)
	}
	r.ended++
	out := row{Trial: a.Trial, Params: json.RawMessage(r.options.Spec.Space.Encode(t.Point))}
	switch {
	case a.Error != nil:
		t.Status, out.State, out.Error = search.Failed, "failed", *a.Error
	case math.IsNaN(a.value) || math.IsInf(a.value, 0):
		t.Status, out.State = search.Diverged, "diverged"
		t.Value, t.HasValue = a.value, true
	default:
		t.Status, out.State = search.Complete, "finished"
		t.Value, t.HasValue = a.value, true
		out.Value = &a.value
		if better := r.best == nil || (a.value > *r.best) == r.options.Spec.Objective.Maximize && a.value != *r.best; better {
			r.best, r.bestTrial = &a.value, a.Trial
		}
	}
	out.Best, out.BestTrial = r.best, r.bestTrial
	if err := r.enc.Encode(out); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
