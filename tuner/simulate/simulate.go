// Package simulate runs a sweep's search alone: no cluster, no trainer. A
// command that stays up reads one JSON object a line, {"trial":1,"params":{}},
// and answers each, in any order, with {"trial":1,"value":0.5}, with
// {"trial":1,"metrics":{"val_acc":0.9,"latency_ms":3}} where the spec has several
// objectives or constraints, or with {"trial":1,"error":"why"}.
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

	"atelier/common/spec"
	"atelier/tuner/search"
)

// Options of a simulation.
type Options struct {
	Spec     *spec.Spec
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
	Values    []*float64      `json:"values,omitempty"`   // of several objectives
	Feasible  *bool           `json:"feasible,omitempty"` // where there are constraints
	Front     []int64         `json:"front,omitempty"`    // trials that nothing improves upon, of several objectives
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
	if s.Budget.Trials == 0 {
		return errors.New("simulate: the spec has no budget.trials; give one, epochs and time mean nothing here")
	}
	if s.Population != nil {
		return errors.New("simulate: search_method pbt continues from checkpoints, which a simulation does not have; submit the sweep, with trainer: sim perhaps")
	}
	if s.StoppingJSON != "" && o.Stderr != nil {
		fmt.Fprintln(o.Stderr, "the spec's stopping rule has no effect in a simulation: a trial is answered once, and has no epochs")
	}
	r := &run{options: o, open: max(1, o.Parallel), budget: s.Budget.Trials, enc: json.NewEncoder(o.Out)}
	r.enc.SetEscapeHTML(false)
	var err error
	r.problem = search.Problem{
		Space: &s.Space, Maximize: s.Objective.Maximize, Seed: s.Seed, Budget: s.Budget.Trials, Parallelism: int64(r.open),
		Objectives: s.Objectives, Constraints: s.Constraints,
	}
	r.method, err = search.New(s.SearchMethod, s.Algorithm, r.problem)
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
	problem search.Problem
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
				if why := search.NoAnswer(r.problem, r.history); why != "" {
					return errors.New("simulate: no answer: " + why)
				}
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
	if a.Error != nil {
		t.Status, out.State, out.Error = search.Failed, "failed", *a.Error
	} else if err := r.note(t, a); err != nil {
		return err
	}
	if t.Status == search.Complete {
		out.State = "finished"
		r.rate(t, &out)
	} else if out.State == "" {
		out.State = "diverged"
	}
	out.Best, out.BestTrial = r.best, r.bestTrial
	if err := r.enc.Encode(out); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// note writes what a trial's answer says into the history.
func (r *run) note(t *search.Trial, a answer) error {
	p := &r.problem
	metric := func(name string) (float64, error) {
		if v, ok := a.metrics[name]; ok {
			return v, nil
		}
		return 0, fmt.Errorf("the command did not report %q, which the spec asks for: %s", name, a.line)
	}
	if a.metrics == nil && (len(p.Objectives) > 1 || len(p.Constraints) > 0) {
		return fmt.Errorf(`the spec has several objectives or constraints: the command must answer {"trial":%d,"metrics":{"NAME":0.5}}: %s`, a.Trial, a.line)
	}
	t.HasValue, t.Value, t.Status = true, a.value, search.Complete
	finite := a.metrics != nil || !math.IsNaN(a.value) && !math.IsInf(a.value, 0)
	if a.metrics != nil {
		for k, o := range p.Objectives {
			v, err := metric(o.Metric)
			if err != nil {
				return err
			}
			finite = finite && !math.IsNaN(v) && !math.IsInf(v, 0)
			if k == 0 {
				t.Value = v
			}
			if len(p.Objectives) > 1 {
				t.Values = append(t.Values, v)
			}
		}
		for _, c := range p.Constraints {
			v, err := metric(c.Metric)
			if err != nil {
				return err
			}
			t.Constraints = append(t.Constraints, v)
		}
	}
	if !finite {
		t.Status = search.Diverged
	}
	return nil
}

// rate shows a finished trial's values, and whether it is the best so far or
// on the front.
func (r *run) rate(t *search.Trial, out *row) {
	p := &r.problem
	value := t.Value
	feasible := p.Feasible(t)
	if len(p.Constraints) > 0 {
		out.Feasible = &feasible
	}
	out.Value = &value
	if len(p.Objectives) > 1 {
		for k := range t.Values {
			out.Values = append(out.Values, &t.Values[k])
		}
		out.Front = search.Front(*p, r.history)
		return
	}
	switch {
	case !feasible:
	case r.best == nil, value != *r.best && (value > *r.best) == r.options.Spec.Objective.Maximize,
		value == *r.best && t.Number < r.bestTrial: // of equal trials the first by number, as a sweep's leaderboard has it
		r.best, r.bestTrial = &value, t.Number
	}
}
