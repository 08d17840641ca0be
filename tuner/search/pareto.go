package search

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// goals counts objectives.
func (p *Problem) goals() int { return max(1, len(p.Objectives)) }

// maximize reports whether objective k is to be maximized.
func (p *Problem) maximize(k int) bool {
	if k < len(p.Objectives) {
		return p.Objectives[k].Maximize
	}
	return p.Maximize
}

// Feasible reports whether a trial reported every constrained metric and all are
// within their bounds. Without constraints every trial is.
func (p *Problem) Feasible(t *Trial) bool {
	for k := range p.Constraints {
		if k >= len(t.Constraints) || !(p.Constraints[k].Excess(t.Constraints[k]) <= 0) {
			return false
		}
	}
	return true
}

// Front returns the numbers, ascending, of the trials that nothing else in the
// history improves upon: the Pareto front of the feasible completed trials; of
// one objective the best, ties included. It is empty while no trial is
// feasible.
func Front(p Problem, history []Trial) []int64 {
	var numbers []int64
	var values [][]float64
	for i := range history {
		t := &history[i]
		o := p.observe(t)
		if o.result == scored && p.Feasible(t) {
			numbers = append(numbers, t.Number)
			values = append(values, o.goals())
		}
	}
	var out []int64
	for _, i := range front(values) {
		out = append(out, numbers[i])
	}
	return out
}

// dominates reports whether a is nowhere worse than b and somewhere better; both
// are to be minimised.
func dominates(a, b []float64) bool {
	better := false
	for k := range a {
		if a[k] > b[k] {
			return false
		}
		better = better || a[k] < b[k]
	}
	return better
}

// front returns the positions, ascending, of the values that no other
// dominates.
func front(values [][]float64) []int {
	// In lexical order a point is dominated by an earlier one only.
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return lexical(values[order[a]], values[order[b]]) < 0 })
	var out []int
	for _, i := range order {
		free := true
		for _, k := range out {
			if dominates(values[k], values[i]) {
				free = false
				break
			}
		}
		if free {
			out = append(out, i)
		}
	}
	sort.Ints(out)
	return out
}

// lexical compares by the first number that differs.
func lexical(a, b []float64) int {
	for k := range a {
		switch {
		case a[k] < b[k]:
			return -1
		case a[k] > b[k]:
			return 1
		}
	}
	return 0
}

// layers peels fronts off: the layer of every value, 0 for the front, and
// within a layer how crowded each stands (Deb et al., NSGA-II, 2002): larger is
// lonelier.
func layers(values [][]float64) (layer []int, room []float64) {
	layer, room = make([]int, len(values)), make([]float64, len(values))
	left := make([]int, len(values))
	for i := range left {
		left[i] = i
	}
	for depth := 0; len(left) > 0; depth++ {
		some := make([][]float64, len(left))
		for i, k := range left {
			some[i] = values[k]
		}
		var peeled, rest []int
		at := 0
		members := front(some)
		for i, k := range left {
			if at < len(members) && members[at] == i {
				peeled = append(peeled, k)
				layer[k] = depth
				at++
			} else {
				rest = append(rest, k)
			}
		}
		crowd(values, peeled, room)
		left = rest
	}
	return layer, room
}

// crowd writes the crowding distance of each member.
func crowd(values [][]float64, members []int, room []float64) {
	if len(members) == 0 {
		return
	}
	order := append([]int(nil), members...)
	for k := range values[members[0]] {
		sort.SliceStable(order, func(a, b int) bool { return values[order[a]][k] < values[order[b]][k] })
		low, high := values[order[0]][k], values[order[len(order)-1]][k]
		for i, m := range order {
			switch {
			case i == 0 || i == len(order)-1:
				room[m] = math.Inf(1)
			case high > low:
				room[m] += (values[order[i+1]][k] - values[order[i-1]][k]) / (high - low)
			}
		}
	}
}

