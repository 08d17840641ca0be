// Package history tells search what a sweep has found out, from the replicated
// state alone: what its warm start brought, and its own trials, each as it was known
// after a given number of findings.
//
// Because findings are numbered in the order of the log and proposals record
// how many their proposer had seen, every proposal can be computed again later,
// on any replica. The package refuses to look at what open trials have reported
// since their last finding: a proposal must not depend on how far they are.
package history

import (
	"fmt"
	"math"

	"atelier/common/space"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
	"atelier/tuner/pbt"
	"atelier/tuner/search"
)

// Problem is what search is asked to solve, with a budget of trials; 0 = no
// limit.
func Problem(sw *state.Sweep, budget int64) (search.Problem, error) {
	p := goal(sw)
	p.Space, p.Seed, p.Budget, p.Parallelism = &sw.Space, sw.Seed, budget, sw.Parallelism
	for i, w := range sw.WarmTrials {
		point, err := sw.Space.Decode(w.ParamsJson)
		if err != nil {
			return p, fmt.Errorf("read trial %d of %s, the warm start: %w", w.Trial, sw.WarmStart, err)
		}
		t := search.Trial{Number: int64(i) + 1, Point: point, Status: statusOf(wire.Status(w.Status), w.HasValue), HasValue: w.HasValue, Value: w.Value, Epoch: int(w.Epoch)}
		var metrics []state.Metric
		for _, m := range w.Metrics {
			metrics = append(metrics, state.Metric{Name: m.Name, Value: m.Value})
		}
		measure(&t, sw, metrics)
		p.Warm = append(p.Warm, t)
	}
	return p, nil
}

// goal is the part of a Problem that says what is wanted.
func goal(sw *state.Sweep) search.Problem {
	return search.Problem{Maximize: sw.Objective.Maximize, Objectives: sw.Objectives, Constraints: sw.Constraints}
}

// Method makes the search method of a sweep for a budget.
func Method(sw *state.Sweep, budget int64) (search.Method, error) {
	p, err := Problem(sw, budget)
	if err != nil {
		return nil, err
	}
	if sw.Population != nil {
		return pbt.New(p, pbt.Settings(*sw.Population))
	}
	return search.New(sw.SearchMethod, sw.Algorithm, p)
}

// Reader reads the history of one sweep and keeps what it has read. It is for
// one goroutine.
type Reader struct {
	space  *space.Space
	trials []search.Trial
	open   []int64 // numbers that were open at the last look
}

// NewReader returns a reader for a sweep with this space.
func NewReader(s *space.Space) *Reader { return &Reader{space: s} }

// Forget drops all that was read.
func (r *Reader) Forget() { r.trials, r.open = nil, nil }

// Read brings the history up to the sweep's. Beside trials that were open at
// the last look only those named in stale are looked at again. The answer is
// good until the next call and must not be changed.
func (r *Reader) Read(sw *state.Sweep, stale []int64) ([]search.Trial, error) {
	if sw.Len() < int64(len(r.trials)) {
		r.Forget()
	}
	for _, numbers := range [][]int64{r.open, stale} {
		for _, n := range numbers {
			if n >= 1 && n <= int64(len(r.trials)) {
				know(&r.trials[n-1], sw, sw.Trial(n), sw.Findings)
			}
		}
	}
	if err := r.grow(sw, sw.Len(), sw.Findings); err != nil {
		return nil, err
	}
	r.open = sw.Open()
	return r.trials, nil
}

// As returns the history of trials 1 to last as it was known after seen
// findings, under the same terms as Read. Calls with ascending arguments are
// cheap: only what findings since changed is looked at again.
func (r *Reader) As(sw *state.Sweep, last, seen int64, changed []int64) ([]search.Trial, error) {
	for _, n := range changed {
		if n <= int64(len(r.trials)) {
			know(&r.trials[n-1], sw, sw.Trial(n), seen)
		}
	}
	if err := r.grow(sw, last, seen); err != nil {
		return nil, err
	}
	return r.trials, nil
}

