package state

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// learn makes a finding of what is known of a trial now.
func (m *Machine) learn(s *Sweep, t *Trial) {
	s.Findings++
	f := Finding{Ordinal: s.Findings, Status: t.Status, HasValue: t.HasValue, ValueEpoch: t.ValueEpoch, Epoch: t.Epoch(), Value: t.Value}
	t.Findings = append(t.Findings[:len(t.Findings):len(t.Findings)], f)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// feasible reports whether row i of the trial's curve meets every constraint.
func (s *Sweep) feasible(t *Trial, i int) bool {
	for _, c := range s.Constraints {
		if v, ok := t.curve.metric(i, c.Metric); !ok || !c.Holds(v) {
			return false
		}
	}
	return true
}

// Infeasible reports whether the trial has reported the objective and met the
// constraints at no such epoch.
func (s *Sweep) Infeasible(t *Trial) bool {
	return !t.HasValue && len(s.Constraints) > 0 && s.observed(t, t.Epoch()) >= 0
}

// observed is the row of the trial's value as of its report of last; where no
// row meets the constraints, that of its best finite objective; -1 for none.
func (s *Sweep) observed(t *Trial, last int32) int {
	best, at, meets := 0.0, -1, false
	for i, epoch := range t.curve.epochs {
		v, ok := t.curve.metric(i, s.Objective.Metric)
		if epoch > last || !ok || !finite(v) {
			continue
		}
		holds := s.feasible(t, i)
		if at < 0 || holds && !meets || holds == meets && s.Objective.Better(v, best) {
			best, at, meets = v, i, holds
		}
	}
	return at
}

// Reported returns all metrics that the trial reported at the epoch of its value,
// for people to look at. What is measured there (see Measured) comes first, where
// the sweep has more than one objective or constraints.
func (s *Sweep) Reported(t *Trial) (out []Metric) {
	row, ok := t.curve.row(t.ValueEpoch)
	if len(s.Objectives) > 1 || len(s.Constraints) > 0 {
		out = s.Measured(t, t.Epoch())
		row = s.observed(t, t.Epoch())
		ok = row >= 0
	} else if !t.HasValue {
		return nil
	}
	if !ok || t.curve.layout == nil {
		return out
	}
	for _, name := range t.curve.layout.names {
		if v, ok := t.curve.metric(row, name); ok && !slices.ContainsFunc(out, func(m Metric) bool { return m.Name == name }) {
			out = append(out, Metric{name, v})
		}
	}
	return out
}

// Measured returns the metrics of the sweep's objectives and constraints at one
// epoch of the trial: that of its value, or, where no epoch meets the
// constraints, that of its best objective. Reports beyond epoch last are not
// looked at. A metric not reported there is NaN; nil without any objective.
func (s *Sweep) Measured(t *Trial, last int32) []Metric {
	row := s.observed(t, last)
	if row < 0 {
		return nil
	}
	var out []Metric
	add := func(name string) {
		for i := range out {
			if out[i].Name == name {
				return
			}
		}
		v, ok := t.curve.metric(row, name)
		if !ok {
			v = math.NaN()
		}
		out = append(out, Metric{name, v})
	}
	for _, o := range s.Objectives {
		add(o.Metric)
	}
	for _, c := range s.Constraints {
		add(c.Metric)
	}
	return out
}

// nearest says why no trial is acceptable: what the constraints are, and for
// each that was never met how near any report came. It is "" where no trial
// reported its objective.
func (s *Sweep) nearest() string {
	names := make([]string, len(s.Constraints))
	gap := make([]float64, len(s.Constraints))
	reached := make([]float64, len(s.Constraints))
	of := make([]int64, len(s.Constraints))
	for i, c := range s.Constraints {
		names[i] = c.String()
		gap[i] = math.Inf(1)
	}
	seen := false
	for t := range s.Trials(1) {
		seen = seen || s.Infeasible(t)
		for i, c := range s.Constraints {
			for row := range t.curve.epochs {
				v, ok := t.curve.metric(row, c.Metric)
				if !ok || math.IsNaN(v) {
					continue
				}
				g := 0.0
				if c.HasMax {
					g = max(g, v-c.Max)
				}
				if c.HasMin {
					g = max(g, c.Min-v)
				}
				if g < gap[i] {
					gap[i], reached[i], of[i] = g, v, t.Number
				}
			}
		}
	}
	if !seen {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "none of %d trials met the constraints %s", s.Len(), strings.Join(names, ", "))
	for i, c := range s.Constraints {
		switch {
		case math.IsInf(gap[i], 1):
			fmt.Fprintf(&b, "; %s was never reported", c.Metric)
		case gap[i] > 0:
			fmt.Fprintf(&b, "; the nearest %s was %g, of trial %d", c.Metric, reached[i], of[i])
		}
	}
	return cut(b.String())
}