// ranking orders ended observations, best first: feasible ones by value (with
// several objectives by front and then by loneliness), then those that break
// constraints by how far, then unscored ones. Ties keep their order.
func ranking(done []observation) []int {
	order := make([]int, len(done))
	for i := range order {
		order[i] = i
	}
	class, key, second := make([]int, len(done)), make([]float64, len(done)), make([]float64, len(done))
	far := violations(done)
	var members []int
	var values [][]float64
	for i := range done {
		switch o := &done[i]; {
		case o.result != scored:
			class[i] = 2
		case far != nil && far[i] > 0:
			class[i], key[i] = 1, far[i]
		case o.values == nil:
			key[i] = o.value
		default:
			members, values = append(members, i), append(values, o.values)
		}
	}
	if len(values) > 0 {
		layer, room := layers(values)
		for k, i := range members {
			key[i], second[i] = float64(layer[k]), -room[k]
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if c := cmp.Compare(class[i], class[j]); c != 0 {
			return c
		}
		if c := cmp.Compare(key[i], key[j]); c != 0 {
			return c
		}
		return cmp.Compare(second[i], second[j])
	})
	return order
}

// violations measures how far each observation is from meeting the
// constraints: the sum of the amounts, each as a share of the largest seen, a
// metric that was not reported counting as that; 0 is feasible. It is nil
// without constraints.
func violations(done []observation) []float64 {
	var largest []float64
	for i := range done {
		for k, v := range done[i].over {
			for len(largest) <= k {
				largest = append(largest, 0)
			}
			if v > largest[k] && !math.IsInf(v, 1) {
				largest[k] = v
			}
		}
	}
	if largest == nil {
		return nil
	}
	out := make([]float64, len(done))
	for i := range done {
		for k, v := range done[i].over {
			switch {
			case math.IsNaN(v) || math.IsInf(v, 1):
				out[i] += 1.5
			case v > 0:
				out[i] += v / largest[k]
			}
		}
	}
	return out
}

// NoAnswer says, for people, why a history has no answer: that no trial
// reported finite values, or that none met the constraints, and which came
// nearest. It is empty when there is an answer, or nothing has ended.
func NoAnswer(p Problem, history []Trial) string {
	ended, failed := 0, 0
	var done []observation
	var trials []*Trial
	for i := range history {
		t := &history[i]
		if t.Status == Open {
			continue
		}
		ended++
		o := p.observe(t)
		if o.result == scored {
			if p.Feasible(t) {
				return ""
			}
			done, trials = append(done, o), append(trials, t)
		} else if t.Status == Failed {
			failed++
		}
	}
	name := func(metric string) string {
		if metric == "" {
			return "objective"
		}
		return strconv.Quote(metric)
	}
	switch {
	case ended == 0:
		return ""
	case len(done) == 0 && failed == ended:
		return fmt.Sprintf("all of %d trials failed; each trial has its reason", ended)
	case len(done) == 0:
		metrics := name("")
		if len(p.Objectives) > 0 {
			var names []string
			for _, o := range p.Objectives {
				names = append(names, name(o.Metric))
			}
			metrics = strings.Join(names, " and ")
		}
		return fmt.Sprintf("none of %d trials reported a finite value of %s; check that the trainer reports it and that the space has settings that train", ended, metrics)
	}
	nearest := ranking(done)[0]
	t := trials[nearest]
	var broken []string
	for k := range p.Constraints {
		c := &p.Constraints[k]
		m := math.NaN()
		if k < len(t.Constraints) {
			m = t.Constraints[k]
		}
		switch over := c.Excess(m); {
		case math.IsNaN(over):
			broken = append(broken, fmt.Sprintf("%s was not reported", name(c.Metric)))
		case over > 0 && c.HasMax && m > c.Max:
			broken = append(broken, fmt.Sprintf("%s was %.4g, above max %g", name(c.Metric), m, c.Max))
		case over > 0:
			broken = append(broken, fmt.Sprintf("%s was %.4g, below min %g", name(c.Metric), m, c.Min))
		}
	}
	return fmt.Sprintf("none of %d trials met the constraints; trial %d came nearest: %s; loosen the constraints or widen the space", ended, t.Number, strings.Join(broken, ", "))
}