// grow appends trials up to last.
func (r *Reader) grow(sw *state.Sweep, last, seen int64) error {
	for t := range sw.Trials(int64(len(r.trials)) + 1) {
		if t.Number > last {
			break
		}
		point, err := r.space.Decode(t.ParamsJSON)
		if err != nil {
			return fmt.Errorf("read trial %d again: %w", t.Number, err)
		}
		h := search.Trial{Number: t.Number, Point: point}
		know(&h, sw, t, seen)
		r.trials = append(r.trials, h)
	}
	return nil
}

// know writes what search knew of a trial after seen findings.
func know(h *search.Trial, sw *state.Sweep, t *state.Trial, seen int64) {
	*h = search.Trial{Number: h.Number, Point: h.Point}
	f, ok := t.Known(seen)
	if !ok {
		return
	}
	h.HasValue, h.Value, h.Epoch = f.HasValue, f.Value, int(f.Epoch)
	if len(sw.Objectives) > 1 || len(sw.Constraints) > 0 {
		measure(h, sw, sw.Measured(t, f.Epoch))
	}
	h.Status = statusOf(f.Status, h.HasValue)
}

// measure takes over the metrics of objectives and constraints. A trial that met
// the constraints at no epoch has a value for search all the same: by how much
// it failed is what search learns from.
func measure(h *search.Trial, sw *state.Sweep, metrics []state.Metric) {
	if metrics == nil {
		return
	}
	of := func(name string) float64 {
		for _, m := range metrics {
			if m.Name == name {
				return m.Value
			}
		}
		return math.NaN()
	}
	h.HasValue, h.Value = true, of(sw.Objective.Metric)
	if len(sw.Objectives) > 1 {
		for _, o := range sw.Objectives {
			h.Values = append(h.Values, of(o.Metric))
		}
	}
	for _, c := range sw.Constraints {
		h.Constraints = append(h.Constraints, of(c.Metric))
	}
}

// Goals returns what a trial stands for among those of which a Pareto front is
// made: its values of the sweep's objectives as search knows them now; nil while it
// is no candidate.
func Goals(sw *state.Sweep, t *state.Trial) []float64 {
	h := search.Trial{Number: t.Number}
	know(&h, sw, t, sw.Findings)
	if len(search.Front(goal(sw), []search.Trial{h})) == 0 {
		return nil
	}
	return h.Values
}

// Front reports, by trial number, which of the goals no others improve upon.
func Front(sw *state.Sweep, goals map[int64][]float64) map[int64]bool {
	p := goal(sw)
	p.Constraints = nil // candidates meet them
	trials := make([]search.Trial, 0, len(goals))
	for n, values := range goals {
		trials = append(trials, search.Trial{Number: n, Status: search.Complete, HasValue: true, Values: values})
	}
	front := map[int64]bool{}
	for _, n := range search.Front(p, trials) {
		front[n] = true
	}
	return front
}

// statusOf is a status in search's words. A paused trial counts as one that was
// stopped: its value is known, and it may never go on.
func statusOf(s trial.Status, hasValue bool) search.Status {
	switch s {
	case trial.Finished:
		return search.Complete
	case trial.Stopped, trial.Paused:
		if hasValue {
			return search.Complete
		}
		return search.Cancelled
	case trial.Diverged:
		return search.Diverged
	case trial.Failed:
		return search.Failed
	case trial.Cancelled:
		return search.Cancelled
	}
	return search.Open
}

// Now returns the problem and the whole history as they stand.
func Now(sw *state.Sweep) (search.Problem, []search.Trial, error) {
	p, err := Problem(sw, sw.Budget)
	if err != nil {
		return p, nil, err
	}
	trials, err := NewReader(&sw.Space).Read(sw, nil)
	return p, trials, err
}
