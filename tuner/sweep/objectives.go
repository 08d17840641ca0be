package sweep

import (
	"fmt"
	"math"
	"strings"

	"go.yaml.in/yaml/v3"

	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/tuner/search"
)

const (
	// Every trial carries a value for each, and a front of many objectives holds nearly all trials.
	maxObjectives  = 8
	maxConstraints = 32
)

// goals reads `objective` or `objectives`; root is where a missing one is
// reported. The first of a list is the sweep's primary objective: by it trials are ranked and stopped.
func (r *reader) goals(root, one, many *yaml.Node, s *spec.Spec) {
	switch {
	case one != nil && many != nil:
		r.fail(many, "objectives", "is given beside objective (line %d); keep one of the two", one.Line)
	case one != nil:
		s.Objectives = []trial.Objective{r.objective(one, "objective")}
	case many == nil:
		r.fail(root, "objective", "is missing; give {metric: val_loss, direction: minimize}")
	case many.Kind != yaml.SequenceNode || len(many.Content) == 0:
		r.fail(many, "objectives", "want a list such as [{metric: val_acc, direction: maximize}, {metric: latency_ms, direction: minimize}]")
	case len(many.Content) > maxObjectives:
		r.fail(many, "objectives", "has %d entries; the limit is %d", len(many.Content), maxObjectives)
	default:
		lines := map[string]int{} // metric to line; looked up only
		for i, n := range many.Content {
			key := fmt.Sprintf("objectives[%d]", i)
			if n = r.follow(n, key); n == nil {
				return
			}
			o := r.objective(n, key)
			if line, twice := lines[o.Metric]; twice && o.Metric != "" {
				r.fail(n, key+".metric", "%q is an objective already, on line %d; name each metric once", o.Metric, line)
			}
			lines[o.Metric] = n.Line
			s.Objectives = append(s.Objectives, o)
		}
		// What depends on the method is checked where the list is, for that is the line to mend.
		if len(s.Objectives) > 1 && s.Algorithm == search.CMAES {
			r.fail(many, "objectives", "algorithm cmaes takes one objective; use gp or tpe, or search_method genetic")
		}
	}
	if len(s.Objectives) > 0 {
		s.Objective = s.Objectives[0]
	}
}

// constraints reads bounds, one entry a metric: two of one metric could contradict each other
// unseen.
func (r *reader) constraints(n *yaml.Node) (out []trial.Constraint) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		r.fail(n, "constraints", "want a list such as [{metric: latency_ms, max: 20}]; drop the key if there are none")
		return nil
	}
	if len(n.Content) > maxConstraints {
		r.fail(n, "constraints", "has %d entries; the limit is %d", len(n.Content), maxConstraints)
		return nil
	}
	lines := map[string]int{} // metric to line; looked up only
	for i, item := range n.Content {
		key := fmt.Sprintf("constraints[%d]", i)
		if item = r.follow(item, key); item == nil {
			return out
		}
		c := r.constraint(item, key)
		if line, twice := lines[c.Metric]; twice && c.Metric != "" {
			r.fail(item, key+".metric", "%q has a constraint already, on line %d; give max and min in one", c.Metric, line)
		}
		lines[c.Metric] = item.Line
		out = append(out, c)
	}
	return out
}

// constraint reads {metric, max, min}. That it has no bound is a fault of its own only where none
// was tried.
func (r *reader) constraint(n *yaml.Node, key string) (c trial.Constraint) {
	if !r.mapping(n, key, "{metric: latency_ms, max: 20}") {
		return c
	}
	before, metric, faulty := len(r.errs), false, false
	// An infinite bound would never or always hold, and JSON has no such number.
	bound := func(e entry) (float64, bool) {
		f, ok := r.number(e.value, key+"."+e.name)
		if ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			r.fail(e.value, key+"."+e.name, "is %s; give a finite number", e.value.Value)
			ok = false
		}
		faulty = faulty || !ok
		return f, ok
	}
	for _, e := range r.entriesOf(n, key, children("constraints[]")) {
		switch e.name {
		case "metric":
			metric = true
			c.Metric = r.metric(e.value, key+".metric")
		case "max":
			c.Max, c.HasMax = bound(e)
		case "min":
			c.Min, c.HasMin = bound(e)
		}
	}
	faulty = faulty || len(r.errs) > before
	if !metric {
		r.fail(n, key+".metric", "is missing; name a metric that the trainer reports, such as latency_ms")
	}
	switch {
	case c.HasMax && c.HasMin && c.Min > c.Max:
		r.fail(n, key, "min %g is above max %g: no trial can meet it; swap them", c.Min, c.Max)
	case !c.HasMax && !c.HasMin && !faulty:
		r.fail(n, key, "has no bound; give max, min or both")
	}
	return c
}

// metric reads a metric's name. Which metrics there are only the trainer knows.
func (r *reader) metric(n *yaml.Node, key string) string {
	t, ok := r.text(n, key)
	if ok && strings.TrimSpace(t) == "" {
		r.fail(n, key, "is empty; name a metric that the trainer reports, such as val_loss")
	}
	return t
}

// objective reads {metric, direction}. A direction is never guessed from the metric's name: the
// wrong one would tune for the worst model.
func (r *reader) objective(n *yaml.Node, path string) (o trial.Objective) {
	if !r.mapping(n, path, "{metric: val_loss, direction: minimize}") {
		return o
	}
	metric, direction := false, false
	for _, e := range r.entriesOf(n, path, children("objective")) {
		key := path + "." + e.name
		switch e.name {
		case "metric":
			metric = true
			o.Metric = r.metric(e.value, key)
		case "direction":
			direction = true
			word, _ := r.oneOf(e.value, key, directions)
			o.Maximize = word == "maximize"
		}
	}
	if !metric {
		r.fail(n, path+".metric", "is missing; name a metric that the trainer reports, such as val_loss")
	}
	if !direction {
		r.fail(n, path+".direction", "is missing; give minimize or maximize")
	}
	return o
}
